"""Any network of the user's: its checkpoint has the tensors, the code that they are for stays with the user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from secateur.detector.architecture import ARCHITECTURES
from secateur.errors import UserError


@dataclass(frozen=True)
class PlainModule:
    """A network that no file can build.

    Attributes:
        name: of its class, for people.
        nc: number of classes, where it is said.
        channels: of the image, where it is said.
    """

    name: str
    nc: int = 0
    channels: int = 3
    kind: ClassVar[str] = "module"

    def build(self, names: Mapping[int, str]) -> nn.Module:
        """Never.

        Raises:
            UserError: always; it says how the tensors come into a network.
        """
        raise UserError(
            f"The checkpoint has the tensors of a {self.name} but not its code; give the network that they are for: "
            "secateur.load(path, network=...)."
        )

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


ARCHITECTURES.register(PlainModule.kind)(PlainModule)
