"""`secateur predict` from its words to its files, its last line and its exit code."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from bright_rectangles import FRAMES, GREEN, RATE, RED, BrightRectangles, picture, place
from PIL import Image as Pillow

from commands_run import sentence
from secateur.cli import main
from secateur.deploy import opening
from secateur.deploy.exporters import export
from secateur.deploy.settings import ExportSettings
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import Topology
from secateur.networks.checkpoint import Checkpoint, save_checkpoint
from secateur.prediction import media as reading

Run = Callable[..., Path]


@pytest.fixture(autouse=True)
def _bright(own_folder: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights called bright.pt are opened as the predictor whose answers are known."""
    real = opening.open_detector

    def opened(model: Any, *arguments: Any) -> Any:
        return (BrightRectangles(), 320) if model == "bright.pt" else real(model, *arguments)

    monkeypatch.setattr(opening, "open_detector", opened)


def run(*words: str, code: int = 0, command: str = "predict") -> None:
    """Runs the command, whose exit code is known."""
    try:
        main([command, "--weights", "bright.pt", *words])
    except SystemExit as end:
        assert end.code == code
    else:
        assert code == 0


def lines(folder: str = "runs/predict/exp") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(folder) / "predictions.jsonl").read_text().splitlines()]


def test_three_hundred_pictures_with_one_corrupt(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    Path("many").mkdir()
    for number in range(300):
        pixels = picture(24, 32 + number % 3, (RED, (4, 4, 16, 20)))
        cv2.imwrite(f"many/{number:03}.png", pixels)
    whole = Path("many/123.png").read_bytes()
    Path("many/123.png").write_bytes(whole[: len(whole) // 2])
    run("many", "--img", "64", "--nosave", "--save-txt", "--save-json", "--batch-size", "8", code=1)
    told = capfd.readouterr()
    assert "299 images, 1 unreadable; 299 boxes: 299 red" in told.out
    assert [record.getMessage() for record in caplog.records] == ["many/123.png: is not an image or is damaged."]
    assert told.err == "Cannot read 1 of 300 sources.\n"
    assert [Path(row["file"]).stem for row in lines()] == [f"{n:03}" for n in range(300) if n != 123]
    assert len(list(Path("runs/predict/exp/labels").iterdir())) == 299
    summary = json.loads(Path("runs/predict/exp/summary.json").read_text())
    assert summary["pictures"] == 299 and summary["unreadable"] == ["many/123.png: is not an image or is damaged."]
    assert summary["boxes"] == {"red": 299}


def test_the_summary_is_printed_though_something_was_unreadable(capsys: pytest.CaptureFixture[str]) -> None:
    cv2.imwrite("a.png", picture(64, 64, (RED, (4, 4, 40, 40))))
    Path("b.png").touch()
    run("a.png", "b.png", "--nosave", "--json", code=1)
    summary = json.loads(capsys.readouterr().out)
    assert (summary["pictures"], summary["boxes"]) == (1, {"red": 1})
    assert not Path("runs").exists()  # nothing was asked for


@pytest.mark.parametrize("command", ["predict", "detect"])
def test_a_video_keeps_its_rate_and_its_detections(command: str, video: Path) -> None:
    run("--source", str(video), "--save-txt", "--save-json", "--view", command=command, code=2)
    run("--source", str(video), "--save-txt", "--save-json", command=command)
    assert [row["frame"] for row in lines()] == list(range(1, FRAMES + 1))
    for row in lines():
        (detection,) = row["detections"]
        assert detection["name"] == "red" and detection["class"] == 0
        assert np.abs(np.subtract(detection["box"], place(row["frame"]))).max() < 2
    labels = Path("runs/predict/exp/labels")
    assert sorted(file.name for file in labels.iterdir()) == sorted(f"moving_{n}.txt" for n in range(1, FRAMES + 1))
    values = [float(word) for word in (labels / "moving_3.txt").read_text().split()]
    x1, y1, x2, y2 = place(3)
    assert values == pytest.approx([0, (x1 + x2) / 320, (y1 + y2) / 192, 32 / 160, 40 / 96], abs=0.01)
    drawn = cv2.VideoCapture("runs/predict/exp/moving.mp4")
    assert drawn.get(cv2.CAP_PROP_FPS) == RATE and drawn.get(cv2.CAP_PROP_FRAME_COUNT) == FRAMES
    assert (drawn.get(cv2.CAP_PROP_FRAME_WIDTH), drawn.get(cv2.CAP_PROP_FRAME_HEIGHT)) == (160, 96)
    changed = np.abs(drawn.read()[1].astype(int) - picture(96, 160, (RED, place(1)))).max(2) > 60
    assert changed[16:56, 7:11].any() and not changed[70:].any()


def test_pictures_of_every_kind() -> None:
    """Boxes in pixels of the image as a viewer shows it."""
    bgr = picture(60, 100, (RED, (10, 20, 40, 50)))
    rgb, grey = bgr[..., ::-1], picture(60, 100, ((255, 255, 255), (10, 20, 40, 50)))[..., 0]
    Path("in").mkdir()
    Pillow.fromarray(rgb).convert("CMYK").save("in/cmyk.jpg", quality=98)
    cv2.imwrite("in/deep.png", bgr.astype(np.uint16) * 257)
    Pillow.fromarray(grey).save("in/grey.png")
    Pillow.fromarray(np.dstack((rgb, np.full_like(grey, 200)))).save("in/alpha.png")
    exif = Pillow.Exif()
    exif[0x112] = 6  # to be turned to the right
    Pillow.fromarray(rgb).save("in/turned.jpg", exif=exif, quality=98, subsampling=0)
    cv2.imwrite("in/large.jpg", picture(2160, 3840, (GREEN, (400, 1000, 2400, 2000))))
    cv2.imwrite("in/tiny.png", picture(10, 10, (GREEN, (2, 2, 8, 8))))
    run("in", "--save-json")
    boxes = {Path(row["file"]).stem: row["detections"] for row in lines()}
    expected = {
        **dict.fromkeys(("cmyk", "deep", "grey", "alpha"), (10, 20, 40, 50)),
        "turned": (10, 10, 40, 40),
        "large": (400, 1000, 2400, 2000),
        "tiny": (2, 2, 8, 8),
    }
    assert set(boxes) == set(expected)
    for name, box in expected.items():
        tolerance = 13 if name == "large" else 1.1
        assert len(boxes[name]) == 1, name
        assert np.abs(np.subtract(boxes[name][0]["box"], box)).max() <= tolerance, name
    sizes = {row["file"]: (row["height"], row["width"]) for row in lines()}
    assert sizes["in/turned.jpg"] == (100, 60)
    for file in Path("in").iterdir():
        drawn = cv2.imread(str(Path("runs/predict/exp") / file.name))
        assert drawn is not None and drawn.shape[:2] == sizes[str(file)]


def test_sources_by_pattern_list_and_standard_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    for name in "abc":
        cv2.imwrite(f"{name}.png", picture(64, 64, (RED, (4, 4, 40, 40))))
    Path("list.txt").write_text("c.png\n")
    monkeypatch.setattr(sys, "stdin", io.StringIO("b.png\nlost.png\n"))
    run("[a].png", "-", "--source", "list.txt", "--jsonl", "--nosave", code=1)
    told = capsys.readouterr()
    rows = [json.loads(line) for line in told.out.splitlines()]
    assert [row["file"] for row in rows] == ["a.png", "b.png", "c.png"]
    assert "3 images, 1 unreadable" in told.err and "lost.png: does not exist." in caplog.text


def test_options_of_detect_py() -> None:
    cv2.imwrite("a.png", picture(64, 64, (RED, (4, 4, 40, 40)), (GREEN, (44, 44, 60, 60))))
    words = "--source a.png --imgsz 64 --conf-thres 0.3 --iou-thres 0.5 --max-det 5 --agnostic-nms --classes 1 --half"
    words += " --device cpu --save-txt --save-conf --save-crop --hide-labels --hide-conf --line-thickness 1"
    words += " --vid-stride 2 --project out --name mine --nosave"
    run(*words.split(), command="detect")
    assert sorted(str(file) for file in Path("out/mine").rglob("*.*")) == [
        "out/mine/crops/green/a-1.jpg",
        "out/mine/labels/a.txt",
        "out/mine/summary.json",
    ]
    assert Path("out/mine/labels/a.txt").read_text().split()[0] == "1"
    assert len(Path("out/mine/labels/a.txt").read_text().split()) == 6
    run("a.png", "--classes", "red", "--save-txt")
    assert Path("runs/predict/exp/labels/a.txt").read_text().split()[0] == "0"


def test_a_stream_ends_with_ctrl_c_and_keeps_its_video(monkeypatch: pytest.MonkeyPatch, video: Path) -> None:
    class Camera:
        rate, total = 10.0, 0

        def frames(self, stride: int) -> Iterator[tuple[int, Any]]:
            for number in range(1, 6):
                yield number, picture(96, 160, (RED, place(number)))
            raise KeyboardInterrupt

    class Opened:
        def __enter__(self) -> Camera:
            return Camera()

        def __exit__(self, *_: object) -> None:
            """Nothing."""

    monkeypatch.setattr(reading, "capture", lambda *_: Opened())
    run("0", "--save-json")
    assert [row["file"] for row in lines()] == ["webcam 0"] * 5
    assert cv2.VideoCapture("runs/predict/exp/webcam0.mp4").get(cv2.CAP_PROP_FRAME_COUNT) == 5
    assert json.loads(Path("runs/predict/exp/summary.json").read_text())["frames"] == 5
    run(str(video), "--name", "file", code=1)  # a file that is interrupted is not complete
    assert not list(Path("runs/predict/file").glob("*"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["predict"], "Option --weights is missing"),
        (["predict", "--weights", "bright.pt"], "secateur predict needs at least one source"),
        (["predict", "--weights", "gone.pt", "a.png"], "gone.pt"),
        (["predict", "--weights", "bright.pt", "gone.png"], "There is no image, video or folder gone.png"),
        (["predict", "--weights", "bright.pt", "broken.png"], "broken.png: is not an image or is damaged."),
        (["predict", "--weights", "bright.pt", "broken.png", "empty.mp4"], "Cannot read any of the 2 sources. The"),
        (["predict", "--weights", "bright.pt", "empty.mp4"], "empty.mp4: the file is empty (zero bytes)."),
        (["predict", "--weights", "bright.pt", "99"], "webcam 99: does not exist or is in use."),
        (["predict", "--weights", "bright.pt", "http://127.0.0.1:9/a.jpg"], "cannot be fetched (Connection refused)"),
        (["predict", "--weights", "bright.pt", "a.png", "--classes", "cat"], "There is no class 'cat'"),
        (["predict", "--weights", "bright.pt", "a.png", "--conf", "2"], "--conf is 2.0"),
        (["predict", "--weights", "bright.pt", "a.png", "--vid-stride", "0"], "--vid-stride is 0"),
        (["predict", "--weights", "bright.pt", "a.png", "--batch-size", "-2"], "--batch-size is -2"),
        (["predict", "--weights", "bright.pt", "a.png", "--line-thickness", "-1"], "--line-thickness is -1"),
        (["predict", "--weights", "bright.pt", "a.png", "--json", "--jsonl"], "Use only one"),
        (["predict", "--weights", "bright.pt", "a.png", "--view-img"], "--view cannot show windows here"),
        (["detect", "--weights", "bright.pt", "a.png", "--visualize"], "feature maps cannot be plotted"),
    ],
)
def test_bad_input_is_one_sentence(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    cv2.imwrite("a.png", picture(64, 64))
    Path("broken.png").write_text("nothing of the kind")
    Path("empty.mp4").touch()
    assert told in sentence(capsys, *words)
    assert not Path("runs/predict/exp").exists()


def test_without_supervision_only_what_draws_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    cv2.imwrite("a.png", picture(64, 64, (RED, (4, 4, 40, 40))))
    words = ["predict", "--weights", "bright.pt", "a.png"]
    assert "pip install 'secateur[predict]'" in sentence(capsys, *words)
    run("a.png", "--nosave", "--save-txt", "--save-crop", "--save-json")
    assert len(lines()[0]["detections"]) == 1


def test_pytorch_and_onnx_runtime_find_the_same(tiny_cfg: Path) -> None:
    torch.manual_seed(0)
    detector = Detector(Topology.from_yaml(tiny_cfg, nc=3))
    for tensor in detector.parameters():
        if tensor.ndim == 4:  # so strong that what it says depends on what it sees
            torch.nn.init.normal_(tensor, std=2.5 / tensor[0].numel() ** 0.5)
    Path("in").mkdir()
    for number in range(4):  # no two places alike, so no two boxes are equally sure
        noise = np.random.default_rng(number).integers(0, 255, (16, 16, 3), np.uint8)
        cv2.imwrite(f"in/{number}.png", cv2.resize(noise, (64, 64), interpolation=cv2.INTER_CUBIC))
    save_checkpoint(Checkpoint.of(detector), "lively.safetensors")
    export(detector, Path("lively.onnx"), 64, ExportSettings())
    for name in ("safetensors", "onnx"):
        words = ["--img", "64", "--conf", "0.01", "--save-json", "--name", name]
        main(["predict", "--weights", f"lively.{name}", "in", *words])
    first, second = lines("runs/predict/safetensors"), lines("runs/predict/onnx")
    assert len(first) == len(second) == 4
    assert sum(len(row["detections"]) for row in first) > 20
    for ours, theirs in zip(first, second, strict=True):
        assert ours["file"] == theirs["file"]
        assert len(ours["detections"]) == len(theirs["detections"])
        for one, other in zip(ours["detections"], theirs["detections"], strict=True):
            assert one["class"] == other["class"]
            assert one["confidence"] == pytest.approx(other["confidence"], abs=5e-5)
            assert one["box"] == pytest.approx(other["box"], abs=0.02)
