"""A training small enough for tests: generated batches, a narrow detector, and a script for runs in other processes."""

from __future__ import annotations

import copy
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from secateur.evaluation.metrics import ClassMetrics, Metrics
from secateur.families.yolov5.family import YOLOv5Family
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import parse_topology
from secateur.training import loop
from secateur.training.distributed import rank_and_world
from secateur.training.hooks import Hook
from secateur.training.hyp import Hyp
from secateur.training.run import TrainingRun
from secateur.training.settings import TrainSettings

SIZE = 64
fit = partial(loop.fit, task=YOLOv5Family())
SETTINGS = TrainSettings(
    epochs=3,
    batch_size=32,
    image_size=SIZE,
    amp="off",
    warmup_minimum=4,
    tensorboard=False,
    device="cpu",
    hyp=Hyp(warmup_epochs=0.5),
)
# The stem has the widths of yolov5n.
TOPOLOGY = {
    "nc": 3,
    "depth_multiple": 1.0,
    "width_multiple": 1.0,
    "anchors": [[10, 13, 16, 30, 33, 23], [30, 61, 62, 45, 59, 119]],
    "backbone": [
        [-1, 1, "Conv", [16, 6, 2, 2]],
        [-1, 1, "Conv", [32, 3, 2]],
        [-1, 1, "C3", [32]],
        [-1, 1, "Conv", [32, 3, 2]],
        [-1, 1, "Conv", [40, 3, 2]],
    ],
    "head": [
        [-1, 1, "Conv", [32, 1, 1]],
        [-1, 1, "nn.Upsample", ["None", 2, "nearest"]],
        [[-1, 3], 1, "Concat", [1]],
        [-1, 1, "C3", [32, False]],
        [[8, 4], 1, "Detect", ["nc", "anchors"]],
    ],
}


@dataclass
class ToyBatch:
    """The two fields that the loop reads."""

    images: Tensor
    targets: Tensor


class ToyBatches:
    """`count` batches an epoch of `size` random images over all processes; a pure function of (epoch, number)."""

    def __init__(self, count: int = 5, size: int = 4, classes: int = 3, channels: int = 3) -> None:
        self.count, self.size, self.classes, self.channels = count, size, classes, channels

    def __len__(self) -> int:
        return self.count

    def epoch(self, epoch: int, start: int = 0) -> Iterator[ToyBatch]:
        """This process's share, every world-th image."""
        rank, world = rank_and_world()
        for number in range(start, self.count):
            whole = self.whole(epoch, number)
            mine = torch.arange(rank, self.size, world)
            rows = whole.targets[whole.targets[:, 0].long() % world == rank].clone()
            rows[:, 0] = (rows[:, 0].long() // world).float()
            yield ToyBatch(whole.images[mine], rows)

    def whole(self, epoch: int, number: int) -> ToyBatch:
        """The batch of all processes together."""
        generator = torch.Generator().manual_seed(1000 * epoch + number)
        objects = 3 * self.size + number
        targets = torch.rand(objects, 6, generator=generator)
        targets[:, 0] = torch.randint(0, self.size, (objects,), generator=generator).sort().values
        targets[:, 1] = torch.randint(0, self.classes, (objects,), generator=generator)
        targets[:, 4:] = targets[:, 4:] * 0.4 + 0.05
        images = torch.randint(0, 256, (self.size, self.channels, SIZE, SIZE), dtype=torch.uint8, generator=generator)
        return ToyBatch(images, targets)


def toy_metrics(precision: float, recall: float, loose: float, strict: float) -> Metrics:
    """An evaluation's result."""
    return Metrics.of((ClassMetrics(0, "a", 1, 1, precision, recall, loose, strict),), 1, 1)


def toy_detector(seed: int = 0) -> Detector:
    """Two levels, three classes, reproducible weights."""
    return copy.deepcopy(_built(seed))


@cache
def _built(seed: int) -> Detector:
    torch.manual_seed(seed)
    return Detector(parse_topology(TOPOLOGY, "the tests"))


def evaluate(detector: Detector) -> Metrics:
    """A figure that depends on every weight."""
    assert not detector.training
    value = float(sum(p.double().abs().mean() for p in detector.parameters()))
    return toy_metrics(0.5, 0.5, value % 1, value % 0.5)


class Noise(Hook):
    """Adds random numbers to gradients and counts: its effect shows whether generators and hook states are restored."""

    def __init__(self) -> None:
        self.calls = 0

    def before_step(self, run: TrainingRun) -> None:
        """Noise that depends on torch's generator and on the hook's own state."""
        self.calls += 1
        for parameter in run.network.parameters():
            if parameter.grad is not None:
                parameter.grad.add_(torch.randn_like(parameter) * 1e-3 * self.calls)

    def state_dict(self) -> dict[str, Any]:
        """The count."""
        return {"calls": self.calls}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the count."""
        self.calls = int(state["calls"])


class Die(Hook):
    """Ends the process, or raises, right before optimizer step number `step`."""

    def __init__(self, step: int | None, kill: bool = False) -> None:
        self.step, self.kill = step, kill

    def before_step(self, run: TrainingRun) -> None:
        """The end."""
        if run.step + 1 == self.step:
            if self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise KeyboardInterrupt


class Keep(Hook):
    """Remembers the run, so that a test can look at the end state."""

    run: TrainingRun

    def start(self, run: TrainingRun) -> None:
        """Remembers."""
        self.run = run


def tensors_of(keep: Keep) -> dict[str, Tensor]:
    """Everything that training changes: weights, statistics, average, momentum."""
    result = {f"model/{k}": v for k, v in keep.run.network.state_dict().items()}
    result |= {f"ema/{k}": v for k, v in keep.run.ema.network.state_dict().items()}
    for number, state in keep.run.optimizer.state_dict()["state"].items():
        result |= {f"optimizer/{number}/{k}": v for k, v in state.items() if isinstance(v, Tensor)}
    return {name: value.clone() for name, value in result.items()}


def main(folder: Path) -> None:
    """Trains, and dies by SIGKILL in the middle of epoch 2."""
    torch.set_num_threads(1)
    settings = replace(SETTINGS, save_every_steps=2)
    fit(toy_detector(), ToyBatches(), settings, folder=folder, hooks=[Noise(), Die(6, kill=True), Keep()])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
