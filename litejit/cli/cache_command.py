"""`litejit cache`: where compiled code is kept, what is there, whether it is whole, and how to be rid of it."""
from __future__ import annotations

import time

import click

from litejit.cli.common import cache_option, size


@click.group()
def command() -> None:
    """The store of compiled code."""


def _roots(cache_dir: str | None) -> tuple[str, ...]:
    from litejit.store import open_store

    return tuple(open_store(cache_dir).roots)


@command.command()
@cache_option
def path(cache_dir: str | None) -> None:
    """Print the directories of the store, in the order in which they are searched."""
    for root in _roots(cache_dir):
        click.echo(root)


@command.command()
@cache_option
@click.option("--long", "-l", "in_full", is_flag=True, help="Whole keys.")
def ls(cache_dir: str | None, in_full: bool) -> None:
    """List the entries."""
    from litejit.store.upkeep import entries

    total = count = 0
    for root in _roots(cache_dir):
        for entry in entries(root):
            day = time.strftime("%Y-%m-%d", time.localtime(entry.used))
            about = " ".join(f"{k}={v}" for k, v in entry.description.items() if k != "created")
            state = f"  DAMAGED: {entry.problem}" if entry.problem else ""
            click.echo(f"{entry.key if in_full else entry.key[:12]}  {size(entry.size):>9}  {day}  {about}{state}")
            total, count = total + entry.size, count + 1
    click.echo(f"{count} entries, {size(total)}")


@command.command()
@cache_option
def verify(cache_dir: str | None) -> None:
    """Check every entry. Exit code 1 if one is damaged."""
    from litejit.store.upkeep import entries

    found = [entry for root in _roots(cache_dir) for entry in entries(root)]
    bad = [entry for entry in found if entry.problem]
    for entry in bad:
        click.echo(f"{entry.path}: {entry.problem}")
    click.echo(f"{len(found)} entries, {len(bad)} damaged")
    if bad:
        raise SystemExit(1)


@command.command()
@click.argument("key", default="")
@click.option("--all", "everything", is_flag=True, help="Every entry.")
@cache_option
def rm(key: str, everything: bool, cache_dir: str | None) -> None:
    """Remove the entries whose key begins with KEY, or all of them with --all."""
    from litejit.store.upkeep import remove

    if bool(key) == everything:
        raise click.UsageError("give the beginning of a key, or --all")
    count = sum(remove(root, key) for root in _roots(cache_dir))
    click.echo(f"removed {count} entries")
    if key and not count:
        raise SystemExit(1)
