"""Prunes a cell classifier to 40 % of its FLOPs in rounds and heals it, both without labels: top-1 accuracy of each.

    python benchmarks/classifier.py bccd/data.yaml [--network resnet18] [--flops 0.4] [--epochs 12] [--json FILE]

The boxes of a detection data set are cropped to single-class images, on which a torchvision network is trained from
scratch. `secateur.prune` runs with `secateur.Evidence` on the images only, with labels drawn from the outputs of the
dense network, followed by `secateur.heal` on the images only. Reports top-1 and mean class accuracy on val and test.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

import secateur
from secateur.data.config import load_data_config
from secateur.data.images import read_image
from secateur.data.index import scan
from secateur.data.letterbox import letterboxed
from secateur.machine import processor

MARGIN = 0.1  # of the longer side, around each box


def crops(data: Path, split: str, side: int) -> tuple[Tensor, Tensor]:
    """Images float32 [N, 3, side, side] in 0..1 of every box of a split, and their classes int64 [N]."""
    index = scan(load_data_config(data), split, progress=False)
    images, labels = [], []
    for number, file in enumerate(index.files):
        whole = read_image(file)
        height, width = whole.shape[:2]
        for label, x, y, w, h in index.labels_of(number).tolist():
            half = max(w * width, h * height) * (0.5 + MARGIN)
            left, top = int(max(x * width - half, 0)), int(max(y * height - half, 0))
            part = whole[top : int(y * height + half) + 1, left : int(x * width + half) + 1]
            images.append(letterboxed(np.ascontiguousarray(part), side)[0])
            labels.append(int(label))
    pixels = torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2).copy())
    return pixels.float().div_(255), torch.tensor(labels)


class Loader:
    """Shuffled class-balanced batches with random flips, as in training."""

    def __init__(self, images: Tensor, labels: Tensor, batch: int, batches: int) -> None:
        self.images, self.labels, self.batch, self.batches = images, labels, batch, batches
        counts = torch.bincount(labels)
        self.weights = 1 / counts[labels].double()
        self.generator = torch.Generator().manual_seed(0)

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(self.batches):
            chosen = torch.multinomial(self.weights, self.batch, True, generator=self.generator)
            images = self.images[chosen]
            for side in (2, 3):
                if torch.rand((), generator=self.generator) < 0.5:
                    images = images.flip(side)
            yield images, self.labels[chosen]


def trained(network: nn.Module, loader: Loader, epochs: int) -> nn.Module:
    """Trains with cross-entropy, AdamW and one learning-rate cycle."""
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=epochs * len(loader))
    network.train()
    for _ in range(epochs):
        for images, labels in loader:
            optimizer.zero_grad()
            F.cross_entropy(network(images), labels).backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> dict[str, float]:
    """Top-1 accuracy, and its mean over classes, for images float32 [N, 3, side, side] and labels int64 [N]."""
    network.eval()
    with torch.inference_mode():
        answers = torch.cat([network(part).argmax(1) for part in images.split(256)])
    right = (answers == labels).double()
    classes = [right[labels == label].mean() for label in labels.unique()]
    return {"top1": float(right.mean()), "mean_of_classes": float(torch.stack(classes).mean())}


def own_loss(dense: nn.Module) -> Any:
    """The loss of each image against a class drawn from the dense network's prediction; labels are not used."""
    generator = torch.Generator().manual_seed(0)

    def loss(network: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        with torch.no_grad():
            drawn = torch.multinomial(dense(batch[0]).softmax(1), 1, generator=generator)[:, 0]
        return F.cross_entropy(network(batch[0]), drawn, reduction="none")

    return loss


def main() -> None:
    """Prints a table and, with --json, writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--flops", type=float, default=0.4)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.manual_seed(0)
    sets = {split: crops(options.data, split, options.side) for split in ("train", "val", "test")}
    classes = int(sets["train"][1].max()) + 1
    loader = Loader(*sets["train"], batch=64, batches=len(sets["train"][0]) // 64)
    began = time.monotonic()
    dense = trained(torchvision.models.get_model(options.network, num_classes=classes), loader, options.epochs)
    seconds = {"train": time.monotonic() - began}
    evidence = secateur.Evidence(loader, own_loss(dense))
    began = time.monotonic()
    pruned = secateur.prune(dense, evidence, flops=options.flops)
    seconds["prune"] = time.monotonic() - began
    began = time.monotonic()
    healed = secateur.heal(pruned.network, dense, evidence, heal_steps=options.steps, heal_batch=64)
    seconds["heal"] = time.monotonic() - began
    networks = {"dense": dense, "pruned": pruned.network, "healed": healed.into(pruned.network)}
    rows = [
        {"network": name, **{f"{split} {key}": value for split in ("val", "test")
                             for key, value in accuracy(network, *sets[split]).items()}}
        for name, network in networks.items()
    ]  # fmt: skip
    before, after = pruned.plan.before, pruned.plan.after
    print(f"{options.network}, {options.side} px, {processor()}: {classes} classes, "
          f"{', '.join(f'{len(labels)} {split}' for split, (_, labels) in sets.items())}")  # fmt: skip
    print(f"FLOPs {after.flops / before.flops:.3f}, parameters {after.parameters / before.parameters:.3f} of dense; "
          f"seconds: {', '.join(f'{name} {value:.0f}' for name, value in seconds.items())}")  # fmt: skip
    for row in rows:
        figures = (f"{name} {value:.4f}" for name, value in row.items() if isinstance(value, float))
        print(f"{row['network']:<8} {'  '.join(figures)}")
    if options.json:
        options.json.write_text(
            json.dumps({"rows": rows, "seconds": seconds, "flops": after.flops / before.flops}, indent=1)
        )


if __name__ == "__main__":
    main()
