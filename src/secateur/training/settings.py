"""The options of a training, checked when they are made; imports no torch, so the command line can read it fast."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from tyro.conf import Suppress

from secateur.errors import UserError
from secateur.training.hyp import Hyp

NOMINAL_BATCH = 64  # images an optimizer step stands for; weight decay and penalties are quoted for it


@dataclass(frozen=True)
class TrainSettings:
    """How to train. `batch_size` is the total over all processes; steps are optimizer steps.

    Raises:
        UserError: an option out of its range, named.
    """

    epochs: int = 100  # passes over the training images
    batch_size: int = 16  # images a batch, over all processes
    image_size: int = 640  # side in pixels
    nominal_batch: int = NOMINAL_BATCH  # images an optimizer step is to sum up, by accumulation over smaller batches
    optimizer: Literal["SGD", "Adam", "AdamW"] = "SGD"  # with YOLOv5's three parameter groups
    cos_lr: bool = False  # learning rate falls as half a cosine instead of a line
    label_smoothing: float = 0.0  # class targets are moved by half of it
    patience: int = 100  # epochs without a better fitness before the training stops; 0 never stops
    freeze: tuple[int, ...] = (0,)  # one number: that many first blocks; several: these blocks
    multi_scale: bool = False  # image size of each batch drawn from 0.5..1.5 of image_size
    single_cls: bool = False  # all classes as one
    rect: bool = False  # rectangular batches, without shuffling and mosaic
    seed: int = 0  # of everything random
    workers: int = 2  # processes that load images
    amp: Literal["auto", "off", "bf16", "fp16"] = "auto"  # mixed precision; auto: what the device is fast in
    channels_last: bool = True  # memory layout of images and weights
    sync_bn: bool = True  # several processes: BatchNorm over the total batch
    save_every_steps: int = 0  # also save the resumable state every so many optimizer steps
    val_every: int = 1  # epochs between evaluations; 0 evaluates after the last one only
    noautoanchor: bool = False  # keep the anchors whatever the boxes are like
    warmup_minimum: int = 100  # shortest warm-up, in batches
    tensorboard: bool = True  # used when it is installed
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: CUDA where there is one
    hyp: Suppress[Hyp] = field(default_factory=Hyp)  # given by --hyp, so not an option itself

    def __post_init__(self) -> None:
        at_least = {"epochs": 1, "batch_size": 1, "nominal_batch": 1, "image_size": 32, "patience": 0, "workers": 0}
        at_least |= {"seed": 0, "save_every_steps": 0, "val_every": 0, "warmup_minimum": 0}
        for name, least in at_least.items():
            if getattr(self, name) < least:
                raise UserError(f"Option {name} is {getattr(self, name)}; it must be at least {least}.")
        choices = {"optimizer": ("SGD", "Adam", "AdamW"), "amp": ("auto", "off", "bf16", "fp16")}
        choices["device"] = ("auto", "cpu", "cuda")
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise UserError(f"Option {name} is {getattr(self, name)!r}; choose one of {', '.join(allowed)}.")
        if not 0 <= self.label_smoothing < 1:
            raise UserError(f"Option label_smoothing is {self.label_smoothing}; it must lie in 0..1, 1 excluded.")
        if not self.freeze or any(block < 0 for block in self.freeze):
            raise UserError(f"Option freeze is {list(self.freeze)}; give a count or block numbers of at least 0.")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data, for the checkpoint."""
        return asdict(self) | {"freeze": list(self.freeze)}
