"""Image sizes: every form that people write, what is refused, and what each command makes of two numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands_run import sentence
from secateur.cli import main, parsed
from secateur.commands import COMMANDS
from secateur.errors import UserError
from secateur.evaluation.cost import count
from secateur.families.loading import load_checkpoint
from secateur.flags import SQUARES, understood
from secateur.sizes import ImageSize, as_data, in_words, read_size, sides_of
from secateur.training.settings import TrainSettings

FORMS = ("{}x{}", "{}X{}", "{}×{}", "{}*{}", "{},{}", "{}, {}", "{} {}", " {} x {} ", "[{}, {}]", "({},{})")
SQUARE = ("prune", "heal", "run", "sweep", "train", "sparsify", "finetune")


@given(st.integers(1, 99_999), st.integers(1, 99_999), st.sampled_from(FORMS))
def test_height_and_width_in_every_form(height: int, width: int, form: str) -> None:
    size = read_size(form.format(height, width))
    assert size == (height, width) == read_size([height, width]) == read_size((np.int64(height), width))
    assert read_size(in_words(size)) in (size, height)
    assert sides_of(size) == (height, width)


@given(st.integers(0, 99_999))
def test_one_number(side: int) -> None:
    assert read_size(side) == read_size(str(side)) == read_size(f" {side} ") == read_size([side]) == side
    assert sides_of(side) == (side, side)
    assert as_data(side) == as_data((side, side)) == side and as_data((side, side + 1)) == [side, side + 1]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("640x", "640x"),
        ("x640", "x640"),
        ("640x480x3", "640x480x3"),
        ("640 480 320", "640 480 320"),
        ("640.5", "640.5"),
        ("6e2", "6e2"),
        ("big", "big"),
        ("", "nothing"),
        ("0x640", "0x640"),
        ("640,0", "640,0"),
        ((640, 480, 320), "(640, 480, 320)"),
        ((), "()"),
        (640.0, "640.0"),
        (True, "True"),
        (None, "None"),
        ((0, 640), "(0, 640)"),
        ("9" * 5000, f"'{'9' * 27}...{'9' * 28}'"),
    ],
)
def test_what_is_no_size_is_refused(value: Any, shown: str) -> None:
    with pytest.raises(UserError) as error:
        read_size(value)
    assert str(error.value) == f"--img takes one number or height and width, for example 640 or 384 640; not {shown}."


@pytest.mark.parametrize(
    ("command", "words", "ours"),
    [
        ("val", "--img 384 640 --data x", "--image-size 384x640 --data x"),
        ("val", "--imgsz 640,480", "--image-size 640x480"),
        ("val", "--img-size 640, 480", "--image-size 640x480"),
        ("export", "--img=1280x720 --format onnx", "--image-size=1280x720 --format onnx"),
        ("predict", "--img 640 0", "--image-size 640 0"),
        ("predict", "--img 384 640 0", "--image-size 384x640 0"),
        ("predict", "--img 640 bus.jpg", "--image-size 640 bus.jpg"),
        ("info", "--img 384 640 best.pt", "--image-size 384x640 best.pt"),
        ("train", "--img 640 640 --epochs 3", "--image-size 640 --epochs 3"),
        ("prune", "--img 640", "--image-size 640"),
        ("val", "--batch -1", "--batch-size 0"),
        ("predict", "--batch-size=-1", "--batch-size=0"),
        ("bench", "--batch 1 8", "--batch-size 1 8"),
    ],
)
def test_two_numbers_are_one_word(command: str, words: str, ours: str) -> None:
    assert understood(command, words.split()) == ours.split()


def test_a_number_that_is_a_file_is_told(own_folder: None) -> None:
    Path("480").mkdir()
    with pytest.raises(UserError, match=r"--img 640 480 is ambiguous: 480 is also a file here. Write --img 640x480"):
        understood("predict", ["--img", "640", "480"])
    assert understood("predict", ["480", "--img", "640x480"]) == ["480", "--image-size", "640x480"]
    assert understood("val", ["--img", "640", "480"]) == ["--image-size", "640x480"]


@pytest.mark.parametrize("words", [["--img", "384", "640"], ["--img", "384x640"], ["--imgsz=384,640"]])
@pytest.mark.parametrize("command", ["val", "predict", "detect", "export", "bench", "info", "latency"])
def test_commands_that_take_height_and_width(command: str, words: list[str]) -> None:
    file = ["best.pt"] if command == "info" else []
    assert parsed(COMMANDS[command], [*file, *words]).image_size == (384, 640)
    assert parsed(COMMANDS[command], [*file, "--img", "640"]).image_size == 640


@pytest.mark.usefixtures("own_folder")
@pytest.mark.parametrize("command", SQUARE)
def test_commands_that_take_squares_say_so(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = sentence(capsys, command, "--weights", "best.pt", "--img", "384", "640")
    assert told == (
        f"error: secateur {command} supports only square images: {SQUARES[command]}. Use --img 640 here. "
        "export, val and predict also take --img 384 640."
    )
    assert "--img takes one number or" in sentence(capsys, command, "--weights", "best.pt", "--img", "640x")


@pytest.mark.usefixtures("own_folder")
@pytest.mark.parametrize("command", [*SQUARE, "bench", "export"])
def test_an_automatic_batch_size_is_told(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = sentence(capsys, command, "--batch", "-1")
    assert told == (
        f"error: secateur {command} has no automatic batch size (--batch -1). Give a number, for example --batch 16."
    )


def test_trainings_take_squares_in_python_too() -> None:
    with pytest.raises(UserError, match=r"image_size is \(64, 96\); training images are square. Set one number"):
        TrainSettings(image_size=(64, 96))  # type: ignore[arg-type]


@pytest.mark.usefixtures("own_folder")
@pytest.mark.parametrize(
    ("size", "expected", "told"),
    [("64 96", (64, 96), [64, 96]), ("96,64", (96, 64), [96, 64]), ("64x64", 64, 64), ("50x70", (64, 80), [64, 80])],
)
def test_info_counts_at_height_and_width(
    size: str,
    expected: ImageSize,
    told: int | list[int],
    tiny_weights: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    main(["info", str(tiny_weights), "--img", *size.split(), "--json"])
    model = json.loads(capsys.readouterr().out)["model"]
    assert model["image_size"] == told
    assert model["gflops"] == count(load_checkpoint(tiny_weights).build(), expected).gflops
    notice = "Image size 50 x 70 is not a usable multiple of the stride 16: using 64 x 80."
    assert [record.getMessage() for record in caplog.records] == ([notice] if size == "50x70" else [])
    main(["info", str(tiny_weights), "--img", *size.split()])
    assert f"GFLOPs at {in_words(expected)} px" in capsys.readouterr().out


def sentence_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What a command is refused with, where earlier ones wrote files."""
    with pytest.raises(SystemExit):
        main(list(words))
    return capsys.readouterr().err.strip()


