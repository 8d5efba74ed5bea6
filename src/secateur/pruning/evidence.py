"""Evidence: the images, and the loss of each image, that pruning measures on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from secateur.errors import UserError
from secateur.pruning.graph.inputs import mapped

Network = TypeVar("Network", bound=nn.Module)
Network_contra = TypeVar("Network_contra", bound=nn.Module, contravariant=True)
Loss = Callable[[Any, Any], Tensor]
"""Takes a network and a batch. Returns the sum of the losses of its images, a scalar, or the loss of each image,
[B]."""


class Evidence(Protocol[Network_contra]):
    """Images for scores and repairs. A family creates it from a data set; `LoaderEvidence` wraps a data loader of
    the user."""

    @property
    def has_loss(self) -> bool:
        """Whether gradients can be computed."""
        ...

    def example(self) -> tuple[Any, ...]:
        """Inputs of one call with a batch of one; () if the network provides its own example inputs."""
        ...

    def scored(
        self, network: Network_contra, limit: int, draw: int, *, demanding: bool = True
    ) -> tuple[Iterable[Any], Loss]:
        """Batches with at most `limit` images, rounded up to whole batches, and the loss of a network on them.

        Args:
            draw: number of the random selection, if there are more images.
            demanding: raise an error if the images give no gradient, for example because they have no objects.

        Raises:
            UserError: there are no images, or there is no loss.
        """
        ...

    def images(self, limit: int, draw: int) -> Iterable[Tensor]:
        """Inputs [B, ...] of at most `limit` images, rounded up to whole batches, without augmentation and labels."""
        ...

    def augmented(self, limit: int) -> Iterable[Tensor]:
        """Inputs [B, ...] of about `limit` images, augmented as in training, in batches of equal size."""
        ...


@runtime_checkable
class KnowsPlaces(Protocol):
    """Evidence that provides the positions of the objects in its images."""

    def places(self, batch: Any, sides: tuple[float, float]) -> Tensor:
        """Weight of every pixel of a scored batch, float [B, 1, H, W] on the device of the images; higher on objects of
        these sizes.

        Args:
            sides: lower bound (inclusive) and upper bound (exclusive) of the square root of the box area, in pixels of
                the original image.
        """
        ...


class LoaderEvidence:
    """Evidence from a data loader and a loss function, for `secateur.prune` of any network.

    Args:
        batches: an iterable that can be iterated several times, such as a `torch.utils.data.DataLoader`. Its batches
            are tensors [B, ...], or tuples and lists whose first item is the network input. A loader that shuffles
            gives different images in every round.
        loss: takes the network and a batch; returns the losses [B] of its images, or their sum or mean. Without it,
            only criteria that read weights (gamma, l1, l2) are available, and layers are not reconstructed.
        inputs: takes a batch; returns the tensor [B, ...] that is passed to the network. Default: the batch itself or
            its first item.

    Raises:
        TypeError: the batches can be iterated only once.

    >>> batches = [(torch.rand(2, 3, 8, 8), torch.tensor([0, 1]))]
    >>> evidence = LoaderEvidence(batches, lambda net, batch: nn.functional.cross_entropy(net(batch[0]), batch[1]))
    >>> [tuple(tensor.shape) for tensor in evidence.example()]
    [(1, 3, 8, 8)]
    """

    def __init__(
        self,
        batches: Iterable[Any],
        loss: Loss | None = None,
        inputs: Callable[[Any], Tensor] | None = None,
    ) -> None:
        if isinstance(batches, Iterator):
            raise TypeError(
                "Evidence iterates over its batches several times. Pass a list or a DataLoader, not an iterator."
            )
        self._batches, self._loss = batches, loss
        self._inputs = inputs or _first_tensor

    @property
    def has_loss(self) -> bool:
        """Whether gradients can be computed."""
        return self._loss is not None

    def example(self) -> tuple[Any, ...]:
        """The input of the first image.

        Raises:
            UserError: there are no batches.
        """
        for batch in self._batches:
            return (self._inputs(batch)[:1],)
        raise UserError("The evidence has no batches. Pass a loader with images.")

    def scored(
        self, network: nn.Module, limit: int, draw: int, *, demanding: bool = True
    ) -> tuple[Iterable[Any], Loss]:
        """See `Evidence`; every call iterates over the batches again."""
        if self._loss is None:
            raise UserError(
                "Gradients need a loss. Pass secateur.Evidence(batches, loss=...), or set criterion='l2' or 'gamma'."
            )
        loss = self._loss
        return self._some(limit, device_of(network)), lambda net, batch: loss(net, batch).sum()

    def images(self, limit: int, draw: int) -> Iterable[Tensor]:
        """See `Evidence`; inputs [B, ...]."""
        return (self._inputs(batch) for batch in self._some(limit, None))

    def augmented(self, limit: int) -> Iterable[Tensor]:
        """See `Evidence`; inputs [B, ...] as the loader provides them."""
        return self.images(limit, 0)

    def _some(self, limit: int, device: torch.device | None) -> Iterator[Any]:
        seen = 0
        for batch in self._batches:
            if seen >= limit:
                return
            seen += len(self._inputs(batch))
            yield batch if device is None else mapped(batch, lambda tensor: tensor.to(device))


def device_of(network: nn.Module) -> torch.device:
    """Device of the parameters of a network; the CPU if it has none."""
    return next((parameter.device for parameter in network.parameters()), torch.device("cpu"))


def _first_tensor(batch: Any) -> Tensor:
    first = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
    if not isinstance(first, Tensor):
        raise TypeError(
            f"A batch of the evidence is a {type(batch).__name__}. Pass inputs=, a function from a batch to "
            "the input tensor of the network."
        )
    return first
