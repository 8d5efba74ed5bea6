"""Who the teacher is, and what a training gets of it."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

from law_subjects import Subject
from secateur.checkpoints.training import Methods
from secateur.distillation.settings import DistillSettings
from secateur.errors import UserError
from secateur.families.family import family_of
from secateur.families.teacher import find_teacher
from secateur.networks.checkpoint import Checkpoint, HistoryEntry, save_checkpoint
from secateur.pruning.graph import trace
from secateur.pruning.surgery import cut
from secateur.training.settings import TrainSettings
from toy_training import toy_detector

TRAIN = TrainSettings(image_size=64)


@cache
def subject() -> Subject:
    detector = toy_detector().eval()
    return Subject(detector, trace(detector), 64)


def pruned(weights: str) -> Checkpoint:
    plan = subject().random_plan(1)
    smaller = cut(subject().detector, subject().graph, plan)
    history = (
        HistoryEntry("train", {"weights": "other.pt"}),
        HistoryEntry("prune", {"weights": weights} if weights else {}),
    )
    return replace(Checkpoint.of(smaller), plan=plan.to_dict(), history=history)


def test_the_teacher_is_the_named_one_or_the_dense_start_or_what_was_pruned(tmp_path: Path) -> None:
    dense = Checkpoint.of(subject().detector, training={"mark": 1})
    file = tmp_path / "dense.safetensors"
    save_checkpoint(dense, file)
    # Whose weights are to be zeroed; any other training of a dense start would imitate what it starts from.
    assert find_teacher(DistillSettings("bce"), dense, zeroing=True) is dense
    with pytest.raises(UserError, match="Set that network with --teacher"):
        find_teacher(DistillSettings("bce"), dense)
    assert find_teacher(DistillSettings("bce"), pruned(str(file))).training == {"mark": 1}
    assert find_teacher(DistillSettings("bce", teacher=str(file)), pruned("")).training == {"mark": 1}
    with pytest.raises(
        UserError, match=r"does not record which network it was pruned from. Set that network with --teacher"
    ):
        find_teacher(DistillSettings("bce"), pruned(""))
    with pytest.raises(UserError, match=r"gone\.safetensors that was pruned no longer exists"):
        find_teacher(DistillSettings("bce"), pruned(str(tmp_path / "gone.safetensors")))
    masked = replace(dense, masks={"model.0.conv.weight": torch.ones(1, dtype=torch.bool)})
    with pytest.raises(UserError, match="Set that network with --teacher"):
        find_teacher(DistillSettings("bce"), masked, zeroing=True)


def test_a_term_that_is_its_hook_for_a_pruned_student() -> None:
    start, teacher = pruned(""), Checkpoint.of(subject().detector)
    student, family = start.build(), family_of(start)
    assert Methods().distillation(start, student, TRAIN, teacher) == ([], [])
    terms, hooks = Methods(distill=DistillSettings("bce+features")).distillation(start, student, TRAIN, teacher)
    assert len(terms) == 1 and terms[0] is hooks[0]
    with pytest.raises(UserError, match="Unknown distillation 'both'"):
        family.distillation(DistillSettings("both"), student, start, teacher, TRAIN)


def test_names_of_methods_are_looked_up_before_anything_is_read() -> None:
    family = family_of(subject().detector)
    family.check_distillation(DistillSettings("bce+features"))
    with pytest.raises(UserError, match="Unknown distillation 'both'"):
        family.check_distillation(DistillSettings("bce+both"))


def test_other_classes(caplog: pytest.LogCaptureFixture) -> None:
    start = replace(pruned(""), names={0: "cell", 1: "dot", 2: "ring"})
    teacher = Checkpoint.of(subject().detector)
    other = Checkpoint.of(subject().detector, names={0: "cat", 1: "dog", 2: "cow"})
    methods = Methods(distill=DistillSettings("bce"))
    with caplog.at_level(logging.WARNING, logger="secateur"):
        methods.distillation(start, start.build(), TRAIN, teacher)
        assert not caplog.records
        methods.distillation(start, start.build(), TRAIN, other)
    assert "The class names of the teacher (cat, dog, cow) differ" in caplog.text
    five = Checkpoint.of(teacher.build_for(dict(enumerate("abcde"))))
    settings = DistillSettings("bce", teacher="five.pt")
    with pytest.raises(UserError, match=r"The teacher five\.pt has 5 classes, but the data set has 3"):
        family_of(start).distillation(settings, start.build(), start, five, TRAIN)
