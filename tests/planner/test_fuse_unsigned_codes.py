"""Rule "unsigned_codes": int8 tensors between convolutions held as uint8. It changes memory, not numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from litejit.compiler.cpu import target
from litejit.interpreter import Interpreter, OpResolverType
from tests.networks import layers

vnni = pytest.mark.skipif(target().dot != "vnni", reason="the CPU's dot product takes codes with their sign")
SIZE, CHANNELS = 9, 24


def inverted(net: Any, x: Any) -> Any:
    """A block of MobileNet v2: expand, depthwise, project, add."""
    made = net.depthwise(net.conv(x, 3 * CHANNELS), 3, 1, "RELU6")
    return net.binary("ADD", x, net.conv(made, CHANNELS, activation="NONE"))


NETWORKS: dict[str, tuple[Callable[[Any, Any], Any], int]] = {          # -> tensors that are turned
    "products": (lambda net, x: net.conv(net.conv(x, 40), 8), 3),
    "windows": (lambda net, x: net.conv(net.conv(x, 16, 3, 2), 24, 5), 3),
    "winograd": (lambda net, x: net.conv(net.conv(x, 64, 3), 64, 3), 3),
    "groups": (lambda net, x: net.conv(net.conv(x, 32, (1, 3)), 12, 1, 2), 3),
    "depthwise": (lambda net, x: net.conv(net.depthwise(x), 8), 3),
    "depthwise 5x5/2": (lambda net, x: net.conv(net.depthwise(x, 5, 2, "NONE"), 70), 3),
    "depthwise twice": (lambda net, x: net.conv(net.depthwise(net.depthwise(x), 5), 8), 4),
    "residual": (inverted, 5),
    "two residuals": (lambda net, x: inverted(net, inverted(net, x)), 9),
    "read by another": (lambda net, x: net.conv(net.pool("MAX_POOL_2D", net.depthwise(x), 2, 2), 8), 1),
    "sum with a pooled one": (lambda net, x: net.binary("ADD", net.conv(x, CHANNELS), net.pool(
        "AVERAGE_POOL_2D", x, 3, 1)), 0),
}


def build(make: Callable[[Any, Any], Any]) -> bytes:
    net = layers.Net("codes", "int8", 3)
    x = net.input(1, SIZE, SIZE + 4, 16)
    made = make(net, net.conv(x, CHANNELS, activation="NONE"))
    net.output(net.conv(made, 5, 3, activation="NONE"))
    return net.build()


def run(content: bytes, threads: int = 1, **options: Any) -> tuple[np.ndarray, Interpreter]:
    interpreter = Interpreter(model_content=content, num_threads=threads, **options)
    interpreter.allocate_tensors()
    x = np.random.default_rng(7).integers(-128, 128, interpreter.get_input_details()[0]["shape"], np.int8)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"]), interpreter


def turned(interpreter: Interpreter) -> int:
    """Tensors that are held as uint8."""
    return sum(int(note.split()[0]) for note in interpreter.plan.fused if note.endswith("int8 tensors are held as uint8"))


@vnni
@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_codes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, count = NETWORKS[name]
    content = build(make)
    want, fused = run(content)
    assert turned(fused) == count
    np.testing.assert_array_equal(run(content, 2)[0], want)
    monkeypatch.setenv("LITEJIT_FUSION_OFF", "unsigned_codes")
    plain, unfused = run(content)
    assert turned(unfused) == 0
    assert want.std() > 1
    np.testing.assert_array_equal(plain, want)


@vnni
def test_an_output_stays_signed() -> None:
    net = layers.Net("codes", "int8", 3)
    first = net.conv(net.input(1, SIZE, SIZE, 16), CHANNELS)
    net.output(first, net.conv(net.depthwise(first), 8))
    made, interpreter = run(net.build())
    assert turned(interpreter) == 0
    assert made.dtype == np.int8


@pytest.mark.parametrize("options", [{"experimental_preserve_all_tensors": True},
                                     {"experimental_op_resolver_type": OpResolverType.BUILTIN_REF}])
def test_not_where_tensors_are_looked_at_or_in_reference_kernels(options: dict[str, Any]) -> None:
    assert turned(run(build(inverted), **options)[1]) == 0