@pytest.mark.usefixtures("own_folder")
def test_one_size_from_export_to_bench(
    tiny_weights: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A file for height and width is measured and asked at its size, and so is its checkpoint."""
    pytest.importorskip("onnxruntime")

    def summary(*words: str) -> Any:
        main([*words, "--json"])
        return json.loads(capsys.readouterr().out)

    written = summary("export", "--weights", str(tiny_weights), "--img", "64", "96")
    file, flops = Path(written["folder"]) / "tiny.onnx", count(load_checkpoint(tiny_weights).build(), (64, 96))
    assert written["export"]["size"] == [64, 96] and written["model"]["gflops"] == flops.gflops
    on = ("--data", str(tiny_data), "--workers", "0", "--no-plots", "--img", "64", "96", "--batch", "-1")
    assert summary("val", "--weights", str(tiny_weights), *on)["model"]["gflops"] == flops.gflops
    assert 0 <= summary("val", "--weights", str(file), *on)["metrics"]["mAP50"] <= 1
    images = str(tiny_data.parent / "images" / "val")
    for weights, words in ((tiny_weights, ("--img", "64x96")), (file, ())):
        found = summary("predict", "--weights", str(weights), images, "--nosave", *words)
        assert found["image_size"] == [64, 96] and found["pictures"] == 8
    assert not [record for record in caplog.records if "Image size" in record.getMessage()]
    timed = summary("bench", str(tiny_weights), str(file), "--img", "64,96", "--rounds", "1", "--threads", "1")
    assert timed["image_size"] == [64, 96] and {row["model"]["gflops"] for row in timed["table"]} == {flops.gflops}
    told = sentence_of(capsys, "bench", str(tiny_weights), str(file), "--img", "96")
    assert told.endswith("requires images of 64 x 96 px, not 96. Remove --img, or export it for that size.")
    summary("val", "--weights", str(file), *on[:-5], "--img", "96", "64")
    assert "Image size 96 x 64 is ignored: this file accepts only images of 64 x 96 pixels." in caplog.text
