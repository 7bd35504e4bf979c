"""`litejit run`: inputs from files, images and random numbers; outputs; what it says when it cannot."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from litejit.schema.builder import ModelBuilder
from tests.cli.conftest import Litejit, write


def test_files_in_and_out(litejit: Litejit, adds: Path, tmp_path: Path) -> None:
    a, b = np.array([[1, 2, 3]], np.float32), np.array([[10, 20, 30]], np.float32)
    np.save(tmp_path / "a.npy", a)
    np.save(tmp_path / "b=1.npy", b)
    done = litejit("run", adds, "--input", f"left={tmp_path}/a.npy", "--input", f"b={tmp_path}/b=1.npy",
                   "--output", tmp_path / "out")
    assert done.code == 0 and done.err == ""
    assert "total" in done.out and "float32" in done.out and "1x3" in done.out and "11 22 33" in done.out
    assert np.array_equal(np.load(tmp_path / "out" / "total.npy"), a + b)


def test_inputs_are_resized_to_their_files(litejit: Litejit, adds: Path, tmp_path: Path) -> None:
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", np.ones((4, 3), np.float32))
    done = litejit("run", adds, *(f"--input={name}={tmp_path}/{name}.npy" for name in "ab"))
    assert done.code == 0 and "4x3" in done.out


def test_random_inputs_follow_the_seed(litejit: Litejit, adds: Path) -> None:
    first, same, other = (litejit("run", adds, "--seed", s).out.splitlines()[1] for s in (1, 1, 2))
    assert first == same != other
    assert "0 0 0" in litejit("run", adds, "--input", "a=zeros", "--input", "b=zeros").out


@pytest.mark.parametrize(("kind", "low", "high"), [("INT4", -8, 7), ("UINT4", 0, 15), ("INT2", -2, 1), ("INT8", -128, 127),
                                                   ("BOOL", 0, 1), ("INT32", 0, 1), ("FLOAT16", -1, 1)])
def test_random_inputs_of_every_type(kind: str, low: int, high: int, litejit: Litejit, tmp_path: Path) -> None:
    builder = ModelBuilder()
    graph = builder.subgraph("main")
    x = graph.input("x", (1000,), kind)
    graph.outputs(graph.add("CAST", [x], ("y", (1000,)), in_data_type=kind, out_data_type="FLOAT32"))
    path = write(tmp_path / "cast.tflite", builder)
    done = litejit("run", path, "--output", tmp_path)
    assert done.code == 0, done.err
    y = np.load(tmp_path / "y.npy")
    assert (y.min(), y.max()) == (low, high) if kind != "FLOAT16" else low <= y.min() < -0.9 < 0.9 < y.max() <= high


@pytest.mark.parametrize("mode", ["auto", "ref", "opt"])
def test_modes_threads_and_shapes(mode: str, litejit: Litejit, adds: Path) -> None:
    shapes = ("--input-shape", "a=2,3", "--input-shape", "right=2,3")
    done = litejit("run", adds, "--mode", mode, "--threads", "-1", *shapes)
    assert done.code == 0 and "2x3" in done.out


def test_image(litejit: Litejit, picture: Path, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * 10
    image.fromarray(pixels).save(tmp_path / "p.png")
    done = litejit("run", picture, "--input", f"image={tmp_path}/p.png", "--output", tmp_path)
    assert done.code == 0
    assert np.array_equal(np.load(tmp_path / "pixels.npy").ravel(), pixels.ravel())
    image.fromarray(np.full((40, 60), 7, np.uint8)).save(tmp_path / "grey.png")
    assert litejit("run", picture, "--input", f"image={tmp_path}/grey.png", "--output", tmp_path).code == 0
    assert np.load(tmp_path / "pixels.npy").ravel().tolist() == [7] * 18


def test_images_are_scaled_for_quantised_and_float_inputs(tmp_path: Path) -> None:
    from litejit.cli.run_command import make_input

    image, rng = pytest.importorskip("PIL.Image"), np.random.default_rng(0)
    image.fromarray(np.full((2, 2), 255, np.uint8)).save(tmp_path / "white.png")
    detail = {"name": "x", "shape": np.array([1, 2, 2, 1]), "dtype": np.float32, "quantization": (0.0, 0)}
    value = make_input(str(tmp_path / "white.png"), detail, rng, 127.5, 127.5)
    assert value.dtype == np.float32 and value.tolist() == [[[[1], [1]], [[1], [1]]]]
    detail |= {"dtype": np.int8, "quantization": (1 / 64, -10)}
    assert make_input(str(tmp_path / "white.png"), detail, rng, 127.5, 127.5).ravel().tolist() == [54] * 4


@pytest.mark.parametrize(("arguments", "text"), [
    (["--input", "nobody=zeros"], "the inputs are ['left', 'right', 'a', 'b']"),
    (["--input", "a"], "'a' is not NAME=VALUE"),
    (["--input", "=zeros"], "is not NAME=VALUE"),
    (["--input-shape", "a=2,x"], "'2,x' is not a shape"),
    (["--input-shape", "a=-1,3"], "'-1,3' is not a shape"),
    (["--input-shape", "nobody=2,3"], "no input is called 'nobody'"),
    (["--threads", "-2"], "-2 is not in the range"),
    (["--mode", "fast"], "'fast' is not one of"),
    (["--colour"], "No such option"),
])
def test_wrong_usage(arguments: list[str], text: str, litejit: Litejit, adds: Path) -> None:
    done = litejit("run", adds, *arguments)
    assert done.code == 2 and text in done.err.replace("\n", " ") and "Traceback" not in done.err


def test_missing_model_is_wrong_usage(litejit: Litejit, tmp_path: Path) -> None:
    done = litejit("run", tmp_path / "nope.tflite")
    assert done.code == 2 and "nope.tflite" in done.err and "does not exist" in done.err


def test_what_cannot_be_served(litejit: Litejit, adds: Path, unservable: Path, picture: Path,
                               tmp_path: Path) -> None:
    (tmp_path / "garbage.tflite").write_bytes(b"garbage, and enough of it")
    np.save(tmp_path / "wide.npy", np.ones((1, 3)))
    np.save(tmp_path / "long.npy", np.ones((1, 5), np.float32))
    (tmp_path / "text.npy").write_text("no array")
    (tmp_path / "text.png").write_text("no picture")
    for arguments, text in [
        ((tmp_path / "garbage.tflite",), "not a valid Flatbuffer"),
        ((unservable,), "Mystery"),
        ((adds, "--input", f"a={tmp_path}/nope.npy"), "there is no file"),
        ((adds, "--input", f"a={tmp_path}/wide.npy"), "FLOAT64"),
        ((adds, "--input", f"a={tmp_path}/long.npy"), "not broadcastable"),
        ((adds, "--input", f"a={tmp_path}/text.npy"), "is not a .npy file"),
        ((adds, "--input", f"a={tmp_path}/text.png"), "takes no image"),
        ((picture, "--input", f"image={tmp_path}/text.png"), "cannot identify image"),
        ((adds, "--output", tmp_path / "garbage.tflite" / "x"), "Not a directory"),
    ]:
        done = litejit("run", *arguments)
        assert done.code == 1 and text in done.err, (arguments, done)
        assert done.err.startswith("Error: ") and "Traceback" not in done.err


def test_debug_shows_the_traceback(litejit: Litejit, unservable: Path) -> None:
    with pytest.raises(RuntimeError, match="Mystery"):
        litejit("--debug", "run", unservable)
