"""Hostile files on the command line: exit code 2, one sentence of at most 300 characters, nothing left behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from commands_run import sentence
from hostile_yaml import HOSTILE, check_sentence
from secateur.errors import UserError
from secateur.families.loading import load_checkpoint
from secateur.networks.checkpoint import save_checkpoint

pytestmark = pytest.mark.usefixtures("own_folder")
Refused = Callable[..., None]


@pytest.fixture
def refused(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Refused:
    """Runs a command line that has to be refused."""
    # ONNX Runtime, when it is first imported, leaves files of its own in the user's cache.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))

    def run(*words: str) -> None:
        before = sorted(tmp_path.rglob("*"))
        check_sentence(UserError(sentence(capsys, *words)))
        assert sorted(tmp_path.rglob("*")) == before

    return run


DATA = {
    **HOSTILE,
    "classes": b"train: .\nval: .\nnc: 30000000",
    "classes of 400 digits": b"train: .\nval: .\nnc: 1" + b"0" * 390,
    "long value": b"train: {a: " + b"x" * 6000 + b"}\nnames: [a]",
}
DETECT = b"head: [[[0], 1, Detect, [nc, anchors]]]\n"
CFG = {
    **HOSTILE,
    "anchors": b"anchors: 1.0e+12\nbackbone: [[-1, 1, Conv, [8, 3, 2]]]\n" + DETECT,
    "anchors without a point": b"anchors: 1000000000000\nbackbone: [[-1, 1, Conv, [8, 3, 2]]]\n" + DETECT,
    "bottlenecks": b"anchors: 3\nbackbone: [[-1, 1000000, C3, [8]]]\n" + DETECT,
    "depth": b"anchors: 3\ndepth_multiple: .inf\nbackbone: [[-1, 3, C3, [8]]]\n" + DETECT,
    "width": b"anchors: 3\nbackbone: [[-1, 1, Conv, [1000000000]]]\n" + DETECT,
    "argument": b"anchors: 3\nbackbone: [[-1, 1, Conv, [8, 3, {}]]]\n" + DETECT,
    "pool": b"anchors: 3\nbackbone: [[-1, 1, nn.MaxPool2d, [x]]]\n" + DETECT,
    "concat": b"anchors: 3\nbackbone: [[-1, 1, Concat, [5]]]\n" + DETECT,
}
HYP = {**HOSTILE, "anchors": b"anchors: 1.0e+12", "inf": b"lr0: .inf", "400 digits": b"lr0: 1" + b"0" * 390}
RECIPE = {
    **HOSTILE,
    "hyp": b"stages: [{finetune: {hyp: true}}]",
    "target": b"stages: [{finetune: {target_sparsity: [1]}}]",
    "key": b"stages: [{finetune: {1: 2}}]",
}


@pytest.mark.parametrize("name", DATA)
def test_data(name: str, refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_bytes(DATA[name])
    refused("data", "check", "data.yaml")
    refused("train", "--cfg", "yolov5n", "--data", "data.yaml", "--epochs", "1")


@pytest.mark.parametrize("name", CFG)
def test_model_files(name: str, refused: Refused, tmp_path: Path, tiny_data: Path) -> None:
    (tmp_path / "net.yaml").write_bytes(CFG[name])
    refused("train", "--cfg", "net.yaml", "--data", str(tiny_data), "--epochs", "1", "--img", "64")


@pytest.mark.parametrize("name", HYP)
def test_hyper_parameters(name: str, refused: Refused, tmp_path: Path, tiny_cfg: Path, tiny_data: Path) -> None:
    (tmp_path / "hyp.yaml").write_bytes(HYP[name])
    words = ("--hyp", "hyp.yaml", "--epochs", "1", "--img", "64")
    refused("train", "--cfg", str(tiny_cfg), "--data", str(tiny_data), *words)


@pytest.mark.parametrize("name", RECIPE)
def test_recipes(name: str, refused: Refused, tmp_path: Path, tiny_weights: Path, tiny_data: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(RECIPE[name])
    refused("run", "--weights", str(tiny_weights), "--data", str(tiny_data), "--recipe", "mine.yaml", "--img", "64")


@pytest.mark.parametrize(
    "command", ["val", "prune", "train", "finetune", "sparsify", "export", "predict", "bench", "run"]
)
def test_weights_that_are_no_numbers(
    command: str, refused: Refused, tmp_path: Path, tiny_weights: Path, tiny_data: Path
) -> None:
    checkpoint = load_checkpoint(tiny_weights)
    checkpoint.tensors["model.0.conv.weight"][0] = float("nan")
    save_checkpoint(checkpoint, tmp_path / "nan.safetensors")
    data = () if command in ("export", "predict", "bench") else ("--data", str(tiny_data))
    more = {
        "prune": ("--flops", "0.5"),
        "run": ("--flops", "0.5"),
        "predict": ("--source", str(Path(yaml.safe_load(tiny_data.read_text())["path"]))),
    }.get(command, ())
    weights = ("nan.safetensors",) if command == "bench" else ("--weights", "nan.safetensors")
    refused(command, *weights, *data, *more)
