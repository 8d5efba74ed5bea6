"""`secateur sparsify`."""

from __future__ import annotations

from dataclasses import dataclass, field

from secateur.commands import Summary, command
from secateur.distillation.settings import DistillSettings
from secateur.runs.fields import Data, Hyp, Resume, Weights
from secateur.runs.folders import Place, require
from secateur.runs.only_resume import refuse_beside_resume
from secateur.sparsity.settings import SparsifySettings
from secateur.steps.sparsify import Sparsify
from secateur.training.settings import TrainSettings


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


@command("sparsify", "train with a penalty that drives dispensable channels to zero", lambda: SparsifyOptions, order=40)
def sparsify(options: SparsifyOptions) -> Summary:
    """Trains, or goes on with an interrupted training."""
    from secateur.runs.training_run import begin_training, resume_training

    if options.resume:
        refuse_beside_resume(options, SparsifyOptions())
        return resume_training(options.resume, "sparsify", options.place)
    weights = require(options.weights, "--weights", "best.pt")
    step = Sparsify(hyp=options.hyp, train=options.train, distillation=options.distillation, sparsify=options.penalty)
    return begin_training(step, options.data, weights, "", options.place)
