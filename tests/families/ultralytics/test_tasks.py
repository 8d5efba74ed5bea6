"""Masks, key points, oriented boxes and classes: their losses, labels, Fisher scores and healing."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("ultralytics.nn")

from ultralytics_data import labelled
from ultralytics_subjects import NAMES, OTHERS, SIZE, checkpoint_named, fresh, save, subject_named

from secateur.checkpoints.heal import heal
from secateur.cli import main
from secateur.data.config import unlabelled_images
from secateur.distillation.settings import HealSettings
from secateur.errors import UserError
from secateur.families.context import Context
from secateur.families.evidence import FamilyEvidence
from secateur.families.family import FAMILIES, predictor_of
from secateur.families.loading import load_checkpoint
from secateur.families.reading import Reading
from secateur.families.ultralytics.evidence.targets import numbered_maps, packed, unpacked
from secateur.networks.checkpoint import Checkpoint
from secateur.pruning.statistics import collect
from secateur.pruning.surgery import cut
from secateur.training.hyp import Hyp
from secateur.training.settings import TrainSettings

FAMILY: Any = FAMILIES["ultralytics"]
HEALED = ("yolov8n", "yolov10n", *(f"yolov8n-{task}" for task in ("seg", "pose", "obb", "cls")), "yolo26n-seg")
READING = Reading(SIZE, 4)


def network_named(name: str) -> Any:
    """A network whose boxes have an area, whatever its random weights are."""
    network = checkpoint_named(name).build()
    for branch in ("cv2", "one2one_cv2"):
        for level in getattr(network.head, branch, None) or ():
            torch.nn.init.zeros_(level[-1].weight)
            torch.nn.init.constant_(level[-1].bias, 2.0)
    return network


def images_of(task: str, folder: Path) -> Path:
    return folder / "train" if task == "cls" else folder / "images" / "train"


def context_of(name: str, folder: Path, labels: bool) -> Context:
    """Labelled images of the task of a network, or the same without labels."""
    task = name.partition("-")[2]
    data = labelled(task, folder)
    if labels:
        return Context(SIZE, data=FAMILY.open_data(str(data)), batch_size=4, workers=0)
    return Context(SIZE, unlabelled=unlabelled_images(str(images_of(task, folder)), NAMES), batch_size=4, workers=0)


def batch_for(network: Any, folder: Path, task: str) -> Any:
    data = FAMILY.open_data(str(labelled(task, folder)))
    return next(iter(FAMILY.split_for(network, data, "train").ordered(READING)))


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", ["yolov8n-seg", "yolov8n-pose", "yolov8n-obb", "yolo26n-seg", "yolo26n-pose"])
def test_the_loss_is_that_of_the_package_on_its_own_batch(name: str, training: bool, tmp_path: Path) -> None:
    task, network = name.partition("-")[2], network_named(name).train(training)
    split = FAMILY.split_for(network, FAMILY.open_data(str(labelled(task, tmp_path))), "train")
    dataset = split.dataset(range(4), READING)
    theirs = dataset.collate_fn([dataset[place] for place in range(4)])
    images = theirs["img"].float() / 255
    targets = packed(split.task, theirs)
    total, parts = FAMILY.loss(network, TrainSettings())(network(images), targets, images)
    expected, said = network.model.loss({**theirs, "img": images})
    torch.testing.assert_close(total, expected.sum())
    assert {f"{key}_loss" for key in parts} == set(said) and total > 0


def test_the_loss_of_a_classifier_is_its_cross_entropy() -> None:
    network, images = checkpoint_named("yolov8n-cls").build(), torch.rand(3, 3, SIZE, SIZE)
    targets = torch.tensor([0, 2, 1])
    total, parts = FAMILY.loss(network, TrainSettings())(network(images), targets, images)
    torch.testing.assert_close(total, torch.nn.functional.cross_entropy(network(images), targets, reduction="sum"))
    assert list(parts) == ["cls"] and FAMILY.targets_of(targets, 1).tolist() == [2]
    with pytest.raises(UserError, match="class id 3, but the detector has 3 classes"):
        FAMILY.check_targets(network, torch.tensor([0, 3]))


def test_of_overlapping_masks_the_smallest_counts() -> None:
    masks = torch.zeros(3, 4, 4)
    masks[0, :3], masks[1, :1], masks[2, 3] = 1, 1, 1
    maps = numbered_maps(torch.tensor([0, 0, 1]), masks, 3)
    assert maps[0, :, 0].tolist() == [2, 1, 1, 0] and maps[1, 3].tolist() == [1] * 4 and not maps[2].any()
    rows = torch.cat((torch.tensor([[0, 2], [0, 1], [1, 0]]), torch.rand(3, 4), masks.flatten(1)), 1)
    network = checkpoint_named("yolov8n-seg").build()
    batch = unpacked("segment", rows, torch.zeros(3, 3, 16, 16), network.model.args)
    assert batch["sem_masks"][0, :, 0].tolist() == [1, 2, 2, 0] and torch.equal(batch["masks"], maps.float())


@pytest.mark.parametrize(
    ("name", "labels"), [*((name, True) for name in OTHERS), *((name, False) for name in (*OTHERS[:4], "yolo26n-seg"))]
)
def test_every_task_is_scored_by_fisher(name: str, labels: bool, tmp_path: Path) -> None:
    subject, network = subject_named(name), network_named(name)
    evidence = FamilyEvidence(context_of(name, tmp_path, labels), network_named(name))
    batches, loss = evidence.scored(network, 4, 0)
    statistics = collect(network, subject.graph, batches, loss, limit=4)
    assert statistics.images == 4 and statistics.fisher is not None
    assert np.isfinite(statistics.fisher).all() and (statistics.fisher > 0).mean() > 0.5
    assert not list(tmp_path.rglob("*.cache"))


@pytest.mark.parametrize("name", HEALED)
def test_every_task_heals(name: str, tmp_path: Path) -> None:
    subject, task = subject_named(name), name.partition("-")[2] or "box"
    labelled(task, tmp_path, 16)
    context = Context(
        SIZE, unlabelled=unlabelled_images(str(images_of(task, tmp_path)), NAMES), batch_size=8, workers=0
    )
    small = Checkpoint.of(cut(subject.network, subject.graph, subject.plan()))
    settings = HealSettings(heal_steps=1, heal_batch=4, heal_lr=1e-5)
    result = heal(small, checkpoint_named(name), context, settings, tmp_path / "healed")
    (row,) = result.rows
    parts = {key.removeprefix("train/d_").removesuffix("_loss") for key in row if key.startswith("train/d_")}
    own = {"seg": {"mask", "proto"}, "pose": {"kpts"}, "obb": {"angle"}}.get(task, set())
    assert parts == {"cls"} | (own | {"box"} if task != "cls" else set()) | {"feat"} & parts
    assert all(np.isfinite(value) for value in row.values() if isinstance(value, float))
    assert load_checkpoint(result.last).tensors.keys() == small.tensors.keys()


@pytest.mark.parametrize("name", ["yolov8n-seg", "yolo26n-pose", "yolov8n-obb", "yolov8n-cls"])
def test_a_perfect_student_costs_nothing_and_each_answer_counts(name: str) -> None:
    network = network_named(name)
    checkpoint = Checkpoint.of(network)
    imitate = FAMILY.imitation(HealSettings(heal_features=0), network, checkpoint, checkpoint, TrainSettings())
    images = torch.rand(2, 3, SIZE, SIZE)
    with torch.no_grad():
        raw = network(images)
    assert float(imitate.compare(raw, raw, images)) == pytest.approx(0, abs=1e-4)
    if name.endswith("cls"):
        assert float(imitate.compare(raw + torch.tensor([1.0, 0, 0]), raw, images)) > 1e-3
        return
    for branch in ("one2many", "one2one") if "one2one" in raw else ("",):
        answers = raw[branch] if branch else raw
        for key in set(answers) - {"sizes"}:
            moved = answers[key] + torch.linspace(0.5, 1, answers[key].shape[-1])
            student = {**answers, key: moved}
            assert float(imitate.compare({**raw, branch: student} if branch else student, raw, images)) > 1e-5, key


@pytest.mark.parametrize("labels", [True, False], ids=["labels", "images"])
def test_a_loss_that_is_no_number_is_one_sentence(labels: bool, tmp_path: Path) -> None:
    subject, network = subject_named("yolov8n-seg"), network_named("yolov8n-seg")
    evidence = FamilyEvidence(context_of("yolov8n-seg", tmp_path, labels), network_named("yolov8n-seg"))
    torch.nn.init.constant_(network.model.model[0].conv.weight, float("nan"))
    batches, loss = evidence.scored(network, 4, 0)
    with pytest.raises(UserError, match=r"A gradient is not finite. Check the checkpoint, the labels"):
        collect(network, subject.graph, batches, loss, limit=4)


def test_a_healing_whose_loss_is_no_number_is_one_sentence(tmp_path: Path) -> None:
    labelled("box", tmp_path, 16)
    whole = checkpoint_named("yolov8n")
    context = Context(
        SIZE, unlabelled=unlabelled_images(str(tmp_path / "images/train"), NAMES), batch_size=8, workers=0
    )
    broken = whole.build()
    torch.nn.init.constant_(broken.model.model[0].bn.bias, float("inf"))
    with pytest.raises(UserError, match="The loss became NaN or infinite in epoch 1"):
        heal(Checkpoint.of(broken), whole, context, HealSettings(heal_steps=1, heal_batch=4), tmp_path / "healed")


def test_a_network_that_sees_nothing_cannot_label(tmp_path: Path) -> None:
    network = network_named("yolov8n-pose")
    for level in network.head.cv3:
        torch.nn.init.constant_(level[-1].bias, -40.0)
        torch.nn.init.zeros_(level[-1].weight)
    batches, _ = FamilyEvidence(context_of("yolov8n-pose", tmp_path, False), network).scored(network, 4, 0)
    with pytest.raises(UserError, match="finds nothing"):
        list(batches)


@pytest.mark.parametrize("name", ["yolov8n-seg", "yolov8n-pose", "yolov8n-obb"])
def test_own_labels_are_rows_of_the_task(name: str) -> None:
    network, images = network_named(name), torch.rand(3, 3, SIZE, SIZE)
    first, again = (FAMILY.own_labels(network, 1)(images) for _ in range(2))
    assert torch.equal(first, again) and first.dtype == torch.float32 and len(first)
    assert torch.equal(first[:, 0], first[:, 0].sort().values) and set(first[:, 1].tolist()) <= {0, 1, 2}
    own = first[:, 6:]
    assert own.shape[1] == {"seg": (SIZE // 4) ** 2, "pose": 51, "obb": 1}[name.partition("-")[2]]
    if name.endswith("seg"):
        assert set(own.unique().tolist()) == {0.0, 1.0}
    if name.endswith("pose"):
        assert set(own[:, 2::3].unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("yolov8n-seg", "box", "needs outlines: a class and the points of a polygon in every row"),
        ("yolov8n-pose", "box", "needs key points: a class, a box and the key points in every row, and kpt_shape"),
        ("yolov8n-obb", "box", "needs oriented boxes: a class and the four corners in every row"),
        ("yolov8n-cls", "box", "needs a folder with a folder for each class as --data"),
        ("yolov8n", "cls", "A network of the task 'detect' needs a data.yaml as --data"),
    ],
)
def test_labels_of_another_task_are_one_sentence(name: str, given: str, says: str, tmp_path: Path) -> None:
    data = FAMILY.open_data(str(labelled(given, tmp_path)))
    with pytest.raises(UserError) as raised:
        FAMILY.split_for(checkpoint_named(name), data, "train")
    assert says in str(raised.value) and str(tmp_path) in str(raised.value)


def test_key_points_of_another_number_are_refused(tmp_path: Path) -> None:
    data, network = FAMILY.open_data(str(labelled("pose", tmp_path))), network_named("yolov8n-pose")
    network.head.kpt_shape = [5, 3]
    with pytest.raises(UserError, match=r"kpt_shape \[17, 3\] but the network predicts 5 key points"):
        FAMILY.split_for(network, data, "train")


def test_labels_where_the_package_does_not_look_are_refused(tmp_path: Path) -> None:
    data, network = FAMILY.open_data(str(labelled("seg", tmp_path))), network_named("yolov8n-seg")
    for file in (tmp_path / "labels/train").iterdir():
        file.rename(tmp_path / "images/train" / file.name)
    split = FAMILY.split_for(network, data, "train")
    with pytest.raises(UserError, match=r"finds no labels for .* It looks for them in labels/"):
        list(split.ordered(READING))


class Runs:
    """What a pickle can carry."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def test_a_cache_of_labels_is_neither_read_nor_written(tmp_path: Path) -> None:
    data = FAMILY.open_data(str(labelled("seg", tmp_path)))
    cache = tmp_path / "labels/train.cache"
    cache.write_bytes(pickle.dumps(Runs(tmp_path / "ran")))
    before = cache.read_bytes()
    batches = list(FAMILY.split_for(network_named("yolov8n-seg"), data, "train").ordered(READING))
    assert [len(batch.images) for batch in batches] == [4, 2] and all(len(batch.targets) for batch in batches)
    assert cache.read_bytes() == before and not (tmp_path / "ran").exists()


