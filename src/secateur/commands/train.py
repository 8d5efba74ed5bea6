"""`secateur train`."""

from __future__ import annotations

from dataclasses import dataclass, field

from secateur.commands import Summary, command
from secateur.distillation.settings import DistillSettings
from secateur.runs.fields import Cfg, Data, Hyp, Resume, Weights
from secateur.runs.folders import Place
from secateur.runs.only_resume import refuse_beside_resume
from secateur.sparsity.settings import WeightSettings
from secateur.steps.train import Train
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


@command("train", "train a detector from weights or from scratch", lambda: TrainOptions, order=30)
def train(options: TrainOptions) -> Summary:
    """Trains, or goes on with an interrupted training."""
    from secateur.runs.training_run import begin_training, resume_training

    if options.resume:
        refuse_beside_resume(options, TrainOptions())
        return resume_training(options.resume, "train", options.place)
    step = Train(hyp=options.hyp, train=options.train, sparsity=options.sparsity, distillation=options.distillation)
    return begin_training(step, options.data, options.weights, options.cfg, options.place)
