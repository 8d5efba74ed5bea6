"""Networks of the package for some of their classes: the answers for them stay, also in a file for `YOLO()`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

pytest.importorskip("ultralytics.nn")

from ultralytics_data import labelled
from ultralytics_subjects import SIZE, checkpoint_named

from secateur.cli import main
from secateur.data.config import load_data_config
from secateur.errors import UserError
from secateur.evaluation.settings import ValSettings
from secateur.families.context import known_data
from secateur.families.family import FAMILIES
from secateur.families.loading import load_checkpoint
from secateur.families.only_classes import only_classes
from secateur.families.starting import for_classes
from secateur.families.ultralytics.driving.data import described
from secateur.networks.checkpoint import save_checkpoint

FAMILY = FAMILIES["ultralytics"]
KEPT = [2, 0]


def images() -> torch.Tensor:
    return torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(3))


def same(mine: Any, every: Any, name: str = "") -> None:
    """All outputs are equal; of scores the kept columns are, and of the maps of classes that segmentation trains on."""
    if isinstance(every, dict):
        assert mine.keys() == every.keys()
        for key, value in every.items():
            same(mine[key], value, key)
    elif name == "proto" and isinstance(every, tuple):
        assert torch.equal(mine[0], every[0]) and torch.equal(mine[1], every[1][:, KEPT])
    elif isinstance(every, torch.Tensor):
        assert torch.equal(mine, every[..., KEPT] if name == "scores" else every), name
    else:
        assert mine == every


@pytest.mark.parametrize(
    "name", ["yolov8n", "yolov9t", "yolov10n", "yolo26n", "yolov8n-seg", "yolo26n-seg", "yolo11n-obb"]
)
def test_the_answers_are_those_of_the_whole_network_bit_for_bit(name: str) -> None:
    whole = checkpoint_named(name)
    narrow = only_classes(whole, ["triangle", "disc"])
    assert narrow.names == {0: "triangle", 1: "disc"} and narrow.narrowed
    for training in (False, True):
        ours, theirs = (checkpoint.build().train(training) for checkpoint in (narrow, whole))
        with torch.no_grad():
            torch.manual_seed(0)
            mine = ours(images())
            torch.manual_seed(0)
            same(mine, theirs(images()))


def test_the_head_is_put_into_the_order_of_a_data_set() -> None:
    whole = checkpoint_named("yolov8n")
    turned = for_classes(whole, {0: "triangle", 1: "square", 2: "disc"})
    name = "model.model.22.cv3.0.2.bias"
    assert torch.equal(turned.tensors[name], whole.tensors[name][[2, 1, 0]])


def test_a_classifier_is_refused() -> None:
    with pytest.raises(UserError, match="The probabilities of a classifier depend on all of its classes"):
        only_classes(checkpoint_named("yolov8n-cls"), ["disc"])


@pytest.mark.parametrize("name", ["yolov8n", "yolo26n"])
def test_a_written_file_is_read_and_says_that_plain_training_builds_anew(name: str, tmp_path: Path) -> None:
    from ultralytics import YOLO

    narrow = only_classes(checkpoint_named(name), ["square"])
    note = FAMILY.write(narrow.build(), tmp_path / "one.pt", SIZE)
    assert "trainer=secateur.ultralytics.Trainer" in note
    read = load_checkpoint(tmp_path / "one.pt")
    assert read.names == {0: "square"}
    branch = "boxes" if name == "yolov8n" else "one2one"
    with torch.no_grad():
        ours, theirs = (checkpoint.build()(images())[branch] for checkpoint in (read, narrow))
    torch.testing.assert_close(ours, theirs, atol=1e-2, rtol=1e-2)
    found = YOLO(tmp_path / "one.pt").predict(torch.rand(1, 3, SIZE, SIZE), imgsz=SIZE, conf=0.001, verbose=False)
    assert found[0].names == {0: "square"} and set(found[0].boxes.cls.tolist()) <= {0.0}


def test_it_is_pruned_and_healed_without_labels(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_checkpoint(checkpoint_named("yolov8n"), tmp_path / "all.safetensors")
    words = ["--images", str(tiny_data.parent / "images" / "train"), "--data", str(tiny_data), "--img", str(SIZE)]
    few = ["--statistics-images", "8", "--correction-images", "8", "--rounds", "1", "--round-to", "1", "--no-cliff"]
    heal = ["--heal", "--heal-steps", "2", "--heal-batch", "4"]
    command = ["prune", "--weights", str(tmp_path / "all.safetensors"), *words, *few, *heal, "--workers", "0"]
    main([*command, "--device", "cpu", "--classes", "square", "--flops", "0.8"])
    made = load_checkpoint("runs/prune/exp/pruned.safetensors")
    assert made.names == {0: "square"} and [entry.verb for entry in made.history] == ["classes", "prune", "heal"]
    assert "classes: square; the outputs of the other 2 classes had" in capsys.readouterr().out


def test_the_package_reads_the_labels_of_the_kept_classes(tiny_data: Path, tmp_path: Path) -> None:
    narrow = only_classes(checkpoint_named("yolov8n"), ["triangle", "disc"])
    data = known_data(narrow, load_data_config(tiny_data))
    split = FAMILY.split(data, "val")
    file = described(tmp_path, {"val": split}, narrow.names)
    listed = Path(yaml.safe_load(file.read_text())["val"]).read_text().split()
    assert len(listed) == len(split.index)
    for number, image in enumerate(listed):
        own = Path(image.replace("/images/", "/labels/")).with_suffix(".txt").read_text().splitlines()
        rows = np.array([row.split() for row in own], dtype=np.float32).reshape(-1, 5)
        np.testing.assert_allclose(rows, split.index.labels_of(number), atol=1e-6)
    counts = FAMILY.evaluate(narrow.build(), split, ValSettings(image_size=SIZE, workers=0)).counts
    assert counts["instances"] == len(split.index.labels) and counts["instances"] > 0


def test_labels_of_outlines_are_refused(tmp_path: Path) -> None:
    narrow = only_classes(checkpoint_named("yolov8n-seg"), ["disc"])
    data = known_data(narrow, load_data_config(labelled("segment", tmp_path)))
    with pytest.raises(UserError, match=r"cannot be restricted to some classes. Set --images and omit --data"):
        FAMILY.split_for(narrow, data, "train")
