"""The options of `secateur run`, and the check of options given together with --resume. Imports no torch."""

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
    """Whether to train a control; None decides by its cost.

    Raises:
        ValueError: the word is not in `CONTROL_WORDS`.
    """
    if word not in CONTROL_WORDS:
        raise ValueError(f"{word} is not one of {', '.join(CONTROL_WORDS)}")
    return CONTROL_WORDS[word]


# flags.py translates --control and --no-control to a value.
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
ALL_EPOCHS = "(default: those of all trainings of the run and those recorded in the checkpoint's history)"
HARMLESS = ("resume", "project", "name", "json", "data")
"""Options that name locations. Whether the data set is the same is decided by its content."""


@dataclass(frozen=True)
class RunOptions:
    """Run a recipe in one resumable folder. The default recipe prunes in rounds, repairs, heals, fine-tunes and
    exports.
    """

    data: Data = ""
    weights: Weights = ""
    cfg: Cfg = ""
    recipe: Annotated[str, arg(help="Name from `secateur recipes`, or path of a YAML file.")] = "best"
    classes: Classes = ()
    image_size: ImageSide = 0
    batch_size: BatchSize = 16
    """Images per training batch."""
    workers: Workers = 2
    seed: Seed = 0
    device: Device = "auto"
    what_if: bool = False
    """Only predict the cost and accuracy loss of budgets for the first cut of the run. Takes up to a minute."""
    control: ControlSwitch = None
    """Add a control row: the dense detector narrowed to the FLOPs of the final network and trained for as many epochs.
    --control always trains it, --no-control never. auto trains it if its estimated time is at most 2 minutes or 15 % of
    the run.
    """
    control_epochs: Advanced[
        Annotated[int, arg(help="Epochs of the control training.", help_behavior_hint=ALL_EPOCHS), COUNT]
    ] = 0
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Options that override recipe settings, by name (see `resolve.override_options`)."""
    place: OutputOptions = field(default_factory=OutputOptions)


def refuse_beside_resume(options: Any, defaults: Any) -> None:
    """Rejects options given together with --resume.

    Args:
        options: options of a training command.
        defaults: the same options with their defaults.

    Raises:
        UserError: other options were given; the message names them.
    """
    given = [name for name in _changed(options, defaults) if name not in HARMLESS]
    if given:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise UserError(
            f"--resume uses the options of the interrupted run. Remove {flags}, or start a new run without --resume."
        )


def _changed(options: Any, defaults: Any) -> Iterator[str]:
    for entry in dataclasses.fields(options):
        value, default = getattr(options, entry.name), getattr(defaults, entry.name)
        if dataclasses.is_dataclass(value):
            yield from _changed(value, default)
        elif value != default:
            yield entry.name
