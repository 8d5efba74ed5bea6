"""Training options, validated on creation. This file does not import torch, so that the command line starts fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from tyro.conf import Suppress, arg

from secateur.errors import UserError, shown
from secateur.ranges import BATCH, COUNT, EPOCHS, PIXELS, SEED, SHARE, WORKERS, Advanced, Between, check_ranges
from secateur.training.hyp import Hyp
from secateur.training.own_options import declared, no_own_options

NOMINAL_BATCH = 64  # images per optimizer step to which weight decay and penalties refer
WAIT_MINUTES = 120.0  # longer than the first process needs to validate or read a data set


@dataclass(frozen=True)
class TrainSettings:
    """Training options. `batch_size` is the total over all processes; steps are optimizer steps.

    Raises:
        UserError: an option is out of range; the message names it.
    """

    epochs: Annotated[int, EPOCHS] = 100
    """Number of passes over the training images."""
    batch_size: Annotated[int, arg(aliases=["--batch"]), BATCH] = 16
    """Images per batch, over all processes."""
    image_size: Annotated[
        int,
        arg(
            aliases=["--img", "--imgsz"],
            help_behavior_hint="(default: the size stored in the checkpoint, otherwise 640)",
        ),
        Between(1, PIXELS.most, also=0),
    ] = 0
    """Side of the training images in pixels."""
    nominal_batch: Advanced[Annotated[int, Between(1, 65_536)]] = NOMINAL_BATCH
    """Images per optimizer step; gradients of smaller batches are accumulated."""
    optimizer: Literal["auto", "SGD", "Adam", "AdamW"] = "auto"
    """SGD (with Nesterov momentum), Adam or AdamW, each with the three parameter groups of YOLOv5; auto: SGD, or for
    networks of Ultralytics the choice of its package."""
    cos_lr: Advanced[bool] = False
    """Lower the learning rate along half a cosine instead of linearly."""
    label_smoothing: Advanced[Annotated[float, SHARE]] = 0.0
    """Smoothing of class targets: each target moves by half of this value."""
    patience: Annotated[int, COUNT] = 100
    """Stop after this number of epochs without a better fitness (0: never)."""
    freeze: Advanced[Annotated[tuple[int, ...], Between(0, 10_000)]] = (0,)
    """Blocks to freeze: one number n freezes the first n blocks, several numbers freeze exactly these blocks."""
    multi_scale: Advanced[bool] = False
    """Sample the image size of each batch from 0.5 to 1.5 times --image-size."""
    single_cls: Advanced[bool] = False
    """Train a single class, named object, on the objects of all classes."""
    rect: Advanced[bool] = False
    """Use rectangular batches, without shuffling and mosaics."""
    seed: Advanced[Annotated[int, SEED]] = 0
    """Random seed."""
    workers: Annotated[int, WORKERS] = 2
    """Processes that load images (0: load them in the training process)."""
    amp: Advanced[Literal["auto", "off", "bf16", "fp16"]] = "auto"
    """Mixed precision: auto (the fastest for the device), off, bf16, or fp16 (CUDA only)."""
    channels_last: Advanced[bool] = True
    """Use the channels-last memory layout, which is faster on CPUs and tensor cores."""
    sync_bn: Advanced[bool] = True
    """With several processes: compute BatchNorm over the batch of all of them."""
    save_every_steps: Advanced[Annotated[int, COUNT]] = 0
    """Also save the state for resuming every this many optimizer steps (0: only after each epoch)."""
    val_every: Advanced[Annotated[int, COUNT]] = 1
    """Epochs between evaluations (0: evaluate only after the last epoch)."""
    warmup_minimum: Advanced[Annotated[int, COUNT]] = 100
    """Minimum length of the warm-up, in batches."""
    tensorboard: Advanced[bool] = True
    """Write TensorBoard files, if it is installed."""
    device: str = "auto"
    """Device: auto (a GPU if available), cpu, 0, cuda:1 or mps; torchrun assigns each process its GPU."""
    wait_minutes: Advanced[Annotated[float, Between(1, 100_000)]] = WAIT_MINUTES
    """With several processes: minutes that a process waits for the others, for example while the first one
    validates."""
    own: Any = field(default_factory=no_own_options)
    hyp: Suppress[Hyp] = field(default_factory=Hyp)
    """Set by --hyp, not an option itself."""

    def __post_init__(self) -> None:
        if isinstance(self.image_size, tuple | list):
            size = shown(self.image_size)
            raise UserError(
                f"Option image_size is {size}; training images are square. Set one number, for example 640."
            )
        check_ranges(self)
        if self.label_smoothing == 1:
            raise UserError(f"Option label_smoothing is {self.label_smoothing}; it must be at least 0 and below 1.")
        if not self.freeze:
            raise UserError(f"Option freeze is {list(self.freeze)}; it must be a count or block numbers of at least 0.")

    @property
    def is_sgd(self) -> bool:
        """Whether the loop uses SGD."""
        return self.optimizer in ("auto", "SGD")

    def to_dict(self) -> dict[str, Any]:
        """Data that JSON can hold, for the checkpoint; includes the options of families."""
        return flat(asdict(self)) | {"freeze": list(self.freeze), "hyp": self.hyp.to_dict()}


def flat(options: dict[str, Any]) -> dict[str, Any]:
    """Training options as plain data, including those of families."""
    own = options.pop("own")
    return options | own


def under_present_names(options: Mapping[str, Any]) -> dict[str, Any]:
    """Converts training options saved by earlier versions to their current names."""
    result = dict(options)
    for kind in declared():
        result = kind.under_present_names(result)
    return result
