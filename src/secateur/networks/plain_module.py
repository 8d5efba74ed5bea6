"""Architecture of networks of the user: the file holds only the tensors, not the code."""

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
    """A network whose code is not in the checkpoint.

    Attributes:
        name: name of its class, for messages.
        nc: number of classes, if known.
        channels: image channels, if known.
        network: a copy without its tensors (on the meta device); None if it comes from a file.
    """

    name: str
    nc: int = 0
    channels: int = 3
    network: nn.Module | None = field(default=None, compare=False, repr=False)
    kind: ClassVar[str] = "module"

    @staticmethod
    def of(network: nn.Module, nc: int = 0) -> PlainModule:
        """The architecture of a network, with a copy without tensors."""
        return PlainModule(type(network).__name__, nc, network=_without_tensors(network))

    def build(self, names: Mapping[int, str]) -> nn.Module:
        """A copy of the network, with tensors on the meta device.

        Raises:
            UserError: it comes from a file; the message explains how to load the tensors.
        """
        if self.network is None:
            raise UserError(
                f"The checkpoint holds the tensors of a {self.name}, but not its code, so it cannot be built from the "
                "file. Load it in Python into a network: secateur.load(path, network=...)."
            )
        return copy.deepcopy(self.network)

    def with_classes(self, nc: int) -> PlainModule:
        """Not supported: the classification layer is unknown.

        Raises:
            UserError: always, unless the number is the same.
        """
        if nc != self.nc:
            raise UserError(
                f"The checkpoint of a {self.name} cannot be changed to {nc} classes. Change the network itself."
            )
        return self

    def to_dict(self) -> dict[str, Any]:
        """Data that JSON can hold."""
        return {"name": self.name, "nc": self.nc, "channels": self.channels}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PlainModule:
        """The inverse of `to_dict`."""
        return cls(str(data["name"]), int(data["nc"]), int(data["channels"]))

    def __str__(self) -> str:
        return f"{self.name} (plain module)"


def _without_tensors(network: nn.Module) -> nn.Module | None:
    """A copy on the meta device; None for a network that cannot be copied."""

    def empty(tensor: Tensor) -> Tensor:
        meta = torch.empty_like(tensor, device="meta")
        return nn.Parameter(meta, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else meta

    state = network.state_dict(keep_vars=True).values()
    try:
        known: dict[int, Any] = {id(tensor): empty(tensor) for tensor in state if isinstance(tensor, Tensor)}
        return copy.deepcopy(network, known)
    except Exception:  # attributes of the user's network may raise anything when copied
        return None
