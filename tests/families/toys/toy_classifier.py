"""A toy family of image classifiers: a linear head, folders of classes, cross-entropy, top-1."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secateur.errors import UserError
from secateur.families.detection.split import DetectionSplit
from secateur.families.family import FAMILIES, Family
from secateur.families.reading import Reading
from secateur.networks.tensors import set_tensors_
from secateur.scores import Scores
from secateur.training.settings import TrainSettings


@dataclass(frozen=True)
class Sorter:
    """The plain data that builds the network."""

    nc: int
    width: int = 16
    channels: int = 3
    kind: ClassVar[str] = "sorter"

    def build(self, names: Mapping[int, str]) -> SorterNetwork:
        return SorterNetwork(self, names)

    def with_classes(self, nc: int) -> Sorter:
        return dataclasses.replace(self, nc=nc)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Sorter:
        return cls(**{name: int(data[name]) for name in ("nc", "width", "channels")})

    def __str__(self) -> str:
        return f"sorter of width {self.width}"


class SorterNetwork(nn.Module):
    """Three convolutions, a hidden linear layer and a linear head."""

    def __init__(self, architecture: Sorter, names: Mapping[int, str]) -> None:
        super().__init__()
        self.architecture, self.names = architecture, dict(names)
        widths = [architecture.channels, *(architecture.width * factor for factor in (1, 2, 4))]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        self.body = nn.Sequential(*layers)
        self.hidden = nn.Linear(widths[-1], 4 * architecture.width)
        self.head = nn.Linear(4 * architecture.width, architecture.nc)

    @property
    def nc(self) -> int:
        return self.architecture.nc

    def forward(self, images: Tensor) -> Tensor:
        """[B, channels, H, W] -> logits [B, nc]."""
        return self.head(F.relu(self.hidden(self.body(images).mean((2, 3)))))

    def example_inputs(self, image_size: int | None = None) -> tuple[Tensor, ...]:
        like, side = self.head.weight, image_size or 32
        return (torch.zeros(1, self.architecture.channels, side, side, dtype=like.dtype, device=like.device),)

    def set_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        set_tensors_(self, tensors)


@dataclass(frozen=True)
class Folders:
    """FOLDER/train/CLASS/*.png, FOLDER/val/CLASS/*.png."""

    file: Path
    names: Mapping[int, str]
    splits: Mapping[str, Path]
    labelled: bool = True
    one_class: bool = False

    @property
    def nc(self) -> int:
        return len(self.names)

    @staticmethod
    def of(folder: Path) -> Folders:
        splits = {name: folder / name for name in ("train", "val", "test") if (folder / name).is_dir()}
        if not {"train", "val"} <= splits.keys():
            raise UserError(f"{folder} has no folders train and val.")
        names = sorted(entry.name for entry in splits["train"].iterdir() if entry.is_dir())
        return Folders(folder, dict(enumerate(names)), splits)


@dataclass
class Crops:
    """A batch."""

    images: Tensor
    targets: Tensor


@dataclass(frozen=True)
class FolderSplit:
    """Files and their classes, as `families.reading.Split`."""

    files: tuple[Path, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.files)

    def select(self, places: Sequence[int]) -> FolderSplit:
        return FolderSplit(tuple(self.files[i] for i in places), tuple(self.labels[i] for i in places))

    def signature(self) -> str:
        text = repr(
            [(file.name, file.stat().st_size, label) for file, label in zip(self.files, self.labels, strict=True)]
        )
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def shuffled(self, reading: Reading) -> ShuffledCrops:
        return ShuffledCrops(self, reading)

    def ordered(self, reading: Reading) -> Iterator[Crops]:
        for start in range(0, len(self), reading.batch_size):
            yield self.batch(range(start, min(start + reading.batch_size, len(self))), reading)

    def batch(self, places: Sequence[int], reading: Reading) -> Crops:
        size = (reading.image_size, reading.image_size)
        images = [cv2.resize(cv2.imread(str(self.files[place])), size)[..., ::-1] for place in places]
        pixels = torch.from_numpy(np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2)))
        return Crops(pixels, torch.tensor([self.labels[place] for place in places], dtype=torch.long))


@dataclass(frozen=True)
class ShuffledCrops:
    """Epoch after epoch, each a function of its number."""

    split: FolderSplit
    reading: Reading

    def __len__(self) -> int:
        return max(len(self.split) // (self.reading.batch_size * self.reading.world), 1)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Crops]:
        order = np.random.default_rng((self.reading.seed, epoch)).permutation(len(self.split))
        size = self.reading.batch_size
        for number in range(start, len(self)):
            first = (number * self.reading.world + self.reading.rank) * size
            yield self.split.batch(order[first : first + size].tolist(), self.reading)


class CrossEntropy:
    """As the first term of an objective."""

    def __call__(self, raw: Tensor, targets: Tensor, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        loss = F.cross_entropy(raw.float(), targets)
        return loss * len(images), {"cls": loss.detach()}


class OwnClasses:
    """Classes drawn from what a network believes."""

    def __init__(self, network: nn.Module, seed: int) -> None:
        self.network, self.generator = network, torch.Generator().manual_seed(seed)

    def __call__(self, images: Tensor) -> Tensor:
        with torch.inference_mode():
            beliefs = self.network.eval()(images).softmax(1).cpu()
        return torch.multinomial(beliefs, 1, generator=self.generator)[:, 0].clone()

    def require_some(self) -> None:
        """Every image is of some class."""


class SorterFamily(Family):
    """All verbs that the rounds, the healing, the trainings and the table ask for."""

    kind, title, architecture = Sorter.kind, "sorter", Sorter

    def open_data(self, file: str) -> Folders:
        return Folders.of(Path(file))

    def split(
        self, data: Any, name: str, *, objects: bool = True, otherwise: str = "", tell: bool = False
    ) -> FolderSplit | DetectionSplit:
        """Images without labels (`--images`) are read as those of every family."""
        if not isinstance(data, Folders):
            return DetectionSplit.of(data, name, objects=False)
        if name not in data.splits:
            raise UserError(f"{data.file} has no '{name}' split; it has {', '.join(data.splits)}.")
        folders = [(label, data.splits[name] / kind) for label, kind in data.names.items()]
        found = [(file, label) for label, folder in folders for file in sorted(folder.glob("*.png"))]
        return FolderSplit(tuple(file for file, _ in found), tuple(label for _, label in found))

    def loss(self, network: nn.Module, settings: TrainSettings) -> CrossEntropy:
        return CrossEntropy()

    def targets_of(self, targets: Tensor, image: int) -> Tensor:
        return targets[image : image + 1]

    def own_labels(self, whole: nn.Module, seed: int) -> OwnClasses:
        return OwnClasses(whole, seed)

    def agreement(self, dense: nn.Module, network: nn.Module, split: Any, settings: Any, **how: Any) -> Scores:
        """The share of images of which both say the same class."""
        same, device = 0, next(network.parameters()).device
        for batch in split.ordered(Reading(settings.image_size, 32)):
            images = self.prepare(batch.images.to(device))
            with torch.inference_mode():
                same += int((dense.eval()(images).argmax(1) == network.eval()(images).argmax(1)).sum())
        return Scores("top-1", {"top-1": same / len(split)}, counts={"images": len(split)})

    def evaluate(self, network: nn.Module, split: Any, settings: Any, **how: Any) -> Scores:
        """Top-1 of a network in evaluation mode."""
        right = 0
        device = next(network.parameters()).device
        for batch in split.ordered(Reading(settings.image_size, 32)):
            with torch.inference_mode():
                answers = network.eval()(self.prepare(batch.images.to(device)))
            right += int((answers.argmax(1).cpu() == batch.targets).sum())
        return Scores("top-1", {"top-1": right / max(len(split), 1)}, counts={"images": len(split)})


FAMILIES.register(Sorter.kind)(SorterFamily())
