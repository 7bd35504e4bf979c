"""Draws the pictures of the documents: `python docs/make_pictures.py` (needs matplotlib)."""
from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from litejit import Model  # noqa: E402
from litejit.compiler.cpu import target  # noqa: E402
from litejit.demo import MODELS  # noqa: E402
from litejit.ops.base import Target  # noqa: E402
from litejit.planner.graph import Value  # noqa: E402
from litejit.planner.make import make_plan  # noqa: E402
from litejit.planner.plan import Plan  # noqa: E402


def memory(plan: Plan, path: Path) -> None:
    """The arena over time: a rectangle per buffer, from its first to its last step, at its offset."""
    figure, axis = plt.subplots(figsize=(9, 3.6), dpi=110)
    colours = iter(plt.get_cmap("tab10").colors * 3)
    for item, buffer in plan.buffers.items():
        first, last = max(buffer.first, 0), min(buffer.last, len(plan.records) - 1)
        named, bottom = isinstance(item, Value), plan.offsets[item]
        axis.add_patch(plt.Rectangle((first, bottom), last - first + 1, buffer.size, edgecolor="white", linewidth=0.6,
                                     facecolor=next(colours) if named else "gainsboro"))
        if named:
            axis.text((first + last + 1) / 2, bottom + buffer.size / 2, item.name, ha="center", va="center", fontsize=8)
    steps = range(len(plan.steps))
    axis.set_xticks([at + 0.5 for at in steps], [f"{at}\n{plan.steps[at].node.op}" for at in steps], fontsize=7)
    axis.set(xlim=(0, len(plan.records)), ylim=(0, plan.arena_size * 1.02), ylabel="offset in the arena, bytes")
    total = sum(buffer.size for buffer in plan.buffers.values())
    axis.set_title(f"{total:,} bytes of buffers share an arena of {plan.arena_size:,}; grey: scratch of one step",
                   fontsize=9)
    figure.tight_layout()
    figure.savefig(path, metadata={"Software": None})


if __name__ == "__main__":
    memory(make_plan(Model.from_file(MODELS["int8"]), 0, ((1, 8, 8, 1),), Target(target())), ROOT / "docs" / "plan.png")
