"""What pruning asks of the world: images, and what each of them loses when a channel goes."""

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
"""Takes a network and a batch, gives the sum of the losses of its images, a scalar, or each of them: [B]."""


class Evidence(Protocol[Network_contra]):
    """Images for scores and repairs. A family makes it from a data set; `LoaderEvidence` takes a user's own loader."""

    @property
    def has_loss(self) -> bool:
        """Whether gradients can be read."""
        ...

    def example(self) -> tuple[Any, ...]:
        """Inputs of one call with a batch of one; () where the network tells its own."""
        ...

    def scored(
        self, network: Network_contra, limit: int, draw: int, *, demanding: bool = True
    ) -> tuple[Iterable[Any], Loss]:
        """Batches of at most `limit` images, rounded up to whole batches, and the loss of a network on them.

        Args:
            draw: number of the random choice among more images.
            demanding: images that tell nothing are an error.

        Raises:
            UserError: there are no images, or no loss.
        """
        ...

    def images(self, limit: int, draw: int) -> Iterable[Tensor]:
        """Inputs [B, ...] of at most `limit` images, rounded up to whole batches; not augmented, without labels."""
        ...

    def augmented(self, limit: int) -> Iterable[Tensor]:
        """Inputs [B, ...] of about `limit` images as a training shows them, in batches of one size."""
        ...


@runtime_checkable
class KnowsPlaces(Protocol):
    """Evidence that knows where in its images the objects are."""

    def places(self, batch: Any, sides: tuple[float, float]) -> Tensor:
        """How much each place of the images of a scored batch counts, [B, 1, H, W], on their device: more where objects
        are of these sizes.

        Args:
            sides: least side and side that is too large, in pixels of the original image (the root of the area).
        """
        ...


class LoaderEvidence:
    """Evidence from a data loader and a loss of one's own, for `secateur.prune` of any network.

    Args:
        batches: gives batches again whenever it is iterated, as a `torch.utils.data.DataLoader` does: tensors [B, ...],
            or tuples and lists whose first entry is the input of the network. A loader that shuffles shows other images
            in every round.
        loss: takes the network and a batch, gives losses [B] of its images, or their sum or mean. Without it only
            criteria that read weights (gamma, l1, l2) can be used, and layers are not reconstructed.
        inputs: takes a batch, gives the one tensor [B, ...] that the network is called with; left out, the batch itself
            or its first entry.

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
            raise TypeError("Evidence iterates over the batches several times; give a list or a DataLoader.")
        self._batches, self._loss = batches, loss
        self._inputs = inputs or _first_tensor

    @property
    def has_loss(self) -> bool:
        """Whether gradients can be read."""
        return self._loss is not None

    def example(self) -> tuple[Any, ...]:
        """The input of the first image.

        Raises:
            UserError: there is no batch.
        """
        for batch in self._batches:
            return (self._inputs(batch)[:1],)
        raise UserError("The evidence has no batch; give a loader with images.")

    def scored(
        self, network: nn.Module, limit: int, draw: int, *, demanding: bool = True
    ) -> tuple[Iterable[Any], Loss]:
        """See `Evidence`; every call iterates over the batches anew."""
        if self._loss is None:
            raise UserError(
                "Gradients need a loss: give secateur.Evidence(batches, loss=...), or choose criterion='l2' or 'gamma'."
            )
        loss = self._loss
        return self._some(limit, device_of(network)), lambda net, batch: loss(net, batch).sum()

    def images(self, limit: int, draw: int) -> Iterable[Tensor]:
        """See `Evidence`."""
        return (self._inputs(batch) for batch in self._some(limit, None))

    def augmented(self, limit: int) -> Iterable[Tensor]:
        """See `Evidence`: as the loader shows them."""
        return self.images(limit, 0)

    def _some(self, limit: int, device: torch.device | None) -> Iterator[Any]:
        seen = 0
        for batch in self._batches:
            if seen >= limit:
                return
            seen += len(self._inputs(batch))
            yield batch if device is None else mapped(batch, lambda tensor: tensor.to(device))


def device_of(network: nn.Module) -> torch.device:
    """Where the parameters of a network are; the CPU for one without any."""
    return next((parameter.device for parameter in network.parameters()), torch.device("cpu"))


def _first_tensor(batch: Any) -> Tensor:
    first = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
    if not isinstance(first, Tensor):
        raise TypeError(
            f"A batch of the evidence is a {type(batch).__name__}; give inputs=, which takes a batch and gives the "
            "tensor that the network is called with."
        )
    return first
