"""The options of `secateur run`, from which a recipe becomes a run, and those beside --resume; imports no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from tyro.conf import arg
from tyro.constructors import PrimitiveConstructorSpec

from secateur.errors import UserError
from secateur.ranges import COUNT, Advanced
from secateur.runs.fields import BatchSize, Cfg, Classes, Data, Device, ImageSide, Seed, Weights, Workers
from secateur.runs.folders import OutputOptions

CONTROL_WORDS: Mapping[str, bool | None] = {"on": True, "off": False, "auto": None}


def control_of(word: str) -> bool | None:
    """Whether a control is trained; None leaves it to its cost.

    Raises:
        ValueError: the word is none of `CONTROL_WORDS`.
    """
    if word not in CONTROL_WORDS:
        raise ValueError(f"{word} is none of {', '.join(CONTROL_WORDS)}")
    return CONTROL_WORDS[word]


# The command line reads --control and --no-control too (flags.py).
ControlSwitch = Annotated[
    bool | None,
    arg(metavar="on/off/auto", help_behavior_hint="(default: auto)"),
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="on/off/auto",
        instance_from_str=lambda words: control_of(words[0]),
        is_instance=lambda value: value is None or isinstance(value, bool),
        str_from_instance=lambda value: [word for word, meant in CONTROL_WORDS.items() if meant is value],
    ),
]
ALL_EPOCHS = "(default: those of all trainings of the run and those that the weights say they had)"
HARMLESS = ("resume", "project", "name", "json", "data")
"""What says where things are; that the data set is the same one is found out by its content."""


@dataclass(frozen=True)
class RunOptions:
    """A recipe in one resumable run: by default prune in rounds, repair, heal, fine-tune, export."""

    data: Data = ""
    weights: Weights = ""
    cfg: Cfg = ""
    recipe: Annotated[str, arg(help="A name from `secateur recipes`, or a YAML file.")] = "best"
    classes: Classes = ()
    image_size: ImageSide = 0
    batch_size: BatchSize = 16
    """Images in a training batch."""
    workers: Workers = 2
    seed: Seed = 0
    device: Device = "auto"
    control: ControlSwitch = None
    """Add a row to compare with: the dense detector narrowed to the FLOPs of the last row and trained as long.
    --control is on, --no-control is off. auto trains it where it is cheap: by the seconds of an epoch of the run's last
    training it takes at most 2 minutes, or 15 % of the whole run."""
    control_epochs: Advanced[
        Annotated[int, arg(help="Epochs of the control.", help_behavior_hint=ALL_EPOCHS), COUNT]
    ] = 0
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Options that replace settings of the recipe, by name (see `resolve.override_options`)."""
    place: OutputOptions = field(default_factory=OutputOptions)


def refuse_beside_resume(options: Any, defaults: Any) -> None:
    """Refuses options that were given together with --resume.

    Args:
        options: of a training command.
        defaults: the same with nothing given.

    Raises:
        UserError: naming them.
    """
    given = [name for name in _changed(options, defaults) if name not in HARMLESS]
    if given:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise UserError(
            f"--resume continues with the options of the interrupted run, so {flags} cannot be given with it: leave "
            "that out, or start a new run without --resume."
        )


def _changed(options: Any, defaults: Any) -> Iterator[str]:
    for entry in dataclasses.fields(options):
        value, default = getattr(options, entry.name), getattr(defaults, entry.name)
        if dataclasses.is_dataclass(value):
            yield from _changed(value, default)
        elif value != default:
            yield entry.name
