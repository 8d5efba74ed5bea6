"""`secateur train`, `secateur sparsify` and `secateur finetune`: the three kinds of training, new or resumed."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from secateur.commands import Summary, command
from secateur.distillation.settings import DistillSettings
from secateur.runs.fields import Cfg, Data, Hyp, Resume, Weights
from secateur.runs.folders import OutputOptions, require
from secateur.runs.options import refuse_beside_resume
from secateur.sparsity.settings import SparsifySettings, WeightSettings
from secateur.steps.finetune import Finetune
from secateur.steps.sparsify import Sparsify
from secateur.steps.train import Train, TrainingStep
from secateur.training.settings import TrainSettings


@dataclass(frozen=True)
class TrainingOptions:
    """Options that all trainings share. A field that also exists in the step is passed on to it."""

    data: Data = ""
    weights: Weights = ""
    hyp: Hyp = "scratch-low"
    resume: Resume = ""
    train: TrainSettings = field(default_factory=TrainSettings)
    distillation: DistillSettings = field(default_factory=DistillSettings)


@dataclass(frozen=True)
class TrainOptions(TrainingOptions):
    """Train a detector from a checkpoint (of any width), or from scratch with --cfg."""

    cfg: Cfg = ""
    sparsity: WeightSettings = field(default_factory=WeightSettings)
    place: OutputOptions = field(default_factory=OutputOptions)


@dataclass(frozen=True)
class SparsifyOptions(TrainingOptions):
    """Train with a penalty that pushes the scales of unimportant channels towards zero."""

    sparsify: SparsifySettings = field(default_factory=SparsifySettings)
    place: OutputOptions = field(default_factory=OutputOptions)


@dataclass(frozen=True)
class FinetuneOptions(TrainingOptions):
    """Train a pruned detector. Its channel widths and zero weights are kept."""

    sparsity: WeightSettings = field(default_factory=WeightSettings)
    place: OutputOptions = field(default_factory=OutputOptions)


@command("train", "train a detector from a checkpoint or from scratch", lambda: TrainOptions, order=30)
def train(options: TrainOptions) -> Summary:
    """Starts a training, or resumes an interrupted one."""
    return _begun_or_resumed(Train, options, cfg=options.cfg)


@command(
    "sparsify", "train with a penalty that pushes unimportant channels towards zero", lambda: SparsifyOptions, order=40
)
def sparsify(options: SparsifyOptions) -> Summary:
    """Starts a training, or resumes an interrupted one."""
    return _begun_or_resumed(Sparsify, options, example="best.pt")


@command("finetune", "train a pruned detector; its shapes and zeros are kept", lambda: FinetuneOptions, order=60)
def finetune(options: FinetuneOptions) -> Summary:
    """Starts a training, or resumes an interrupted one."""
    return _begun_or_resumed(Finetune, options, example="cut.safetensors")


def _begun_or_resumed(kind: type[TrainingStep], options: Any, cfg: str = "", example: str = "") -> Summary:
    """Starts a training of the given kind. With --resume, resumes an interrupted one; only --data may be given with it.

    Args:
        kind: class of the training step.
        options: options of the command.
        cfg: model to train from scratch.
        example: example weights for the error if --weights is missing; "" makes --weights optional.
    """
    from secateur.runs.training_run import begin_training, resume_training

    if options.resume:
        refuse_beside_resume(options, type(options)())
        return resume_training(options.resume, kind.verb, options.place, options.data)
    if example:
        require(options.weights, "--weights", example)
    given = {entry.name for entry in dataclasses.fields(options)}
    names = [entry.name for entry in dataclasses.fields(kind) if entry.name in given]
    step = kind(**{name: getattr(options, name) for name in names})
    return begin_training(step, options.data, options.weights, cfg, options.place)
