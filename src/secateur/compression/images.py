"""The training images that closed-form steps read: plain or augmented, with or without labels, on the device."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from secateur.compression.measuring import split_index
from secateur.data.augment import Augmentation
from secateur.data.batches import EvaluationBatches, TrainBatches, train_batches
from secateur.data.dataset import Batch, DetectionDataset
from secateur.errors import UserError
from secateur.evaluation.settings import NmsSettings
from secateur.families.context import Context, known_data
from secateur.families.family import predictor_of
from secateur.families.yolov5.loss import DetectionLoss
from secateur.families.yolov5.model import Detector
from secateur.networks.architecture import channels_of
from secateur.pruning.graph.inputs import WithStrides
from secateur.training.hyp import Hyp
from secateur.training.optimization.precision import choose_precision, full_precision

OR_IMAGES = ", or give --images and no --data"
"""What else to do where no image of a data set has an object."""
Loss = Callable[[Detector, Batch], Tensor]
CONFIDENCE = 0.25
"""A picture without a box over it shows the detector nothing; YOLOv5's detect.py draws none under it."""
SETTINGS = NmsSettings(conf=0.1, iou=0.45)
LOOSENESS = 0.08
"""Standard deviation by which a box is moved and scaled, in shares of its sides: about how loose labels are."""


def training_batches(
    context: Context,
    limit: int,
    augmentation: Augmentation | None = None,
    *,
    channels: int = 3,
    objects: bool = False,
) -> TrainBatches:
    """Shuffled square training images of so many channels, letterboxed where no augmentation is given; `limit` bounds
    the batch.

    Raises:
        UserError: there is no data set, or no training split; or objects are asked for and a data set has none.
    """
    pictures = context.require_pictures("This step")
    index = split_index(pictures, "train", objects=objects, otherwise=OR_IMAGES)
    dataset = DetectionDataset(
        index,
        context.image_size,
        augmentation=augmentation,
        batch_size=context.batch_size,
        seed=context.seed,
        channels=channels,
    )
    size = min(context.batch_size, limit, len(index.files))
    return train_batches(dataset, size, seed=context.seed, workers=0, pin=context.device.type == "cuda")


def pixels(batch: Batch, device: torch.device) -> Tensor:
    """Images of a batch as float32 [B, C, H, W] in 0..1 on the device, channels_last."""
    images = batch.images.to(device, non_blocking=True).float().div_(255)
    return images.contiguous(memory_format=torch.channels_last)


def unpadded_images(context: Context, stride: int, limit: int, draw: int = 0, *, channels: int = 3) -> Iterator[Tensor]:
    """Training images [B, C, H, W] in 0..1, those of like shape together: nearly without grey borders.

    Args:
        stride: the largest of the detector, of which the sides are multiples.
        limit: images at most.
        draw: number of the random choice among more.
        channels: of the images.

    Raises:
        UserError: there are no pictures.
    """
    index = split_index(context.require_pictures("This step"), "train", objects=False)
    chosen = np.random.default_rng((context.seed, draw)).permutation(len(index.files))[:limit]
    dataset = DetectionDataset(
        index.select(np.sort(chosen)),
        context.image_size,
        rectangular=True,
        pad=0.0,
        batch_size=context.batch_size,
        stride=stride,
        seed=context.seed,
        channels=channels,
    )
    for batch in EvaluationBatches(dataset, context.batch_size, workers=0):
        yield pixels(batch, context.device)


