"""The `litejit` command: one file per subcommand, imported when it is called."""
from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import click

from litejit import __version__

COMMANDS = {"run": "Run a model on files, images or random numbers.",
            "inspect": "Show what a model is made of, its plan and its memory.",
            "bench": "Time models against other runtimes.",
            "profile": "Time the steps of a model.",
            "warmup": "Compile models ahead of time.",
            "demo": "Classify handwritten digits in the terminal.",
            "cache": "The store of compiled code: path, ls, verify, rm."}


class Commands(click.Group):
    """A group whose commands are imported when they are needed: `inspect` must not wait for the others."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = import_module(f"litejit.cli.{name}_command").command
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="litejit")
@click.option("--debug", is_flag=True, help="Show tracebacks and what is compiled.")
def cli(debug: bool) -> None:
    """Run TensorFlow Lite models at the speed of the machine."""
    if debug:
        import logging

        logging.basicConfig(format="%(name)s: %(message)s")
        logging.getLogger("litejit").setLevel(logging.DEBUG)


def main(arguments: list[str] | None = None) -> Any:
    """Entry of the command.

    Exit codes: 0 fine, 1 the model or the store cannot serve, 2 wrong usage, 130 interrupted.
    """
    given = sys.argv[1:] if arguments is None else arguments
    try:
        return cli.main(args=given, prog_name="litejit", standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("interrupted", err=True)
        sys.exit(130)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(2)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(0)
    except Exception as error:
        if "--debug" in given:
            raise
        known = isinstance(error, (RuntimeError, ValueError, OSError, TypeError, MemoryError))
        click.echo(f"Error: {error if known else f'{type(error).__name__}: {error}'}", err=True)
        if not known:
            click.echo("This is a bug of litejit; --debug shows where.", err=True)
        sys.exit(1)
