"""Architecture data of a network of Ultralytics: its description, and changes by a cut other than widths."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from secateur.errors import UserError, shown, told
from secateur.families.ultralytics.description import checked_description, is_end_to_end, task_of
from secateur.families.ultralytics.network import Numbers, UltralyticsNetwork, built
from secateur.limits import MAX_ARGUMENT, MAX_CLASSES, MAX_MODULES, MAX_REPEATS

MAX_CHANNELS = 64
"""Channels of an image."""


@dataclass(frozen=True)
class Ultralytics:
    """Architecture of a network of the package `ultralytics`.

    Attributes:
        description: the checked model YAML (`description.checked_description`).
        nc: number of classes; hidden layers of the head have the widths for the number of classes in the description.
        channels: image channels.
        args: training options that its loss reads, by name: box, cls, dfl and others.
        numbers: integers stored in modules that differ from the description, by module and name: for example, the width
            of half the channels in a block that splits them, or the number of heads of an attention.
        chains: number of blocks of the shortened chains, by name ("model.4.m").
    """

    description: Mapping[str, Any]
    nc: int
    channels: int = 3
    args: Mapping[str, Any] = field(default_factory=dict)
    numbers: Numbers = field(default_factory=dict)
    chains: Mapping[str, int] = field(default_factory=dict)
    kind: ClassVar[str] = "ultralytics"
    built_in_memory: ClassVar[bool] = True
    """The constructor runs an image through the network, which is not possible on the meta device."""

    @property
    def task(self) -> str:
        """ "detect", "segment", "pose", "obb" or "classify"."""
        return task_of(self.description)

    @property
    def end_to_end(self) -> bool:
        """Whether its boxes are final."""
        return is_end_to_end(self.description)

    def build(self, names: Mapping[int, str]) -> UltralyticsNetwork:
        """An untrained network on the CPU, independent of the default device.

        Raises:
            UserError: the package is missing, or cannot build the network.
        """
        return built(self, names)

    def with_classes(self, nc: int) -> Ultralytics:
        """The architecture for another number of classes: only the last layers of the head differ."""
        return replace(self, nc=nc)

    def to_dict(self) -> dict[str, Any]:
        """Data that JSON can hold."""
        return {
            "description": copy.deepcopy(dict(self.description)),
            "nc": self.nc,
            "channels": self.channels,
            "args": dict(self.args),
            "numbers": {module: dict(kept) for module, kept in self.numbers.items()},
            **({"chains": dict(self.chains)} if self.chains else {}),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Ultralytics:
        """The inverse of `to_dict`; all data is validated.

        Raises:
            UserError: the data does not describe a network.
        """
        nc, channels = data["nc"], data.get("channels", 3)
        if type(nc) is not int or not 1 <= nc <= MAX_CLASSES:
            raise UserError(f"its number of classes is {shown(nc)}")
        if type(channels) is not int or not 1 <= channels <= MAX_CHANNELS:
            raise UserError(f"its images have {shown(channels)} channels")
        description = checked_description(data["description"])
        args, numbers = checked_args(data.get("args", {})), checked_numbers(data.get("numbers"))
        return cls(description, nc, channels, args, numbers, checked_chains(data.get("chains")))

    def __str__(self) -> str:
        rows = len(self.description["backbone"]) + len(self.description["head"])
        return f"Ultralytics network of {rows} blocks ({self.task})"


def checked_args(args: Any) -> dict[str, Any]:
    """The training options that are plain numbers or switches.

    Raises:
        UserError: the options are not a mapping.
    """
    if not isinstance(args, Mapping):
        raise UserError("its training options are not a mapping")
    plain = {key: value for key, value in args.items() if isinstance(key, str) and key in ARGS}
    return {
        key: value for key, value in plain.items() if isinstance(value, bool | int | float) and math.isfinite(value)
    }


ARGS = ("box", "cls", "dfl", "pose", "kobj", "rle", "angle", "overlap_mask", "mask_ratio", "epochs", "cls_pw")
"""Training options that losses read."""


def checked_numbers(numbers: Any) -> dict[str, dict[str, int]]:
    """Integers of modules, by module and name.

    Raises:
        UserError: the data is invalid.
    """
    if numbers is None:
        return {}
    if not isinstance(numbers, Mapping) or len(numbers) > MAX_MODULES:
        raise UserError("its module numbers are not a mapping")
    found: dict[str, dict[str, int]] = {}
    for module, kept in numbers.items():
        if not isinstance(module, str) or not isinstance(kept, Mapping):
            raise UserError(f"its numbers of the module {told(module, 60)} are not a mapping")
        for name, value in kept.items():
            if not isinstance(name, str) or type(value) is not int or not 0 < value <= MAX_ARGUMENT:
                raise UserError(f"its module {told(module, 60)} has {told(name, 40)}: {shown(value)}")
        found[module] = dict(kept)
    return found


def checked_chains(chains: Any) -> dict[str, int]:
    """Lengths of chains, by name.

    Raises:
        UserError: the data is invalid.
    """
    if chains is None:
        return {}
    if not isinstance(chains, Mapping) or len(chains) > MAX_MODULES:
        raise UserError("its chains of blocks are not a mapping")
    for name, length in chains.items():
        if not isinstance(name, str) or type(length) is not int or not 0 <= length <= MAX_REPEATS:
            raise UserError(f"its chain {told(name, 60)} has {shown(length)} blocks")
    return dict(chains)