def plain_images(context: Context, limit: int, *, channels: int = 3) -> Iterator[Tensor]:
    """Letterboxed training images [B, C, H, W] in 0..1, `limit` of them at most (rounded up to whole batches)."""
    size = min(context.batch_size, limit)
    for batch in islice(training_batches(context, limit, channels=channels).epoch(0), -(-limit // size)):
        yield pixels(batch, context.device)


def augmented_images(context: Context, limit: int, *, channels: int = 3) -> Iterator[Tensor]:
    """Images augmented as a training shows them, [B, C, H, W] in 0..1; a short last batch only if it is the first."""
    how = Augmentation.from_hyp(dataclasses.asdict(Hyp()))
    batches = training_batches(context, limit, how, channels=channels)
    for number, batch in enumerate(batches.epoch(0)):
        if number == 0 or len(batch.images) == context.batch_size:
            yield pixels(batch, context.device)


def labelled_images(
    detector: Detector,
    context: Context,
    limit: int,
    *,
    labeller: Detector | None = None,
    draw: int = 0,
    strict: bool = True,
) -> tuple[Iterator[Batch], Loss]:
    """Training images with targets in batches, and the sum of their detection losses, each image's by itself.

    Pictures without labels get the detections of the labeller.

    Args:
        labeller: the detector as it was before anything was cut; None: the same detector.
        draw: number of the order in which they are drawn.
        strict: pictures without labels on which the labeller sees nothing at all are an error.

    Raises:
        UserError: no images; or the detector has no loss of its own, does not know the classes of the labels, or sees
            nothing on any picture.
    """
    loss = image_losses(detector, context)
    data = context.require_pictures("This step")
    if not data.one_class:
        known_data(detector, data)
    batches = training_batches(context, limit, channels=detector.architecture.channels, objects=True).epoch(draw)
    if not data.labelled:
        batches = own_detections(labeller or detector, batches, context, limit, draw, strict)
    return batches, loss


def own_detections(
    labeller: Detector, batches: Iterable[Batch], context: Context, limit: int, draw: int = 0, strict: bool = True
) -> Iterator[Batch]:
    """The batches with targets drawn from the detector's own detections, up to `limit` images.

    Raises:
        UserError: it sees nothing on any of them, and `strict` is set.
    """
    found = OwnDetections(labeller, context.seed + draw)
    for batch in islice(batches, -(-limit // min(context.batch_size, limit))):
        targets = found(pixels(batch, context.device))
        if strict and found.images >= limit:  # whoever reads may stop here and never come to the end
            found.require_some()
        yield dataclasses.replace(batch, targets=targets)
    if strict:
        found.require_some()


def image_losses(detector: Detector, context: Context) -> Loss:
    """The detection loss of a batch as criteria with gradients want it: the sum of what each image alone would give.

    The network runs in bf16 where the device multiplies that natively: scores are means over images, and need no more
    digits.

    Raises:
        UserError: the detector has no loss of its own.
    """
    require_loss(detector)
    term = DetectionLoss(detector, Hyp(), context.image_size)
    kind = context.device.type
    fast = choose_precision("auto", kind) == "bf16"
    # Laid out as the images are; else every convolution does that anew.
    detector.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def loss(network: Detector, batch: Batch) -> Tensor:
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=fast):
            raw = network(pixels(batch, context.device))
        raw = [full_precision(level) for level in raw]
        targets = batch.targets.to(context.device)
        total = raw[0].new_zeros(())
        for i in range(len(batch.images)):
            own = targets[targets[:, 0] == i]
            own = torch.cat([torch.zeros_like(own[:, :1]), own[:, 1:]], 1)
            total = total + term([level[i : i + 1] for level in raw], own)[0]
        return total

    return loss


@dataclass(frozen=True)
class ContextEvidence:
    """The evidence of a detector with the context's images, see `pruning.evidence.Evidence`.

    Attributes:
        whole: the detector before anything was cut: it says what is on images without labels.
    """

    context: Context
    whole: Detector

    @staticmethod
    def of(context: Context, whole: Detector) -> ContextEvidence | None:
        """None where the context has no images."""
        return None if context.pictures is None else ContextEvidence(context, whole)

    def example(self) -> tuple[Any, ...]:
        """None: the network tells its own."""
        return ()

    def scored(
        self, network: Detector, limit: int, draw: int, *, demanding: bool = True
    ) -> tuple[Iterable[Batch], Loss]:
        """Training images with targets, at most `limit`, and the sum of their detection losses."""
        batches, loss = labelled_images(network, self.context, limit, labeller=self.whole, draw=draw, strict=demanding)
        if not self.context.require_pictures("This step").labelled:
            return batches, loss  # as many already; at their end it is said whether anything was seen
        return islice(batches, -(-limit // min(self.context.batch_size, limit))), loss

    def images(self, limit: int, draw: int) -> Iterable[Tensor]:
        """Training images [B, C, H, W] in 0..1, nearly without grey borders."""
        # A network that tells no strides sees square images: its maps may not fit together at other sides.
        stride = int(max(self.whole.strides)) if isinstance(self.whole, WithStrides) else self.context.image_size
        return unpadded_images(self.context, stride, limit, draw, channels=channels_of(self.whole))


def require_loss(detector: nn.Module) -> None:
    """Refuses a network without a loss, for criteria that read gradients.

    Raises:
        UserError: it has none.
    """
    if not isinstance(detector, Detector):
        raise UserError("This network has no loss of its own, so no gradients can be read: choose gamma, l1 or l2.")


class OwnDetections:
    """Labels images with what a detector believes to see on them.

    Its detections as they are would be a poor measure: the loss of a detector that is asked for exactly what it says
    hardly changes to first order, whatever goes. So labels are drawn from its belief, as the Fisher information is
    defined: each detection over a confidence of 0.1 counts with the probability of its score, and its box is a little
    off.

    Attributes:
        seen: boxes over CONFIDENCE so far.
        images: pictures so far.
    """

    def __init__(self, detector: Detector, seed: int = 0) -> None:
        self.predictor = predictor_of(detector)
        self.generator = torch.Generator().manual_seed(seed)
        self.seen = self.images = 0

    def __call__(self, images: Tensor) -> Tensor:
        """Targets [T, 6] of images [B, C, H, W] in 0..1: image, class, centre x and y, width, height (normalised)."""
        found = [boxes.float().cpu() for boxes in self.predictor.predict(images, SETTINGS)]
        self.images += len(images)
        self.seen += sum(int((boxes[:, 4] >= CONFIDENCE).sum()) for boxes in found)
        return torch.cat([self._drawn(number, boxes, images.shape[2:]) for number, boxes in enumerate(found)])

    def require_some(self) -> None:
        """Refuses pictures on which nothing was seen.

        Raises:
            UserError: there were pictures, and no box over CONFIDENCE on any of them.
        """
        if self.images and not self.seen:
            raise UserError(
                f"The detector sees nothing (no box over a confidence of {CONFIDENCE:g}) on {self.images} pictures, so "
                "they cannot tell which channels matter: give --images pictures of what it was trained to see, or a "
                "labelled data set as --data."
            )

    def _drawn(self, number: int, boxes: Tensor, sides: torch.Size) -> Tensor:
        """Rows of one image from its boxes [n, 6] in pixels."""
        boxes = boxes[torch.rand(len(boxes), generator=self.generator) < boxes[:, 4]]
        height, width = sides
        whole = boxes.new_tensor([width, height])
        centres, extent = (boxes[:, :2] + boxes[:, 2:4]) / 2, boxes[:, 2:4] - boxes[:, :2]
        off = LOOSENESS * torch.randn(len(boxes), 4, generator=self.generator)
        centres, extent = centres + off[:, :2] * extent, extent * off[:, 2:].exp()
        image = torch.full((len(boxes), 1), float(number))
        return torch.cat([image, boxes[:, 5:6], centres / whole, extent / whole], 1)
