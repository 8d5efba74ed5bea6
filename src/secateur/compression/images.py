"""The training images that closed-form steps read: plain or augmented, with or without labels, on the device."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from itertools import islice

import torch
from torch import Tensor

from secateur.compression.context import Context
from secateur.compression.measuring import split_index
from secateur.data.augment import Augmentation
from secateur.data.batches import TrainBatches, train_batches
from secateur.data.dataset import Batch, DetectionDataset
from secateur.detector.model import Detector
from secateur.errors import UserError
from secateur.training.hyp import Hyp
from secateur.training.loss import DetectionLoss

Loss = Callable[[Detector, Batch], Tensor]


def training_batches(context: Context, limit: int, augmentation: Augmentation | None = None) -> TrainBatches:
    """Shuffled square training images, letterboxed where no augmentation is given; `limit` bounds the batch.

    Raises:
        UserError: there is no data set, or no training split.
    """
    index = split_index(context.require_data("This step"), "train")
    dataset = DetectionDataset(
        index, context.image_size, augmentation=augmentation, batch_size=context.batch_size, seed=context.seed
    )
    size = min(context.batch_size, limit, len(index.files))
    return train_batches(dataset, size, seed=context.seed, workers=0, pin=context.device.type == "cuda")


def pixels(batch: Batch, device: torch.device) -> Tensor:
    """Images of a batch as float32 [B, 3, H, W] in 0..1 on the device, channels_last."""
    images = batch.images.to(device, non_blocking=True).float().div_(255)
    return images.contiguous(memory_format=torch.channels_last)


def plain_images(context: Context, limit: int) -> Iterator[Tensor]:
    """Letterboxed training images [B, 3, H, W] in 0..1, `limit` of them at most (rounded up to whole batches)."""
    size = min(context.batch_size, limit)
    for batch in islice(training_batches(context, limit).epoch(0), -(-limit // size)):
        yield pixels(batch, context.device)


def augmented_images(context: Context, limit: int) -> Iterator[Tensor]:
    """Images augmented as a training shows them, [B, 3, H, W] in 0..1; a short last batch only if it is the first."""
    batches = training_batches(context, limit, Augmentation.from_hyp(dataclasses.asdict(Hyp())))
    for number, batch in enumerate(batches.epoch(0)):
        if number == 0 or len(batch.images) == context.batch_size:
            yield pixels(batch, context.device)


def labelled_images(detector: Detector, context: Context, limit: int) -> tuple[Iterator[Batch], Loss]:
    """Labelled training images in batches, and the sum of their detection losses, each image's by itself."""
    return training_batches(context, limit).epoch(0), image_losses(detector, context)


def image_losses(detector: Detector, context: Context) -> Loss:
    """The detection loss of a batch as criteria with gradients want it: the sum of what each image alone would give.

    Raises:
        UserError: the detector has no loss of its own.
    """
    if not isinstance(detector, Detector):
        raise UserError("This detector has no loss of its own, so no gradients can be read: choose gamma, l1 or l2.")
    term = DetectionLoss(detector, Hyp(), context.image_size)

    def loss(network: Detector, batch: Batch) -> Tensor:
        raw = network(pixels(batch, context.device))
        targets = batch.targets.to(context.device)
        total = raw[0].new_zeros(())
        for i in range(len(batch.images)):
            own = targets[targets[:, 0] == i]
            own = torch.cat([torch.zeros_like(own[:, :1]), own[:, 1:]], 1)
            total = total + term([level[i : i + 1] for level in raw], own)[0]
        return total

    return loss
