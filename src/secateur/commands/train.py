"""`secateur train`, `secateur sparsify` and `secateur finetune`: the three trainings, begun or gone on with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from secateur.commands import Summary, command
from secateur.distillation.settings import DistillSettings
from secateur.runs.fields import Cfg, Data, Hyp, Resume, Weights
from secateur.runs.folders import Place, require
from secateur.runs.only_resume import refuse_beside_resume
from secateur.sparsity.settings import SparsifySettings, WeightSettings
from secateur.steps.finetune import Finetune
from secateur.steps.sparsify import Sparsify
from secateur.steps.train import Train, TrainingStep
from secateur.training.settings import TrainSettings


@dataclass(frozen=True)
class TrainOptions:
    """Train a detector: from a checkpoint (any width), or from scratch with --cfg."""

    data: Data = ""
    weights: Weights = ""
    cfg: Cfg = ""
    hyp: Hyp = "scratch-low"
    resume: Resume = ""
    train: TrainSettings = field(default_factory=TrainSettings)
    sparsity: WeightSettings = field(default_factory=WeightSettings)
    distillation: DistillSettings = field(default_factory=DistillSettings)
    place: Place = field(default_factory=Place)


@dataclass(frozen=True)
class SparsifyOptions:
    """Train with a penalty that drives the scales of dispensable channels to zero."""

    data: Data = ""
    weights: Weights = ""
    hyp: Hyp = "scratch-low"
    resume: Resume = ""
    penalty: SparsifySettings = field(default_factory=SparsifySettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    distillation: DistillSettings = field(default_factory=DistillSettings)
    place: Place = field(default_factory=Place)


@dataclass(frozen=True)
class FinetuneOptions:
    """Train a pruned detector; its widths and the zeros of its weights are kept."""

    data: Data = ""
    weights: Weights = ""
    hyp: Hyp = "scratch-low"
    resume: Resume = ""
    train: TrainSettings = field(default_factory=TrainSettings)
    sparsity: WeightSettings = field(default_factory=WeightSettings)
    distillation: DistillSettings = field(default_factory=DistillSettings)
    place: Place = field(default_factory=Place)


@command("train", "train a detector from weights or from scratch", lambda: TrainOptions, order=30)
def train(options: TrainOptions) -> Summary:
    """Trains, or goes on with an interrupted training."""

    def step() -> TrainingStep:
        return Train(hyp=options.hyp, train=options.train, sparsity=options.sparsity, distillation=options.distillation)

    return _begun_or_resumed("train", options, TrainOptions(), step, options.weights, options.cfg)


@command("sparsify", "train with a penalty that drives dispensable channels to zero", lambda: SparsifyOptions, order=40)
def sparsify(options: SparsifyOptions) -> Summary:
    """Trains, or goes on with an interrupted training."""

    def step() -> TrainingStep:
        require(options.weights, "--weights", "best.pt")
        return Sparsify(
            hyp=options.hyp, train=options.train, distillation=options.distillation, sparsify=options.penalty
        )

    return _begun_or_resumed("sparsify", options, SparsifyOptions(), step, options.weights)


@command("finetune", "train a pruned detector; its shapes and its zeros are kept", lambda: FinetuneOptions, order=60)
def finetune(options: FinetuneOptions) -> Summary:
    """Trains, or goes on with an interrupted training."""

    def step() -> TrainingStep:
        require(options.weights, "--weights", "cut.safetensors")
        return Finetune(
            hyp=options.hyp, train=options.train, sparsity=options.sparsity, distillation=options.distillation
        )

    return _begun_or_resumed("finetune", options, FinetuneOptions(), step, options.weights)


def _begun_or_resumed(
    verb: str, options: Any, defaults: Any, step: Callable[[], TrainingStep], weights: str, cfg: str = ""
) -> Summary:
    """A new training of this kind, or with --resume the interrupted one, with no other option than --data."""
    from secateur.runs.training_run import begin_training, resume_training

    if options.resume:
        refuse_beside_resume(options, defaults)
        return resume_training(options.resume, verb, options.place, options.data)
    return begin_training(step(), options.data, weights, cfg, options.place)
