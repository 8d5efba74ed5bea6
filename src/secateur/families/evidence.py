"""Evidence for networks of all families: the images of a context, with their labels or with labels from the network."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from secateur.data.dataset import Batch
from secateur.errors import UserError
from secateur.families.context import Context, known_data
from secateur.families.family import Family, family_of
from secateur.families.reading import Reading
from secateur.networks.checkpoint import Checkpoint
from secateur.networks.classes import Named
from secateur.pruning.evidence import Loss
from secateur.pruning.graph.inputs import WithStrides, example_inputs_of, image_sides, mapped
from secateur.training.batches import Batches
from secateur.training.hyp import Hyp
from secateur.training.optimization.precision import choose_precision, full_precision
from secateur.training.settings import TrainSettings

PROTECTION = 4.0
"""Weight of a pixel inside a protected object; other pixels have weight 1."""
OR_IMAGES = ", or set --images and omit --data"
"""Alternative for the user if no image of a data set has an object."""


@dataclass(frozen=True)
class Labelled:
    """Images, uint8 [B, C, H, W], with targets in the format of the loss of the family.

    Attributes:
        ratio_pads: for each image, the scale factors of height and width and the border; () if unknown.
    """

    images: Tensor
    targets: Tensor
    ratio_pads: Sequence[Any] = ()


def check_gradients(subject: Checkpoint | nn.Module, context: Context, reader: str, instead: str) -> None:
    """Checks that the family and the context provide what gradient criteria need.

    Args:
        subject: the network to score.
        reader: what reads the images, as the start of a sentence: "The criterion fisher".
        instead: alternative for the user.

    Raises:
        UserError: the family has no loss, there are no images, or there are no labels and the family cannot create
            them.
    """
    family = family_of(subject)
    family.require("loss", "scored by gradients", instead)
    data = context.require_images(reader)
    if not data.labelled:
        family.require("own_labels", "scored by gradients on images without labels", f"set --data, {instead}")


@dataclass(frozen=True)
class FamilyEvidence:
    """Evidence for a network from the images of a context, see `pruning.evidence.Evidence`.

    Attributes:
        whole: the network before any cut; it creates labels for images without labels.
    """

    context: Context
    whole: nn.Module

    @staticmethod
    def of(context: Context, whole: nn.Module) -> FamilyEvidence | None:
        """The evidence; None if the context has no images."""
        return None if context.image_source is None else FamilyEvidence(context, whole)

    @property
    def family(self) -> Family:
        """Family of the network."""
        return family_of(self.whole)

    @property
    def has_loss(self) -> bool:
        """Whether a loss is available, from labels or from detections of the network."""
        data = self.context.image_source
        return self.family.knows("loss") and data is not None and (data.labelled or self.family.knows("own_labels"))

    def example(self) -> tuple[Any, ...]:
        """(): the network provides its example inputs or takes one image."""
        return ()

    def scored(
        self, network: nn.Module, limit: int, draw: int, *, demanding: bool = True
    ) -> tuple[Iterable[Any], Loss]:
        """Shuffled training images with targets, and the sum of their losses.

        Raises:
            UserError: the family has no loss, there are no images, the network does not have the classes of the labels,
                or, if `demanding`, the network finds nothing on images without labels.
        """
        loss = self.loss(network)
        data = self.context.require_images("This step")
        if not data.one_class and isinstance(network, Named):
            known_data(network, data)
        batches = self.batches(limit, objects=True).epoch(draw)
        count = -(-limit // min(self.context.batch_size, limit))
        if data.labelled:
            return islice(batches, count), loss
        self.family.require("own_labels", "scored by gradients on images without labels", "set --data")
        return self._own_labels(islice(batches, count), limit, draw, demanding), loss

    def loss(self, network: nn.Module) -> Loss:
        """The loss of a batch for gradient criteria: the sum of the losses of its images, a scalar.

        The network runs in bf16 if the device supports it natively, which is precise enough for means over images.

        Raises:
            UserError: the family has no loss.
        """
        family, device = self.family, self.context.device
        family.require("loss", "scored by gradients", "use a criterion that reads only weights, such as l2")
        term = family.loss(network, TrainSettings(image_size=self.context.image_size))
        fast = choose_precision("auto", device.type) == "bf16"
        # The same memory format as the images; otherwise every convolution converts it again.
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

        def loss(network: nn.Module, batch: Any) -> Tensor:
            images = self.prepared(batch)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=fast):
                raw = network(images)
            raw = mapped(raw, lambda values: full_precision(values) if values.is_floating_point() else values)
            targets, total = batch.targets.to(device), torch.zeros((), device=device)
            for i in range(len(images)):
                own = mapped(raw, functools.partial(_of_image, image=i, count=len(images)))
                total = total + term(own, family.targets_of(targets, i), images[i : i + 1])[0]
            return total

        return loss

    def places(self, batch: Any, sides: tuple[float, float]) -> Tensor:
        """See `pruning.evidence.KnowsPlaces`; float [B, 1, H, W], `PROTECTION` inside the boxes of protected objects,
        otherwise 1.

        Raises:
            UserError: the labels are not boxes.
        """
        images, targets = batch.images, batch.targets
        if targets.ndim != 2 or targets.shape[1] < 6:
            raise UserError("--protect needs labels with boxes, but this data set has none. Omit --protect.")
        height, width = images.shape[2:]
        weights = torch.ones(len(images), 1, height, width)
        pads = batch.ratio_pads if isinstance(batch, Batch | Labelled) else ()
        scales = [pad[0] for pad in pads] or [(1.0, 1.0)] * len(images)
        for image, x, y, w, h in targets[:, [0, 2, 3, 4, 5]].tolist():
            down, across = scales[int(image)]
            side = math.sqrt(w * width / across * h * height / down)
            if sides[0] <= side < sides[1]:
                top, bottom = math.floor((y - h / 2) * height), math.ceil((y + h / 2) * height)
                left, right = math.floor((x - w / 2) * width), math.ceil((x + w / 2) * width)
                weights[int(image), 0, max(top, 0) : bottom, max(left, 0) : right] = PROTECTION
        return weights.to(self.context.device)

    def images(self, limit: int, draw: int) -> Iterator[Tensor]:
        """Prepared training images [B, C, H, W], grouped by similar shape, so that they have almost no grey borders."""
        context = self.context
        split = self.family.split_for(self.whole, context.require_images("This step"), "train", objects=False)
        chosen = np.random.default_rng((context.seed, draw)).permutation(len(split))[:limit]
        # Networks without strides get square images, because their maps may not fit together at other sides.
        strides = self.whole.strides if isinstance(self.whole, WithStrides) else ()
        reading = self._reading(context.batch_size, rect=True, stride=int(max(strides, default=context.image_size)))
        for batch in split.select(np.sort(chosen).tolist()).ordered(reading):
            yield self.prepared(batch)

    def unaugmented(self, limit: int) -> Iterator[Tensor]:
        """Prepared training images [B, C, H, W] without augmentation; at most `limit` images, rounded up to whole
        batches."""
        size = min(self.context.batch_size, limit)
        for batch in islice(self.batches(limit).epoch(0), -(-limit // size)):
            yield self.prepared(batch)

    def augmented(self, limit: int) -> Iterator[Tensor]:
        """Prepared images [B, C, H, W], augmented as in training, in batches of equal size."""
        size, batches = self.context.batch_size, self.batches(limit, Hyp()).epoch(0)
        for number, batch in enumerate(islice(batches, max(limit // size, 1))):
            if number == 0 or len(batch.images) == size:
                yield self.prepared(batch)

    def batches(self, limit: int, augmentation: Hyp | None = None, *, objects: bool = False) -> Batches:
        """Shuffled square training images; `limit` bounds the batch size.

        Args:
            objects: raise an error if a labelled data set has no objects.

        Raises:
            UserError: there is no data set or no training split, or `objects` is set and there are no objects.
        """
        data = self.context.require_images("This step")
        split = self.family.split_for(self.whole, data, "train", objects=objects, otherwise=OR_IMAGES)
        size = min(self.context.batch_size, limit, len(split))
        return split.shuffled(self._reading(size, augmentation=augmentation))

    def prepared(self, batch: Any) -> Tensor:
        """Images of a batch as network input, float [B, C, H, W], on the device, channels_last."""
        images = self.family.prepare(batch.images.to(self.context.device, non_blocking=True))
        return images.contiguous(memory_format=torch.channels_last) if images.ndim == 4 else images

    def _reading(self, batch_size: int, **changes: Any) -> Reading:
        context = self.context
        inputs = example_inputs_of(self.whole)
        channels = int(inputs[0].shape[1]) if image_sides(inputs) is not None else 3
        pin = context.device.type == "cuda"
        return Reading(context.image_size, batch_size, context.seed, channels=channels, pin=pin, **changes)

    def _own_labels(self, batches: Iterable[Any], limit: int, draw: int, demanding: bool) -> Iterator[Labelled]:
        """The batches with targets sampled from detections of the whole network, up to `limit` images.

        Raises:
            UserError: `demanding` is set and the network finds nothing on any of them.
        """
        labels, seen = self.family.own_labels(self.whole, self.context.seed + draw), 0
        for batch in batches:
            targets = labels(self.prepared(batch))
            seen += len(batch.images)
            if demanding and seen >= limit:  # the consumer may stop here, before the end
                labels.require_some()
            yield Labelled(batch.images, targets, batch.ratio_pads if isinstance(batch, Batch) else ())
        if demanding:
            labels.require_some()


def _of_image(values: Tensor, image: int, count: int) -> Tensor:
    """The part of an output that belongs to one image: its entry along dimension 0, if that counts images."""
    return values[image : image + 1] if values.ndim and len(values) == count else values
