"""Which channels and anchors of the teacher answer to the student's, and teachers that do not fit."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from law_subjects import Subject, detector_named, enliven, subject_named
from secateur.distillation.pairing import fed_channels
from secateur.distillation.settings import DistillSettings
from secateur.errors import UserError
from secateur.families.yolov5.distillation.imitate import ImitateHead, anchor_order, check_heads, head_layers
from secateur.families.yolov5.hyp import YOLOv5Hyp
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import Topology
from secateur.pruning.depth import removal_of, remove
from secateur.pruning.graph import trace
from secateur.pruning.plan import Plan
from secateur.pruning.surgery import cut, mask
from toy_training import toy_detector


def neck_channels(student: Detector, teacher: Detector, *plans: Any) -> tuple[torch.Tensor, ...]:
    return fed_channels(student, teacher, (head_layers(student), head_layers(teacher)), *plans)


NO_TARGETS = torch.zeros(0, 6)
EMIT = ("model.8.cv3.conv", "model.4.conv")  # what the toy's head reads


@pytest.fixture(scope="module")
def subject() -> Subject:
    """The toy with lively weights; it is traced in no time."""
    detector = toy_detector()
    enliven(detector)
    return Subject(detector.eval(), trace(detector), 64)


def feature_loss(subject: Subject, teacher: Detector, student: Detector, plan: Plan, base: Plan | None = None) -> float:
    imitate = ImitateHead(
        DistillSettings("features", distill_feature_weight=1.0),
        student,
        teacher,
        YOLOv5Hyp(),
        subject.size,
        plan=plan.to_dict(),
        teacher_plan=base.to_dict() if base else None,
    )
    imitate.watch(student)
    images = subject.images()
    _, parts = imitate(student(images), NO_TARGETS, images)
    return float(parts["d_feat"])


@pytest.mark.parametrize("name", ["yolov5n", "yolov3-tiny", "odd"])
def test_a_student_that_is_the_cut_teacher_has_its_features(name: str) -> None:
    subject = subject_named(name)
    plan = subject.random_plan(1)
    teacher = mask(subject.detector, subject.graph, plan)
    student = cut(subject.detector, subject.graph, plan)
    assert feature_loss(subject, teacher, student, plan) < 1e-6
    # Other channels of the same number do not match.
    assert feature_loss(subject, subject.detector, cut(teacher, subject.graph, plan), plan) > 1e-3


def test_the_channels_are_those_that_the_plan_keeps_in_the_layer_before_the_head(subject: Subject) -> None:
    plan = subject.random_plan(2)
    student = cut(subject.detector, subject.graph, plan)
    kept = {layer.name: list(layer.kept) for layer in plan.layers}
    channels = neck_channels(student, subject.detector, plan.to_dict())
    assert [c.tolist() for c in channels] == [kept[name] for name in EMIT]
    whole = neck_channels(subject.detector, subject.detector, None)
    assert [len(c) for c in whole] == [m.in_channels for m in subject.detector.head.m]


def test_only_the_layers_that_emit_the_features_have_to_be_in_the_plan(subject: Subject) -> None:
    plan = subject.random_plan(2)
    student = cut(subject.detector, subject.graph, plan)
    fewer = [layer for layer in plan.layers if layer.name.split(".")[1] in {"8", "4"}]
    # A block that was removed as a whole keeps nothing.
    fewer += [replace(layer, kept=()) for layer in plan.layers if layer.name == "model.2.m.0.cv2.conv"]
    partial = replace(plan, layers=tuple(fewer)).to_dict()
    channels = neck_channels(student, subject.detector, partial)
    expected = neck_channels(student, subject.detector, plan.to_dict())
    assert all(torch.equal(a, b) for a, b in zip(channels, expected, strict=True))


def test_a_teacher_that_was_cut_itself_is_compared_by_the_dense_networks_channels(subject: Subject) -> None:
    first = subject.random_plan(3)
    teacher = cut(mask(subject.detector, subject.graph, first), subject.graph, first)
    graph = trace(teacher)
    keep = np.random.default_rng(0).random(graph.units) < 0.6
    for space in graph.spaces:
        keep[space.units[0]] = True
    second = Plan.of(graph, keep)
    student = cut(mask(teacher, graph, second), graph, second)
    dense = {layer.name: layer for layer in first.layers}
    layers = tuple(
        replace(
            dense[layer.name],
            kept=tuple(dense[layer.name].kept[i] for i in layer.kept),
        )
        for layer in second.layers
    )
    both = replace(first, layers=layers)
    assert feature_loss(subject, mask(teacher, graph, second), student, both, first) < 1e-6


def test_blocks_that_went_before_the_channels_make_no_difference(subject: Subject) -> None:
    gone = ["model.2.m.0"]
    shorter = remove(subject.detector, gone)
    graph = trace(shorter)
    first = Plan.of_removal(subject.graph, graph, removal_of(subject.detector, gone))
    second = Subject(shorter, graph, subject.size).random_plan(3)
    student, both = cut(shorter, graph, second), first.then(second).to_dict()
    kept = {layer.name: list(layer.kept) for layer in second.layers}
    from_dense = neck_channels(student, subject.detector, both)
    from_shorter = neck_channels(student, shorter, both, first.to_dict())
    for found in (from_dense, from_shorter):
        assert [c.tolist() for c in found] == [kept[name] for name in EMIT]


def test_features_of_another_network_are_refused(subject: Subject) -> None:
    student = cut(subject.detector, subject.graph, subject.random_plan(1))
    with pytest.raises(
        UserError, match=r"--distill features compares .* Set --teacher to the network that it was cut from"
    ):
        neck_channels(student, subject.detector, None)
    with pytest.raises(UserError, match="--distill features compares"):
        neck_channels(student, subject.detector, subject.random_plan(2).to_dict())


def test_anchors_are_paired_by_likeness() -> None:
    student = torch.tensor([[1.0, 2.0], [4.0, 1.0], [3.0, 9.0]])
    assert anchor_order(student, student[[2, 0, 1]]).tolist() == [1, 2, 0]
    assert anchor_order(student, torch.tensor([[1.2, 1.8], [2.5, 8.0], [5.0, 1.1]])).tolist() == [0, 2, 1]


def detector_of(config: str, classes: tuple[str, ...], anchors: list[list[int]] | None = None) -> Detector:
    topology = Topology.from_yaml(config, nc=len(classes))
    if anchors:
        topology = replace(topology, anchors=tuple(tuple(float(x) for x in row) for row in anchors))
    return Detector(topology, dict(enumerate(classes)))


def test_teachers_that_do_not_fit_are_refused_with_a_sentence() -> None:
    with torch.device("meta"):
        student = detector_of("yolov5n", ("a", "b", "c"))
        cases = {
            r"The teacher T has 4 classes, but the data set has 3\. Set --teacher": ("yolov5n", ("a", "b", "c", "d")),
            r"The teacher T has 1 class, but": ("yolov5n", ("a",)),
            r"has class b as number 0, but the data set has it as number 1": ("yolov5n", ("b", "a", "c")),
            r"at strides 8, 16, 32, 64, but the student at 8, 16, 32": ("yolov5n6", ("a", "b", "c")),
        }
        for sentence, (config, classes) in cases.items():
            with pytest.raises(UserError, match=sentence):
                check_heads(student, detector_of(config, classes), "T")
        two = detector_of("yolov5n", ("a", "b", "c"), [[10, 13, 16, 30], [30, 61, 62, 45], [116, 90, 156, 198]])
        with pytest.raises(UserError, match="has 2 anchors per level, but the student has 3"):
            check_heads(student, two, "T")
        check_heads(student, detector_of("yolov5s", ("a", "b", "c")), "T")


def test_the_teachers_anchors_come_in_the_students_order() -> None:
    """The same network with its anchors, and so its outputs, in another order costs nothing."""
    detector = detector_named("yolov5n")
    teacher, order = copy.deepcopy(detector), [2, 0, 1]
    head = teacher.head
    with torch.no_grad():
        head.anchors.copy_(head.anchors[:, order])
        for layer in head.m:
            for tensor in layer.parameters():
                tensor.copy_(tensor.unflatten(0, (3, -1))[order].flatten(0, 1))
    imitate = ImitateHead(DistillSettings("l2+bce"), detector, teacher, YOLOv5Hyp(), 64)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    _, parts = imitate(detector(images), NO_TARGETS, images)
    assert all(float(value) == pytest.approx(0, abs=1e-4) for value in parts.values())
