"""Two families that no line of the package names go through everything: a detector without anchors and a classifier."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import secateur
from secateur.cli import main
from secateur.data.images import read_image
from secateur.deploy.runtimes import open_predictor
from secateur.families.family import FAMILIES, family_of, predictor_of
from secateur.families.loading import load_checkpoint
from secateur.networks.checkpoint import Checkpoint, save_checkpoint
from secateur.registry import PLUGINS, load_plugins

TOYS = Path(__file__).parent / "toys"
SOURCE = Path(secateur.__file__).parent
COLOURS = {"blue": (200, 40, 40), "green": (40, 200, 40), "red": (40, 40, 200)}


@dataclass(frozen=True)
class Toy:
    """A trained network of a toy family, and what it was trained on."""

    kind: str
    weights: str
    data: str
    images: str
    size: int
    figure: str


@pytest.fixture(scope="module", autouse=True)
def _registered() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(PLUGINS, str(TOYS))
        load_plugins()
        yield


def draw_crops(folder: Path) -> None:
    """Discs on dark ground, whose colour is their class."""
    random = np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 8)):
        for name, colour in COLOURS.items():
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                image = random.integers(0, 60, (32, 32, 3)).astype(np.uint8)
                place = [int(value) for value in random.integers(10, 22, 2)]
                cv2.circle(image, place, int(random.integers(6, 10)), colour, -1)
                cv2.imwrite(str(folder / split / name / f"{number}.png"), image)


@pytest.fixture(scope="module", params=["rings", "sorter"])
def toy(request: pytest.FixtureRequest, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """Each family's network, trained by `secateur train`."""
    folder, kind = tmp_path_factory.mktemp(request.param), str(request.param)
    torch.manual_seed(0)
    names = {0: "disc", 1: "square", 2: "triangle"} if kind == "rings" else dict(enumerate(sorted(COLOURS)))
    save_checkpoint(
        Checkpoint.of(FAMILIES[kind].architecture(nc=3, width=8).build(names)), folder / "fresh.safetensors"
    )  # type: ignore[call-arg]
    if kind == "sorter":
        draw_crops(folder / "crops")
    data = tiny_data if kind == "rings" else folder / "crops"
    images = tiny_data.parent / "images" / "train" if kind == "rings" else folder / "crops" / "train" / "red"
    size = 64 if kind == "rings" else 32
    (folder / "hyp.yaml").write_text("lr0: 0.01\nwarmup_epochs: 1\nmosaic: 0\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run("train", "--weights", "fresh.safetensors", "--data", str(data), "--imgsz", str(size), "--hyp", "hyp.yaml",
            "--epochs", "20" if kind == "rings" else "6", "--batch", "8", "--nominal-batch", "8",
            "--optimizer", "AdamW", "--warmup-minimum", "3", "--val-every", "0")  # fmt: skip
    weights = folder / "runs/train/exp/weights/best.safetensors"
    return Toy(kind, str(weights), str(data), str(images), size, "mAP50-95" if kind == "rings" else "top-1")


def run(*arguments: str) -> None:
    """A command; a failure is raised by the command itself."""
    main([*arguments, "--device", "cpu"] if arguments[0] not in {"export", "info"} else list(arguments))


def pruned(toy: Toy, name: str, *options: str) -> Checkpoint:
    run("prune", "--weights", toy.weights, "--flops", "0.6", "--rounds", "2", "--statistics-images", "16",
        "--correction-images", "16", "--name", name, *options)  # fmt: skip
    return load_checkpoint(f"runs/prune/{name}/pruned.safetensors")


def test_the_package_names_neither() -> None:
    for file in SOURCE.rglob("*.py"):
        assert not re.search(r"sorter|\brings\b|toy", file.read_text(), re.IGNORECASE), file
    for file in TOYS.glob("*.py"):
        assert len(file.read_text().splitlines()) <= 250
        assert not re.search(r"yolov5|objectness\b(?!:)", file.read_text().split('"""', 2)[2], re.IGNORECASE)


