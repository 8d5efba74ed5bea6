"""The options of a training, checked when they are made; imports no torch, so the command line can read it fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from tyro.conf import Suppress, arg

from secateur.errors import UserError, shown
from secateur.ranges import BATCH, COUNT, EPOCHS, PIXELS, SEED, SHARE, WORKERS, Advanced, Between, check_ranges
from secateur.training.hyp import Hyp
from secateur.training.own_options import declared, no_own_options

NOMINAL_BATCH = 64  # images an optimizer step stands for; weight decay and penalties are quoted for it
WAIT_MINUTES = 120.0  # longer than the first process validates or reads a data set while the others wait for it


@dataclass(frozen=True)
class TrainSettings:
    """How to train. `batch_size` is the total over all processes; steps are optimizer steps.

    Raises:
        UserError: an option out of its range, named.
    """

    epochs: Annotated[int, EPOCHS] = 100
    """Passes over the training images."""
    batch_size: Annotated[int, arg(aliases=["--batch"]), BATCH] = 16
    """Images per batch, over all processes."""
    image_size: Annotated[
        int,
        arg(aliases=["--img", "--imgsz"], help_behavior_hint="(default: the size that the weights remember, else 640)"),
        Between(1, PIXELS.most, also=0),
    ] = 0
    """Side of the training images in pixels."""
    nominal_batch: Advanced[Annotated[int, Between(1, 65_536)]] = NOMINAL_BATCH
    """Images per optimizer step, accumulated over smaller batches."""
    optimizer: Literal["auto", "SGD", "Adam", "AdamW"] = "auto"
    """SGD (with Nesterov momentum), Adam or AdamW, each with YOLOv5's three parameter groups; auto is SGD, and for
    networks of Ultralytics what its package chooses."""
    cos_lr: Advanced[bool] = False
    """Lower the learning rate along half a cosine instead of a line."""
    label_smoothing: Advanced[Annotated[float, SHARE]] = 0.0
    """Class targets are moved by half of it."""
    patience: Annotated[int, COUNT] = 100
    """Epochs without a better fitness before the training stops; 0 never stops."""
    freeze: Advanced[Annotated[tuple[int, ...], Between(0, 10_000)]] = (0,)
    """Blocks whose weights are frozen: one number freezes that many first blocks, several numbers freeze these
    blocks."""
    multi_scale: Advanced[bool] = False
    """Draw the image size of each batch from 0.5 to 1.5 times --image-size."""
    single_cls: Advanced[bool] = False
    """Train one class, called object, on the objects of all classes."""
    rect: Advanced[bool] = False
    """Rectangular batches, without shuffling and mosaic."""
    seed: Advanced[Annotated[int, SEED]] = 0
    """Seed of everything random."""
    workers: Annotated[int, WORKERS] = 2
    """Processes that load images (0: the training process loads them itself)."""
    amp: Advanced[Literal["auto", "off", "bf16", "fp16"]] = "auto"
    """Mixed precision: auto (what the device is fast in), off, bf16, or fp16 (CUDA only)."""
    channels_last: Advanced[bool] = True
    """Keep images and weights in the memory layout that CPUs and tensor cores prefer."""
    sync_bn: Advanced[bool] = True
    """With several processes: BatchNorm over the batch of all of them."""
    save_every_steps: Advanced[Annotated[int, COUNT]] = 0
    """Also save the resumable state every this many optimizer steps."""
    val_every: Advanced[Annotated[int, COUNT]] = 1
    """Epochs between evaluations; 0 evaluates after the last one only."""
    warmup_minimum: Advanced[Annotated[int, COUNT]] = 100
    """Shortest warm-up, in batches."""
    tensorboard: Advanced[bool] = True
    """Write TensorBoard's files where it is installed."""
    device: str = "auto"
    """Where to compute: auto (a GPU where there is one), cpu, 0, cuda:1 or mps; torchrun gives each process its GPU."""
    wait_minutes: Advanced[Annotated[float, Between(1, 100_000)]] = WAIT_MINUTES
    """With several processes: minutes that a process waits for the others, for example while the first one
    validates."""
    own: Any = field(default_factory=no_own_options)
    hyp: Suppress[Hyp] = field(default_factory=Hyp)
    """Given by --hyp, so not an option itself."""

    def __post_init__(self) -> None:
        if isinstance(self.image_size, tuple | list):
            size = shown(self.image_size)
            raise UserError(f"Option image_size is {size}; training images are square: give one number, e.g. 640.")
        check_ranges(self)
        if self.label_smoothing == 1:
            raise UserError(f"Option label_smoothing is {self.label_smoothing}; it must be at least 0 and below 1.")
        if not self.freeze:
            raise UserError(f"Option freeze is {list(self.freeze)}; give a count or block numbers of at least 0.")

    @property
    def is_sgd(self) -> bool:
        """Whether the loop takes SGD."""
        return self.optimizer in ("auto", "SGD")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data, for the checkpoint; with the options of families among the others."""
        return flat(asdict(self)) | {"freeze": list(self.freeze), "hyp": self.hyp.to_dict()}


def flat(options: dict[str, Any]) -> dict[str, Any]:
    """Training options as plain data, those of families among the others."""
    own = options.pop("own")
    return options | own


def under_present_names(options: Mapping[str, Any]) -> dict[str, Any]:
    """Training options that an earlier version saved, under the names that they have now."""
    result = dict(options)
    for kind in declared():
        result = kind.under_present_names(result)
    return result
