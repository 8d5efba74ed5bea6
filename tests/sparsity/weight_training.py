"""Trainings with weight pruning, small enough for tests."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path

import pytest
import torch
from torch import Tensor

from secateur.families.loading import load_checkpoint
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import parse_topology
from secateur.networks.checkpoint import Checkpoint
from secateur.sparsity.settings import WeightSettings
from secateur.sparsity.weights import WeightPruning
from secateur.training.hooks import Hook
from secateur.training.hyp import Hyp
from secateur.training.loop import FitResult
from secateur.training.run import TrainingRun
from secateur.training.settings import TrainSettings
from toy_training import SETTINGS, Die, Keep, ToyBatches, evaluate, fit, tensors_of

# Eight optimizer steps an epoch, one a batch.
EVERY_BATCH = replace(SETTINGS, epochs=3, batch_size=64, hyp=Hyp(warmup_epochs=0))
BATCHES = ToyBatches(count=8, size=2)
# The window of these is from step 4 to 16, the cool-down the last of three epochs.
ON = WeightSettings(target_sparsity=0.8, pruning_start=0.5, pruning_frequency=4, cooldown_epochs=1)
NARROW = {
    "nc": 3,
    "depth_multiple": 0.33,
    "width_multiple": 0.125,
    "anchors": [[10, 13, 16, 30, 33, 23], [30, 61, 62, 45, 59, 119]],
    "backbone": [
        [-1, 1, "Conv", [64, 6, 2, 2]],
        [-1, 1, "Conv", [128, 3, 2]],
        [-1, 3, "C3", [128]],
        [-1, 1, "Conv", [256, 3, 2]],
        [-1, 1, "Conv", [512, 3, 2]],
    ],
    "head": [
        [-1, 1, "Conv", [256, 1, 1]],
        [-1, 1, "nn.Upsample", ["None", 2, "nearest"]],
        [[-1, 3], 1, "Concat", [1]],
        [-1, 3, "C3", [256, False]],
        [[8, 4], 1, "Detect", ["nc", "anchors"]],
    ],
}


def narrow_detector(seed: int = 0) -> Detector:
    """Two levels, three classes, some forty thousand parameters; a stem of 8 filters with 108 columns."""
    return copy.deepcopy(_built(seed))


@cache
def _built(seed: int) -> Detector:
    torch.manual_seed(seed)
    return Detector(parse_topology(NARROW, "the tests"))


@dataclass
class Trained:
    """What a training left behind."""

    pruning: WeightPruning
    run: TrainingRun
    result: FitResult

    @cached_property
    def last(self) -> Detector:
        """Read from the file."""
        return load_checkpoint(self.result.last).build()

    @cached_property
    def best(self) -> Detector:
        """Read from the file."""
        return load_checkpoint(self.result.best).build()


def train(
    folder: Path,
    options: WeightSettings,
    *,
    before: Sequence[Hook] = (),
    after: Sequence[Hook] = (),
    settings: TrainSettings = EVERY_BATCH,
    batches: ToyBatches = BATCHES,
    detector: Detector | None = None,
    start: Checkpoint | None = None,
    resume: bool = False,
) -> Trained:
    """Trains with other hooks before and after the pruning."""
    detector = detector or (start.build() if start is not None else narrow_detector())
    start = start or Checkpoint.of(detector)
    pruning, keep = WeightPruning(options, start), Keep()
    hooks = [*before, pruning, *after, keep]
    result = fit(detector, batches, settings, folder=folder, hooks=hooks, evaluate=evaluate, resume=resume, like=start)
    return Trained(pruning, keep.run, result)


def zeros(tensors: Mapping[str, Tensor]) -> float:
    """Share of zeros of all tensors together."""
    return sum(int((t == 0).sum()) for t in tensors.values()) / sum(t.numel() for t in tensors.values())


def weights_of(detector: Detector, names: Sequence[str] | None = None) -> dict[str, Tensor]:
    """Weights of convolutions: all of them, or those named."""
    found = {name: p.detach() for name, p in detector.named_parameters() if p.ndim == 4}
    return found if names is None else {name: found[name] for name in names}


class Each(Hook):
    """Calls a function after every optimizer step."""

    def __init__(self, look: Callable[[TrainingRun], None]) -> None:
        self.look = look

    def after_step(self, run: TrainingRun) -> None:
        """Calls it."""
        self.look(run)


class Shares(Hook):
    """The share of zeros after every step, in the model and in its average before it moves."""

    def __init__(self) -> None:
        self.model: dict[int, float] = {}
        self.average: dict[int, float] = {}

    def after_step(self, run: TrainingRun) -> None:
        """Counts."""
        self.model[run.step] = zeros(weights_of(run.network, list(run.masks)))
        self.average[run.step] = zeros(weights_of(run.ema.network, list(run.masks)))


def trained_with(folder: Path, options: WeightSettings) -> tuple[Trained, Shares]:
    """A training and its zeros step by step."""
    shares = Shares()
    return train(folder, options, after=[shares]), shares


def check_resumption(folder: Path, options: WeightSettings, start: Checkpoint | None, die: Sequence[int]) -> None:
    """Dies before every step of `die` in turn, resumes, and wants the undisturbed end bit for bit."""
    settings = replace(EVERY_BATCH, save_every_steps=3)
    whole = train(folder / "a", options, settings=settings, start=start, after=[Die(None)])
    resume = False
    for step in die:
        with pytest.raises(KeyboardInterrupt):
            train(folder / "b", options, settings=settings, start=start, after=[Die(step)], resume=resume)
        resume = True
    # The values that the detector has now must not matter.
    other = start.build() if start is not None else narrow_detector(5)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.5)
    parts = train(folder / "b", options, settings=settings, start=start, detector=other, after=[Die(None)], resume=True)
    first, second = tensors_of(whole), tensors_of(parts)  # type: ignore[arg-type]
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert whole.run.masks.keys() == parts.run.masks.keys()
    assert all(torch.equal(whole.run.masks[name], parts.run.masks[name]) for name in whole.run.masks)
    for file in ("sparsity.csv", "results.csv"):
        assert (folder / "a" / file).read_text() == (folder / "b" / file).read_text()
    for one, two in ((whole.result.best, parts.result.best), (whole.result.last, parts.result.last)):
        a, b = load_checkpoint(one), load_checkpoint(two)
        assert all(torch.equal(a.tensors[name], b.tensors[name]) for name in a.tensors)
        assert all(torch.equal(a.masks[name], b.masks[name]) for name in a.masks)


@dataclass
class Reference(Hook):
    """The recursion of snip-momentum in float64, on the very gradients and weights that training uses."""

    scores: dict[str, Tensor] = field(default_factory=dict)

    def before_step(self, run: TrainingRun) -> None:
        """S <- 0.9 S + |W g|."""
        for name, weight in run.network.named_parameters():
            if weight.ndim == 4 and weight.grad is not None:
                sensitivity = (weight.detach().double() * weight.grad.double()).abs()
                self.scores[name] = 0.9 * self.scores.get(name, torch.zeros_like(sensitivity)) + sensitivity


class Capture(Hook):
    """Copies the scores of a pruning, and its masks, once a number of steps have been scored."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.pruning: WeightPruning | None = None
        self.scores: dict[str, Tensor] = {}
        self.masks: dict[str, Tensor] = {}

    def before_step(self, run: TrainingRun) -> None:
        """Copies them before that step is taken."""
        assert self.pruning is not None
        if run.step + 1 == self.steps:
            self.scores = {name: value.clone() for name, value in self.pruning.scores.items()}
            self.masks = {name: value.clone() for name, value in run.masks.items()}


# Starts after ten steps; its end lies beyond the 20 steps that are looked at.
PATIENT = WeightSettings(target_sparsity=0.5, pruning_frequency=4, cooldown_epochs=0, pruning_start=1.25)


def scored(
    folder: Path, settings: TrainSettings, batches: ToyBatches, options: WeightSettings = PATIENT
) -> tuple[Reference, Capture, TrainingRun]:
    """A training whose scores after 20 steps are captured, and what the recursion gives."""
    detector = narrow_detector()
    pruning = WeightPruning(options, Checkpoint.of(detector))
    reference, capture, keep = Reference(), Capture(20), Keep()
    capture.pruning = pruning
    hooks = [reference, pruning, capture, keep, Stop(20)]
    with suppress(EnoughError):
        fit(detector, batches, settings, folder=folder, hooks=hooks)
    return reference, capture, keep.run


class EnoughError(Exception):
    """The steps that a test looks at are done."""


class Stop(Hook):
    """Ends a training before a step is taken."""

    def __init__(self, step: int) -> None:
        self.step = step

    def before_step(self, run: TrainingRun) -> None:
        """The end."""
        if run.step + 1 == self.step:
            raise EnoughError
