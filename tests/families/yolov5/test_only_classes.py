"""A detector for some of its classes: its answers for them are those of the whole one, and only they count."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from law_subjects import enliven
from secateur.distillation.settings import DistillSettings
from secateur.errors import UserError
from secateur.families.family import FAMILIES
from secateur.families.loading import load_checkpoint
from secateur.families.only_classes import as_taught, left_out, only_classes
from secateur.families.starting import for_classes
from secateur.families.yolov5.architecture import topology_of
from secateur.families.yolov5.distillation import View
from secateur.families.yolov5.distillation.raw import RawOutputs
from secateur.families.yolov5.hyp import YOLOv5Hyp
from secateur.families.yolov5.loss import DetectionLoss, joint_logit
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import Topology
from secateur.networks.checkpoint import Checkpoint, save_checkpoint

NAMES = {0: "person", 1: "bicycle", 2: "car", 3: "cat", 4: "dog"}
HEAD = "model.11.m.0.weight"


@pytest.fixture(scope="module")
def whole(tiny_cfg: Path) -> Checkpoint:
    torch.manual_seed(0)
    detector = Detector(Topology.from_yaml(tiny_cfg, nc=5), NAMES)
    enliven(detector)
    checkpoint = Checkpoint.of(detector)
    generator = torch.Generator().manual_seed(1)
    masks = {
        name: torch.rand(t.shape, generator=generator) > 0.5 for name, t in checkpoint.tensors.items() if t.ndim == 4
    }
    return replace(checkpoint, masks=masks)


def images(batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, 3, 64, 64, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("words", [["person"], ["car", "person"], ["Dog, cat"], [4, "1", "car"]])
def test_the_answers_are_those_of_the_whole_network_bit_for_bit(
    whole: Checkpoint, words: tuple[str | int, ...]
) -> None:
    narrow = only_classes(whole, words)
    number = {name: place for place, name in NAMES.items()}
    rows = [0, 1, 2, 3, 4, *(5 + number[name] for name in narrow.names.values())]
    with torch.no_grad():
        for mine, every in zip(narrow.build()(images()), whole.build()(images()), strict=True):
            assert torch.equal(mine, every[..., rows])
    mask, every = narrow.masks[HEAD], whole.masks[HEAD]
    assert torch.equal(mask, every.unflatten(0, (-1, 10))[:, rows].flatten(0, 1))


def test_names_have_the_given_order_and_the_history_notes_them(whole: Checkpoint, tmp_path: Path) -> None:
    narrow = only_classes(whole, ["car,person"])
    save_checkpoint(narrow, tmp_path / "narrow.safetensors")
    for checkpoint in (narrow, load_checkpoint(tmp_path / "narrow.safetensors")):
        assert checkpoint.names == {0: "car", 1: "person"} and checkpoint.nc == 2 and checkpoint.narrowed
        assert checkpoint.history[-1].settings == {"classes": ["car", "person"], "of": 5}
        assert topology_of(checkpoint).trained_classes == 5
    again = only_classes(narrow, ["person"])
    assert again.names == {0: "person"} and again.narrowed and topology_of(again).trained_classes == 5
    other = for_classes(again, {0: "helmet"})
    assert not other.narrowed and topology_of(other).trained_classes == 0


def test_a_file_of_upstream_holds_the_classes_alone(whole: Checkpoint, tmp_path: Path) -> None:
    narrow = only_classes(whole, ["cat"])
    network = narrow.build()
    FAMILIES["yolov5"].write(network, tmp_path / "cat.pt", 64)
    read = load_checkpoint(tmp_path / "cat.pt")
    assert read.names == {0: "cat"}
    with torch.no_grad():
        for mine, theirs in zip(read.build()(images()), network(images()), strict=True):
            assert torch.allclose(mine, theirs, atol=1e-2)


def test_what_the_other_outputs_cost(whole: Checkpoint) -> None:
    found = left_out(whole, only_classes(whole, ["cat", "dog"]), 64)
    heads = [t for name, t in whole.tensors.items() if name.startswith("model.11.m") and name.endswith("weight")]
    gone = sum(t[:, :, 0, 0].numel() // 10 * 3 + len(t) // 10 * 3 for t in heads)
    assert found.parameters[0] - found.parameters[1] == gone
    assert found.kept == ("cat", "dog") and found.of == 5 and found.flops[1] < found.flops[0]
    assert str(found).startswith("classes: cat, dog; the outputs of the other 3 classes had ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["catt"], "There is no class 'catt'. Similar names: 3 cat"),
        (
            ["giraffe"],
            "There is no class 'giraffe'. The detector has 5 classes: 0 person, 1 bicycle, 2 car, 3 cat, 4 dog",
        ),
        ([7], "There is no class 7. The detector has 5 classes"),
        (["person, 0"], "--classes has 'person' (class 0) twice"),
        ([","], "--classes is empty. Set names or ids"),
        (list(range(5)), "--classes contains all 5 classes of the detector, so there is nothing to remove"),
    ],
)
def test_bad_classes_are_refused(whole: Checkpoint, words: list[str | int], said: str) -> None:
    with pytest.raises(UserError) as error:
        only_classes(whole, words)
    assert str(error.value).startswith(said)


def test_without_names_numbers_are_taken(whole: Checkpoint) -> None:
    nameless = replace(whole, names={number: f"class{number}" for number in range(5)})
    assert only_classes(nameless, ["1", 3]).names == {0: "class1", 1: "class3"}
    with pytest.raises(UserError, match=r"The detector has no class names\. Use ids, 0 to 4"):
        only_classes(nameless, ["person"])


def test_a_teacher_of_all_classes_answers_for_those_of_the_student(whole: Checkpoint) -> None:
    student = only_classes(whole, ["dog", "cat"])
    taught = as_taught(whole, student)
    assert taught.names == student.names and torch.equal(taught.tensors[HEAD], student.tensors[HEAD])
    assert as_taught(student, student) is student
    assert as_taught(whole, whole) is whole
    foreign = replace(whole, names={number: f"thing {number}" for number in range(5)})
    assert as_taught(foreign, student) is foreign


def test_the_best_score_is_a_product(whole: Checkpoint) -> None:
    raw = 4 * torch.randn(200, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    best = raw[:, 4].sigmoid() * raw[:, 5:].sigmoid().amax(1)
    torch.testing.assert_close(joint_logit(raw).sigmoid(), best)
    extreme = torch.tensor([[0.0] * 4 + [80.0, 80.0], [0.0] * 4 + [-90.0, 50.0]], requires_grad=True)
    joint_logit(extreme).sum().backward()  # type: ignore[no-untyped-call]
    assert extreme.grad is not None and extreme.grad.isfinite().all()


def seen(detector: Detector, category: int) -> list[torch.Tensor]:
    """Raw outputs in which one cell is certain to hold an object of a class."""
    raw = [torch.full_like(level, -6.0) for level in detector(images(1))]
    raw[0][0, 0, 2, 2, 4] = 5.0
    raw[0][0, 0, 2, 2, 5:] = -7.0
    if category < detector.nc:
        raw[0][0, 0, 2, 2, 5 + category] = 5.0
    return [level.requires_grad_() for level in raw]


@pytest.mark.parametrize("category", [0, 9], ids=["its own class", "another class"])
def test_objects_of_other_classes_are_background_for_the_loss(whole: Checkpoint, category: int) -> None:
    """An object of a class that is gone costs nothing; one of its own class that has no label does."""
    detector = only_classes(whole, ["person"]).build()
    raw = seen(detector, category)
    loss, _ = DetectionLoss(detector, YOLOv5Hyp(), 64)(raw, torch.zeros(0, 6))
    loss.backward()
    assert raw[0].grad is not None
    wrong = float(raw[0].grad[0, 0, 2, 2, 4].abs())
    assert (wrong < 1e-6) if category else (wrong > 1e-6)


def test_healing_compares_the_scores_of_the_kept_classes(whole: Checkpoint) -> None:
    """Where the teacher sees an object of another class, objectness is free and the score of a kept class is not."""
    detector = only_classes(whole, ["person"]).build()
    method = RawOutputs(DistillSettings("raw"), DetectionLoss(detector, YOLOv5Hyp(), 64))
    teacher = [level.detach() for level in seen(detector, 9)]

    def cost(objectness: float, category: float) -> float:
        student = [level.clone() for level in teacher]
        student[0][0, 0, 2, 2, 4:] += torch.tensor([objectness, category])
        anchors = detector.head.anchors
        view = View(
            student=tuple(student),
            teacher=tuple(teacher),
            student_anchors=anchors,
            teacher_anchors=anchors,
            targets=torch.zeros(0, 6),
            share=torch.ones(()),
        )
        return float(method(view)["d_obj"])

    assert cost(0, 0) == pytest.approx(0, abs=1e-6)
    assert cost(0, 7) > 100 * cost(-5, 0) > 0
