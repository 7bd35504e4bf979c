"""How far results of `precision="bfloat16"` are from the expected ones, model by model, as a Markdown table.

    python benchmarks/bfloat16.py MODEL.tflite ... [--emulate]

Inputs and expected outputs come from MODEL.npz where there is one (in_CASE_POSITION and default_CASE_POSITION, of which every
`stride`-th value is kept; or inPOSITION and default_outPOSITION). Elsewhere the inputs are random, and litejit's float32
outputs are the expected ones. max: the largest difference over the largest output. noise: rms(difference) / standard
deviation of the expected output. Of the cases and outputs, the worst. --emulate: in arithmetic of the kernels' own where the
CPU has no bfloat16 instructions.
"""
from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from litejit.cli.run_command import random_inputs
from litejit.compiler import cpu
from litejit.interpreter import Interpreter
from litejit.model import Model

HEAD = ("model", "bfloat16 of MMAC", "float32: max", "noise", "bfloat16: max", "noise")
Arrays = list[np.ndarray]


def cases(path: str, model: Model) -> Iterator[tuple[Arrays, Arrays, list[int]]]:
    """(inputs, expected outputs, their strides) of every case."""
    recorded = os.path.splitext(path)[0] + ".npz"
    if not os.path.exists(recorded):
        inputs = random_inputs(model, np.random.default_rng(0))
        wanted = run(interpreter(model, "float32"), inputs)
        yield inputs, wanted, [1] * len(wanted)
        return
    with np.load(recorded) as stored:
        kinds = [("in", "default_out"), *((f"in_{case}_", f"default_{case}_") for case in range(len(stored.files)))]
        for inputs, wanted in ([numbered(stored, name) for name in names] for names in kinds):
            if wanted:
                yield inputs, wanted, [int(s) for s in stored.get("stride", [1] * len(wanted))]


def numbered(stored: Any, prefix: str) -> Arrays:
    """The arrays prefix0, prefix1, ..."""
    found: Arrays = []
    while f"{prefix}{len(found)}" in stored:
        found.append(stored[f"{prefix}{len(found)}"])
    return found


def interpreter(model: Model, precision: str) -> Interpreter:
    return Interpreter(model=model, precision=precision, num_threads=-1)


def run(made: Interpreter, inputs: Arrays) -> Arrays:
    for detail, value in zip(made.get_input_details(), inputs):
        made.resize_tensor_input(detail["index"], value.shape)
    made.allocate_tensors()
    for detail, value in zip(made.get_input_details(), inputs):
        made.set_tensor(detail["index"], value)
    made.invoke()
    return [made.get_tensor(d["index"]) for d in made.get_output_details()]


def difference(got: np.ndarray, wanted: np.ndarray, stride: int) -> tuple[float, float]:
    """(largest difference over the largest output, rms of the difference over the standard deviation)."""
    a, b = np.ravel(got).astype(np.float64)[::stride], np.ravel(wanted).astype(np.float64)
    apart = np.abs(a - b)
    most = np.abs(b).max() or 1.0
    return float(apart.max() / most), float(np.sqrt((apart ** 2).mean()) / (b.std() or most))


def row(path: str) -> list[str]:
    """The cells of a model."""
    model = Model.from_file(path)
    made = {precision: interpreter(model, precision) for precision in ("float32", "bfloat16")}
    found: dict[str, list[tuple[float, float]]] = {precision: [] for precision in made}
    for inputs, wanted, strides in cases(path, model):
        for precision, one in made.items():
            found[precision] += [difference(*each) for each in zip(run(one, inputs), wanted, strides)]
    steps = made["bfloat16"].plan.steps
    share = sum(s.macs for s in steps if s.products == "bf16") / max(1, sum(s.macs for s in steps))
    worst = [max(figures) for precision in made for figures in zip(*found[precision])]
    return [os.path.basename(path).removesuffix(".tflite"), f"{100 * share:.0f} %", *(f"{x:.1e}" for x in worst)]


def main(arguments: list[str]) -> None:
    if "--emulate" in arguments and not cpu.target().bf16:
        cpu._chosen = cpu.target()._replace(bf16=True)
    print(f"CPU level {cpu.target().name}, bfloat16 {'used' if cpu.target().bf16 else 'not there: float32 in its place'}\n")
    print("| " + " | ".join(HEAD) + " |\n| --- |" + " ---: |" * (len(HEAD) - 1))
    for path in arguments:
        if not path.startswith("--"):
            try:
                print("| " + " | ".join(row(path)) + " |", flush=True)
            except (RuntimeError, ValueError) as error:
                print(f"{path}: {error}", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
