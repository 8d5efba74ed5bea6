"""`secateur finetune`."""

from __future__ import annotations

from dataclasses import dataclass, field

from secateur.commands import Summary, command
from secateur.distillation.settings import DistillSettings
from secateur.runs.fields import Data, Hyp, Resume, Weights
from secateur.runs.folders import Place, require
from secateur.runs.only_resume import refuse_beside_resume
from secateur.sparsity.settings import WeightSettings
from secateur.steps.finetune import Finetune
from secateur.training.settings import TrainSettings


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


@command("finetune", "train a pruned detector; its shapes and its zeros are kept", lambda: FinetuneOptions, order=60)
def finetune(options: FinetuneOptions) -> Summary:
    """Trains, or goes on with an interrupted training."""
    from secateur.runs.training_run import begin_training, resume_training

    if options.resume:
        refuse_beside_resume(options, FinetuneOptions())
        return resume_training(options.resume, "finetune", options.place)
    weights = require(options.weights, "--weights", "cut.safetensors")
    step = Finetune(hyp=options.hyp, train=options.train, sparsity=options.sparsity, distillation=options.distillation)
    return begin_training(step, options.data, weights, "", options.place)