def test_a_trained_network_answers_from_its_file(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = load_checkpoint(toy.weights)
    assert family_of(checkpoint).kind == toy.kind and checkpoint.nc == 3 and checkpoint.image_size == toy.size
    run("info", toy.weights)
    run("val", "--weights", toy.weights, "--data", toy.data, "--name", "v")
    summary = json.loads(Path("runs/val/v/summary.json").read_text())
    assert toy.figure in summary["metrics"]
    name, least = ("top-1", 0.9) if toy.kind == "sorter" else ("mAP50", 0.3)
    assert summary["metrics"][name] >= least
    assert toy.figure in capsys.readouterr().out


@pytest.mark.parametrize("labels", [True, False], ids=["labels", "images"])
def test_it_is_pruned_in_rounds_and_healed(toy: Toy, labels: bool) -> None:
    source = ["--data", toy.data] if labels else ["--images", toy.images]
    small = pruned(toy, "p", *source)
    plan = small.plan
    assert plan is not None and small.history[-1].cost["flops"] <= 0.6 * small.history[-1].cost["dense_flops"]
    assert small.history[-1].settings["criterion"] == "fisher"
    summary = json.loads(Path("runs/prune/p/summary.json").read_text())
    assert ("agreement" in summary) != labels
    if not labels:
        assert 0 < summary["agreement"]["values"][toy.figure] <= 1 and not summary["agreement"]["reason"]
    run(
        "heal",
        "--weights",
        "runs/prune/p/pruned.safetensors",
        "--images",
        toy.images,
        "--heal-steps",
        "20",
        "--heal-batch",
        "8",
    )
    healed = load_checkpoint("runs/heal/exp/healed.safetensors")
    assert {name: tensor.shape for name, tensor in healed.tensors.items()} == {
        name: tensor.shape for name, tensor in small.tensors.items()
    }


def test_it_is_fine_tuned_exported_and_checked(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    small = pruned(toy, "p", "--images", toy.images)
    run("finetune", "--weights", "runs/prune/p/pruned.safetensors", "--data", toy.data, "--epochs", "1")
    tuned = load_checkpoint("runs/finetune/exp/weights/last.safetensors")
    assert all(tuned.tensors[name].shape == tensor.shape for name, tensor in small.tensors.items())
    run("export", "--weights", "runs/prune/p/pruned.safetensors", "--format", "onnx")
    said = capsys.readouterr().out
    differs = float(re.search(r"outputs within (\S+) of", said)[1])  # type: ignore[index]
    assert differs < 1e-3
    images = (
        torch.from_numpy(read_image(str(sorted(Path(toy.images).iterdir())[0]))).permute(2, 0, 1)[None].flip(1) / 255
    )
    with torch.no_grad():
        expected: Any = small.build()(images)
    import onnxruntime

    file = next(Path("runs/export").rglob("*.onnx"))
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    if toy.kind == "sorter":
        np.testing.assert_allclose(found[0], expected.numpy(), atol=1e-4)
        return
    answers = [predictor.predict(images) for predictor in (open_predictor(file), predictor_of(small))]
    assert len(answers[0][0]) > 0
    torch.testing.assert_close(answers[0], answers[1], atol=1e-3, rtol=1e-4)
    run("val", "--weights", str(file), "--data", toy.data, "--name", "file")
    assert json.loads(Path("runs/val/file/summary.json").read_text())["metrics"]["mAP50"] > 0.1


def test_a_recipe_ends_in_its_table(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    Path("short.yaml").write_text(
        "name: short\nsummary: cut and heal\nstages:\n"
        "  - prune: {flops: 0.6, rounds: 2, statistics_images: 16, correction_images: 16}\n"
        "  - heal: {heal_steps: 20, heal_batch: 8}\n  - finetune: {epochs: 1}\n"
    )
    run("run", "--recipe", "short.yaml", "--weights", toy.weights, "--data", toy.data)
    summary = json.loads(Path("runs/run/exp/summary.json").read_text())
    assert [row["stage"] for row in summary["table"]] == [
        "dense",
        "cut, no repair",
        "cut + repair",
        "healed",
        "fine-tuned",
    ]
    assert all(toy.figure in row["metrics"] for row in summary["table"])
    assert toy.figure in capsys.readouterr().out


def test_what_a_family_lacks_is_refused_before_any_work(toy: Toy) -> None:
    if toy.kind == "rings":
        run("predict", "--weights", toy.weights, "--source", toy.images)
        return
    with pytest.raises(SystemExit):
        run("predict", "--weights", toy.weights, "--source", toy.images)
    assert not Path("runs").exists()