def test_a_folder_of_classes_is_a_data_set(tmp_path: Path) -> None:
    data = FAMILY.open_data(str(labelled("cls", tmp_path)))
    assert data.names == NAMES and set(data.splits) == {"train", "val"} and data.labelled and data.nc == 3
    split = FAMILY.split(data, "train")
    assert len(split) == 6 and split.signature() != split.select([0, 1, 2, 3, 5, 4]).signature()
    (batch,) = split.ordered(Reading(SIZE, 8))
    assert batch.images.dtype == torch.float32 and float(batch.images.max()) <= 1
    assert [Path(file).parent.name for file in split.index.files] == [
        NAMES[number] for number in batch.targets.tolist()
    ]
    shown = split.shuffled(Reading(SIZE, 2, augmentation=Hyp(fliplr=1.0)))
    first, again = list(shown.epoch(0)), list(shown.epoch(0, 1))
    assert len(first) == len(shown) == 3 and torch.equal(first[1].images, again[0].images)
    plain = next(iter(split.shuffled(Reading(SIZE, 2)).epoch(0)))
    assert torch.equal(first[0].images, plain.images.flip(-1)) and torch.equal(first[0].targets, plain.targets)
    (tmp_path / "train" / "new").mkdir()
    (tmp_path / "train" / "disc" / "0.png").rename(tmp_path / "train" / "new" / "0.png")
    with pytest.raises(UserError, match="is not in a folder of one of the 3 classes"):
        FAMILY.split(data, "train")
    with pytest.raises(UserError, match="is not a data set for classifiers"):
        FAMILY.open_data(str(tmp_path / "train"))
    with pytest.raises(UserError, match="has no folder 'test'; it has train, val"):
        FAMILY.split(data, "test")


@pytest.mark.parametrize("name", ["yolov8n-obb", "yolov8n-cls"])
def test_what_gives_no_upright_boxes_says_who_answers(name: str) -> None:
    with pytest.raises(UserError, match="export --format ultralytics` and predict with YOLO"):
        predictor_of(checkpoint_named(name))


def test_a_segmentation_network_is_pruned_without_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    labelled("seg", tmp_path, 8)
    save(fresh("yolov8n-seg"), tmp_path / "best.pt")
    main(["prune", "--weights", "best.pt", "--images", "images/train", "--flops", "0.7", "--rounds", "1",
          "--statistics-images", "4", "--recalibrate", "4", "--name", "p", "--device", "cpu",
          "--workers", "0"])  # fmt: skip
    assert load_checkpoint("runs/prune/p/pruned.safetensors").history[-1].settings["criterion"] == "fisher"
