"""Training hyper-parameters with the names of YOLOv5: the common ones, and those of families by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from secateur.errors import UserError

FOLDER = Path(__file__).with_name("hyp")
PROBABILITIES = ("flipud", "fliplr", "mosaic", "mixup", "copy_paste", "hsv_h", "hsv_s", "hsv_v")

Own = TypeVar("Own")


@dataclass(frozen=True)
class Hyp:
    """A set of hyper-parameters; the defaults are those of `scratch-low`.

    Attributes:
        own: hyper-parameters of the loss and head of a family, by name; `Family.hyp` declares the names.

    Raises:
        UserError: a value is out of range; the message names its key.
    """

    lr0: float = 0.01  # learning rate of the first epoch
    lrf: float = 0.01  # learning rate of the last epoch, as a share of lr0
    momentum: float = 0.937  # SGD momentum, Adam's beta1
    weight_decay: float = 0.0005  # for 64 images per step
    warmup_epochs: float = 3.0
    warmup_momentum: float = 0.8
    warmup_bias_lr: float = 0.1  # initial learning rate of biases
    hsv_h: float = 0.015
    hsv_s: float = 0.7
    hsv_v: float = 0.4
    degrees: float = 0.0
    translate: float = 0.1
    scale: float = 0.5
    shear: float = 0.0
    perspective: float = 0.0
    flipud: float = 0.0
    fliplr: float = 0.5
    mosaic: float = 1.0
    mixup: float = 0.0
    copy_paste: float = 0.0
    own: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_hyper_parameters(
            {name: getattr(self, name) for name in NAMES},
            at_most_one=PROBABILITIES,
            below_one=("momentum", "warmup_momentum"),
            positive=("lr0",),
        )

    def to_dict(self) -> dict[str, float]:
        """All hyper-parameters in one flat mapping, for checkpoints and for the augmentation."""
        return {name: getattr(self, name) for name in NAMES} | dict(self.own)

    def read(self, kind: type[Own]) -> Own:
        """Hyper-parameters of a family: its dataclass with the given values, and its defaults.

        Raises:
            UserError: a value is out of range.
        """
        names = [entry.name for entry in fields(kind)]  # type: ignore[arg-type]
        return kind(**{name: self.own[name] for name in names if name in self.own})

    def completed(self, kind: type[Any]) -> Hyp:
        """A copy with all hyper-parameters of one family, and none of other families.

        Raises:
            UserError: a value is out of range.
        """
        own = self.read(kind)
        return replace(self, own={entry.name: getattr(own, entry.name) for entry in fields(kind)})


NAMES = tuple(entry.name for entry in fields(Hyp) if entry.name != "own")


def check_hyper_parameters(
    values: Mapping[str, float],
    *,
    at_most_one: tuple[str, ...] = (),
    below_one: tuple[str, ...] = (),
    positive: tuple[str, ...] = (),
) -> None:
    """Checks the ranges of hyper-parameters; all must be numbers of at least 0.

    Raises:
        UserError: a value is out of range; the message names it.
    """
    for name, value in values.items():
        if not 0 <= value < float("inf"):
            raise UserError(f"Hyper-parameter {name} is {value}; it must be a number of at least 0.")
    for name in at_most_one:
        if values[name] > 1:
            raise UserError(f"Hyper-parameter {name} is {values[name]}; it must be from 0 to 1.")
    for name in below_one:
        if values[name] >= 1:
            raise UserError(f"Hyper-parameter {name} is {values[name]}; it must be below 1.")
    for name in positive:
        if values[name] == 0:
            raise UserError(f"Hyper-parameter {name} is 0; it must be positive.")
