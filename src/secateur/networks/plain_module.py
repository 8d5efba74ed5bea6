"""Any network of the user's: its file has the tensors, the code that they are for stays with the user."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from secateur.errors import UserError


@dataclass(frozen=True)
class PlainModule:
    """A network that no file can build.

    Attributes:
        name: of its class, for people.
        nc: number of classes, where it is said.
        channels: of the image, where it is said.
        network: a copy of it without its tensors (they are on the meta device); None where it comes from a file.
    """

    name: str
    nc: int = 0
    channels: int = 3
    network: nn.Module | None = field(default=None, compare=False, repr=False)
    kind: ClassVar[str] = "module"

    @staticmethod
    def of(network: nn.Module, nc: int = 0) -> PlainModule:
        """A network at hand, of which a copy without tensors is kept."""
        return PlainModule(type(network).__name__, nc, network=_without_tensors(network))

    def build(self, names: Mapping[int, str]) -> nn.Module:
        """A copy of the network, whose tensors are on the meta device.

        Raises:
            UserError: it comes from a file; the sentence says how the tensors come into a network.
        """
        if self.network is None:
            raise UserError(
                f"The checkpoint holds the tensors of a {self.name} but not its code, so nothing can build it from the "
                "file; in Python, secateur.load(path, network=...) puts the tensors into the network that they are for."
            )
        return copy.deepcopy(self.network)

    def with_classes(self, nc: int) -> PlainModule:
        """Never: which tensors know the classes is not said.

        Raises:
            UserError: always, unless the number is the same.
        """
        if nc != self.nc:
            raise UserError(f"The checkpoint of a {self.name} cannot be given {nc} classes; change the network itself.")
        return self

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {"name": self.name, "nc": self.nc, "channels": self.channels}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PlainModule:
        """The inverse of `to_dict`."""
        return cls(str(data["name"]), int(data["nc"]), int(data["channels"]))

    def __str__(self) -> str:
        return f"{self.name} (plain module)"


def _without_tensors(network: nn.Module) -> nn.Module | None:
    """A copy whose state is on the meta device; None for a network that cannot be copied."""

    def empty(tensor: Tensor) -> Tensor:
        meta = torch.empty_like(tensor, device="meta")
        return nn.Parameter(meta, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else meta

    state = network.state_dict(keep_vars=True).values()
    try:
        known: dict[int, Any] = {id(tensor): empty(tensor) for tensor in state if isinstance(tensor, Tensor)}
        return copy.deepcopy(network, known)
    except Exception:  # what the attributes of the user's network raise when they are copied can be anything
        return None
