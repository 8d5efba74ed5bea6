"""Evidence for a network of any family: the images of a context, with their labels or with the network's own."""

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
"""How many times a place of a protected object counts."""
OR_IMAGES = ", or give --images and no --data"
"""What the user can do instead where no image of a data set has an object."""


@dataclass(frozen=True)
class Labelled:
    """Images uint8 [B, C, H, W] with targets in the form that the family's loss reads.

    Attributes:
        ratio_pads: of each image by what factors its height and width were scaled, and its border; () where that is
            not known.
    """

    images: Tensor
    targets: Tensor
    ratio_pads: Sequence[Any] = ()


def check_gradients(subject: Checkpoint | nn.Module, context: Context, reader: str, instead: str) -> None:
    """Refuses scores by gradients where the family or the context lacks what they need.

    Args:
        subject: what would be scored.
        reader: what reads the images, at the beginning of a sentence: "The criterion fisher".
        instead: what the user can choose instead.

    Raises:
        UserError: the family has no loss, there are no images, or there are no labels and the family draws none.
    """
    family = family_of(subject)
    family.require("loss", "scored by gradients", instead)
    data = context.require_images(reader)
    if not data.labelled:
        family.require("own_labels", "scored by gradients on images without labels", f"give --data, {instead}")


@dataclass(frozen=True)
class FamilyEvidence:
    """The evidence of a network from the images of a context, see `pruning.evidence.Evidence`.

    Attributes:
        whole: the network before anything was cut: it says what is on images without labels.
    """

    context: Context
    whole: nn.Module

    @staticmethod
    def of(context: Context, whole: nn.Module) -> FamilyEvidence | None:
        """None where the context has no images."""
        return None if context.image_source is None else FamilyEvidence(context, whole)

    @property
    def family(self) -> Family:
        """The family of the network."""
        return family_of(self.whole)

    @property
    def has_loss(self) -> bool:
        """Whether the loss of the images can be had: from labels, or from what the network itself believes."""
        data = self.context.image_source
        return self.family.knows("loss") and data is not None and (data.labelled or self.family.knows("own_labels"))

    def example(self) -> tuple[Any, ...]:
        """(): the network names its own, or takes one image."""
        return ()

    def scored(
        self, network: nn.Module, limit: int, draw: int, *, demanding: bool = True
    ) -> tuple[Iterable[Any], Loss]:
        """Shuffled training images with targets, and the sum of their losses.

        Raises:
            UserError: the family has no loss, there are no images, the network does not know the classes of the labels,
                or sees nothing on images without labels (only where that is demanded).
        """
        loss = self.loss(network)
        data = self.context.require_images("This step")
        if not data.one_class and isinstance(network, Named):
            known_data(network, data)
        batches = self.batches(limit, objects=True).epoch(draw)
        count = -(-limit // min(self.context.batch_size, limit))
        if data.labelled:
            return islice(batches, count), loss
        self.family.require("own_labels", "scored by gradients on images without labels", "give --data")
        return self._own_labels(islice(batches, count), limit, draw, demanding), loss

    def loss(self, network: nn.Module) -> Loss:
        """The loss of a batch as criteria with gradients want it: the sum of what each image alone would give.

        The network runs in bf16 where the device multiplies that natively: scores are means over images, and need no
        more digits.

        Raises:
            UserError: the family has no loss.
        """
        family, device = self.family, self.context.device
        family.require("loss", "scored by gradients", "choose a criterion that reads weights alone, such as l2")
        term = family.loss(network, TrainSettings(image_size=self.context.image_size))
        fast = choose_precision("auto", device.type) == "bf16"
        # Laid out as the images are; else every convolution does that anew.
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
        """See `pruning.evidence.KnowsPlaces`: places inside the boxes of such objects count `PROTECTION` times.

        Raises:
            UserError: the labels are no boxes.
        """
        images, targets = batch.images, batch.targets
        if targets.ndim != 2 or targets.shape[1] < 6:
            raise UserError("--protect needs objects with boxes, and these labels have none; leave it out.")
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
        """Prepared training images [B, C, H, W], those of like shape together: nearly without grey borders."""
        context = self.context
        split = self.family.split_for(self.whole, context.require_images("This step"), "train", objects=False)
        chosen = np.random.default_rng((context.seed, draw)).permutation(len(split))[:limit]
        # A network without strides gets square images: its maps may not fit together at other sides.
        strides = self.whole.strides if isinstance(self.whole, WithStrides) else ()
        reading = self._reading(context.batch_size, rect=True, stride=int(max(strides, default=context.image_size)))
        for batch in split.select(np.sort(chosen).tolist()).ordered(reading):
            yield self.prepared(batch)

    def unaugmented(self, limit: int) -> Iterator[Tensor]:
        """Prepared training images [B, C, H, W], not augmented, `limit` of them at most (rounded up to whole
        batches)."""
        size = min(self.context.batch_size, limit)
        for batch in islice(self.batches(limit).epoch(0), -(-limit // size)):
            yield self.prepared(batch)

    def augmented(self, limit: int) -> Iterator[Tensor]:
        """Prepared images [B, C, H, W], augmented as a training shows them, in batches of one size."""
        size, batches = self.context.batch_size, self.batches(limit, Hyp()).epoch(0)
        for number, batch in enumerate(islice(batches, max(limit // size, 1))):
            if number == 0 or len(batch.images) == size:
                yield self.prepared(batch)

    def batches(self, limit: int, augmentation: Hyp | None = None, *, objects: bool = False) -> Batches:
        """Shuffled square training images; `limit` bounds the batch.

        Args:
            objects: a labelled data set without any object is an error.

        Raises:
            UserError: there is no data set, or no training split; or objects are asked for and it has none.
        """
        data = self.context.require_images("This step")
        split = self.family.split_for(self.whole, data, "train", objects=objects, otherwise=OR_IMAGES)
        size = min(self.context.batch_size, limit, len(split))
        return split.shuffled(self._reading(size, augmentation=augmentation))

    def prepared(self, batch: Any) -> Tensor:
        """The images of a batch as the network is called with them, on the device, channels_last."""
        images = self.family.prepare(batch.images.to(self.context.device, non_blocking=True))
        return images.contiguous(memory_format=torch.channels_last) if images.ndim == 4 else images

    def _reading(self, batch_size: int, **changes: Any) -> Reading:
        context = self.context
        inputs = example_inputs_of(self.whole)
        channels = int(inputs[0].shape[1]) if image_sides(inputs) is not None else 3
        pin = context.device.type == "cuda"
        return Reading(context.image_size, batch_size, context.seed, channels=channels, pin=pin, **changes)

    def _own_labels(self, batches: Iterable[Any], limit: int, draw: int, demanding: bool) -> Iterator[Labelled]:
        """The batches with targets that the whole network draws from its belief, up to `limit` images.

        Raises:
            UserError: it sees nothing on any of them, and that is demanded.
        """
        labels, seen = self.family.own_labels(self.whole, self.context.seed + draw), 0
        for batch in batches:
            targets = labels(self.prepared(batch))
            seen += len(batch.images)
            if demanding and seen >= limit:  # whoever reads may stop here and never come to the end
                labels.require_some()
            yield Labelled(batch.images, targets, batch.ratio_pads if isinstance(batch, Batch) else ())
        if demanding:
            labels.require_some()


def _of_image(values: Tensor, image: int, count: int) -> Tensor:
    """What an output says of one image: its entry along dimension 0, where that counts images."""
    return values[image : image + 1] if values.ndim and len(values) == count else values
