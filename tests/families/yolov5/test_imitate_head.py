"""Distillation inside a training: what it touches, what it logs, how it resumes."""

from __future__ import annotations

import copy
import csv
import gc
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from law_subjects import enliven
from secateur.distillation.settings import DistillSettings
from secateur.errors import UserError
from secateur.families.loading import load_checkpoint
from secateur.families.yolov5.distillation.imitate import ImitateHead
from secateur.families.yolov5.hyp import YOLOv5Hyp
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import Topology
from secateur.training.hooks import Hook
from secateur.training.hyp import Hyp
from secateur.training.run import TrainingRun
from toy_training import SETTINGS, Die, Keep, ToyBatches, evaluate, fit, tensors_of, toy_detector

ALL = DistillSettings("bce+l2+features", distill_feature_weight=0.5, distill_warmup=1.5)


def lively(seed: int) -> Detector:
    """The toy with lively outputs; seeds differ in scales, shifts and statistics."""
    detector = toy_detector()
    enliven(detector, seed)
    return detector.train()


def imitation(settings: DistillSettings, student: Detector, teacher: Detector | None = None) -> ImitateHead:
    return ImitateHead(settings, student, teacher or lively(9), YOLOv5Hyp(), SETTINGS.image_size)


def distilled(
    folder: Path, settings: DistillSettings, *more: Hook, seed: int = 0, resume: bool = False, epochs: int = 3
) -> ImitateHead:
    student = lively(seed)
    imitate = imitation(settings, student)
    training = replace(SETTINGS, epochs=epochs, save_every_steps=2)
    fit(
        student,
        ToyBatches(),
        training,
        folder=folder,
        hooks=[imitate, *more],
        terms=[imitate],
        evaluate=evaluate,
        resume=resume,
    )
    return imitate


@pytest.mark.parametrize("method", ["bce", "kl", "l2", "features"])
def test_a_student_that_is_its_teacher_has_no_loss_and_others_have(method: str) -> None:
    student = lively(0).eval()
    imitate = imitation(DistillSettings(method), student, lively(0))
    imitate.watch(student)
    batch = ToyBatches().whole(0, 0)
    images = batch.images.float() / 255
    loss, parts = imitate(student(images), batch.targets, images)
    assert float(loss.detach()) == pytest.approx(0, abs=1e-4)
    other = imitation(DistillSettings(method), student)
    other.watch(student)
    loss, parts = other(student(images), batch.targets, images)
    # Not times the batch size in the parts, times it in the loss.
    assert float(loss.detach()) == pytest.approx(4 * float(torch.stack(list(parts.values())).sum()), rel=1e-5)
    assert float(loss.detach()) > 1e-2


def test_only_the_student_gets_gradients_and_the_given_teacher_is_left_alone() -> None:
    student, teacher = lively(0), lively(9).train()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    imitate = imitation(DistillSettings("bce+kl+softmax+features"), student, teacher)
    imitate.watch(student)
    batch = ToyBatches().whole(0, 0)
    images = (batch.images.float() / 255).contiguous(memory_format=torch.channels_last)
    loss, _ = imitate(student(images), batch.targets, images)
    loss.backward()
    assert all(parameter.grad is not None for parameter in student.parameters())
    assert all(parameter.grad is None for parameter in [*teacher.parameters(), *imitate.teacher.parameters()])
    assert teacher.training and not any(module.training for module in imitate.teacher.modules())
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())
    weight = imitate.teacher.get_parameter("model.1.conv.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_nothing_of_a_step_outlives_it() -> None:
    student = lively(0)
    imitate = imitation(DistillSettings("bce+features"), student)
    imitate.watch(student)
    images = torch.rand(2, 3, 64, 64)
    raw = student(images)
    loss, _ = imitate(raw, torch.zeros(0, 6), images)
    node = weakref.ref(raw[0])
    features = [weakref.ref(tensor) for tensor in imitate.view(student(images), torch.zeros(0, 6), images,
                                                               torch.tensor(1.0)).student_features]  # fmt: skip
    del raw, loss
    gc.collect()
    assert node() is None and all(feature() is None for feature in features)
    with torch.no_grad(), pytest.raises(RuntimeError, match="watch"):  # an evaluation is not watched
        imitate(student(images.clone()), torch.zeros(0, 6), images)


def test_the_watch_ends_with_the_training_and_a_copy_of_the_student_carries_no_teacher(tmp_path: Path) -> None:
    class Copy(Hook):
        def after_step(self, run: TrainingRun) -> None:
            assert len(run.network.head.m[0]._forward_pre_hooks) == 1
            self.copy = copy.deepcopy(run.network)

    twin = Copy()
    imitate = distilled(tmp_path, ALL, twin, epochs=1)
    assert len(imitate.student.head.m[0]._forward_pre_hooks) == 0
    twin.copy(torch.rand(1, 3, 64, 64))
    assert imitate._seen == {}
    names = load_checkpoint(tmp_path / "weights" / "last.safetensors").tensors.keys()
    assert names == lively(0).state_dict().keys()


def test_loss_parts_are_logged_with_the_others_and_rise_with_the_warm_up(tmp_path: Path) -> None:
    distilled(tmp_path, replace(ALL, distill="features", distill_warmup=2.0))
    rows = list(csv.DictReader((tmp_path / "results.csv").open()))
    names = [name for name in rows[0] if name.startswith("train/")]
    assert names == ["train/box_loss", "train/obj_loss", "train/cls_loss", "train/d_feat_loss"]
    first, second, third = (float(row["train/d_feat_loss"]) for row in rows)
    # The mean factors of the epochs are 0.2, 0.7 and 1 (5 batches an epoch); the loss itself falls slowly.
    assert 0 < first < 0.4 * third and first < second < third < 0.5 * 4


def test_warm_up_is_a_function_of_the_batch(tmp_path: Path) -> None:
    class Factors(Hook):
        def start(self, run: TrainingRun) -> None:
            self.seen: list[float] = []

    class Spy(ImitateHead):
        def ramp(self) -> float:
            factors.seen.append(super().ramp())
            return factors.seen[-1]

    factors, student = Factors(), lively(0)
    spy = Spy(DistillSettings("l2", distill_warmup=1.5), student, lively(9), YOLOv5Hyp(), 64)
    training = replace(SETTINGS, epochs=2)
    fit(student, ToyBatches(count=4), training, folder=tmp_path, hooks=[factors, spy], terms=[spy])
    assert factors.seen == pytest.approx([n / 6 for n in range(6)] + [1.0, 1.0])


def test_it_pulls_the_student_towards_the_teacher(tmp_path: Path) -> None:
    rows = {}
    for weight in (0.0, 1.0):
        settings = DistillSettings("features", distill_feature_weight=weight)
        student, teacher = lively(0), lively(9)
        imitate = imitation(settings, student, teacher)
        training = replace(SETTINGS, epochs=3, batch_size=64, hyp=Hyp(warmup_epochs=0))
        folder = tmp_path / str(weight)
        fit(student, ToyBatches(count=12), training, folder=folder, hooks=[imitate], terms=[imitate])
        judge = imitation(DistillSettings("features", distill_feature_weight=1.0), student, teacher)
        judge.watch(student.train())
        images = ToyBatches().whole(7, 0).images.float() / 255
        _, parts = judge(student(images), torch.zeros(0, 6), images)
        rows[weight] = float(parts["d_feat"])
    assert rows[1.0] < 0.8 * rows[0.0]


@pytest.mark.parametrize("step", [4, 7])
def test_interrupted_distillation_ends_bit_for_bit_where_the_undisturbed_one_ends(tmp_path: Path, step: int) -> None:
    whole, parts = Keep(), Keep()
    distilled(tmp_path / "a", ALL, Die(None), whole)
    with pytest.raises(KeyboardInterrupt):
        distilled(tmp_path / "b", ALL, Die(step), Keep())
    distilled(tmp_path / "b", ALL, Die(None), parts, seed=5, resume=True)
    first, second = tensors_of(whole), tensors_of(parts)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert (tmp_path / "a" / "results.csv").read_text() == (tmp_path / "b" / "results.csv").read_text()


def test_resuming_with_other_options_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        distilled(tmp_path, ALL, Die(4))
    with pytest.raises(UserError, match=r"--distill-warmup was 1\.5 and is 0\.0 now"):
        distilled(tmp_path, replace(ALL, distill_warmup=0.0), Die(None), resume=True)


def test_teacher_and_student_of_different_families(tmp_path: Path) -> None:
    teacher = Detector(Topology.from_yaml("yolov3-tiny", nc=3))
    topology = Topology.from_yaml("yolov5n", nc=3)
    torch.manual_seed(0)
    student = Detector(topology)
    with pytest.raises(UserError, match="at strides 16, 32, but the student at 8, 16, 32"):
        imitation(DistillSettings("bce"), student, teacher)
    teacher = Detector(Topology.from_yaml("yolov5s-ghost", nc=3))
    with torch.no_grad():
        teacher.head.anchors.copy_(teacher.head.anchors.flip(1) * 1.2)
    imitate = imitation(DistillSettings("bce+l2+kl+softmax"), student, teacher)
    training = replace(SETTINGS, epochs=1, multi_scale=True)
    result = fit(student, ToyBatches(count=3), training, folder=tmp_path, hooks=[imitate], terms=[imitate])
    assert all(result.rows[0][f"train/{part}_loss"] > 0 for part in ("d_box", "d_obj", "d_cls"))
    with pytest.raises(UserError, match="--distill features compares"):
        imitation(DistillSettings("bce+features"), student, teacher)


def test_the_teacher_computes_in_the_precision_of_the_student(tmp_path: Path) -> None:
    seen: list[torch.dtype] = []
    student = lively(0)
    imitate = imitation(DistillSettings("bce+features"), student)
    imitate.teacher.model[3].register_forward_hook(lambda m, i, output: seen.append(output.dtype))
    training = replace(SETTINGS, epochs=1, amp="bf16")
    result = fit(student, ToyBatches(count=2), training, folder=tmp_path, hooks=[imitate], terms=[imitate])
    assert set(seen) == {torch.bfloat16}
    assert result.rows[0]["train/d_feat_loss"] > 0
