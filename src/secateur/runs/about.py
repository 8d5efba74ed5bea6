"""Metadata of a run for its report page: command line, settings, data, versions and machine."""

from __future__ import annotations

import dataclasses
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from secateur import __version__
from secateur.errors import UserError
from secateur.families.context import Context
from secateur.families.family import family_of
from secateur.files import read_json, write_json
from secateur.machine import cpu_threads, processor
from secateur.networks.checkpoint import Checkpoint
from secateur.report.page.model import ABOUT
from secateur.runs.recipes.resolve import PlannedStep
from secateur.training.distributed import rank_and_world

_PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "opencv-python-headless",
    "onnx",
    "onnxruntime",
    "openvino",
    "ultralytics",
)


def note_about(
    folder: Path,
    command: str,
    options: Any,
    start: Checkpoint,
    context: Context,
    steps: Sequence[PlannedStep] = (),
    **more: Any,
) -> None:
    """Writes about.json at the start of a run. When the run is resumed, adds the time.

    Args:
        folder: folder of the run.
        command: name of the command.
        options: dataclass or mapping of the settings.
        start: initial checkpoint, whose family reads the data.
        context: data, device and image size.
        steps: the planned steps.
        more: additional entries by name, such as the budget as text.
    """
    if rank_and_world()[0] != 0:
        return
    file = folder / ABOUT
    began = _beginnings(file)
    write_json(
        file,
        {
            "command": command,
            "line": command_line(),
            "begun": [*began, datetime.now().astimezone().isoformat(" ", "seconds")],
            **{name: plain(value) for name, value in more.items() if value},
            "weights": _option(options, "weights") or _option(options, "cfg"),
            "image_size": plain(context.image_size),
            "data": _data(start, context),
            "steps": [{"part": f"{p.step.verb}{p.name_suffix}", "words": p.step.describe()} for p in steps],
            "settings": plain(options),
            "machine": machine(context),
            "versions": versions(),
        },
    )


def command_line() -> str:
    """The command line as typed; "" for a run started from Python."""
    program = Path(sys.argv[0])
    ours = program.stem == "secateur" or program.parent.name == "secateur"
    return shlex.join(["secateur", *sys.argv[1:]]) if ours else ""


def machine(context: Context) -> dict[str, Any]:
    """Device, processor, threads and system."""
    import torch

    cuda = context.device.type == "cuda"
    name = torch.cuda.get_device_name(context.device) if cuda else str(context.device)
    return {"device": name, "processor": processor(), "threads": cpu_threads(), "system": platform.platform()}


def versions() -> dict[str, str]:
    """Versions of Secateur, Python and the installed packages that affect results."""
    found = {"secateur": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def plain(value: Any) -> Any:
    """Settings as JSON data, without the output location."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [entry.name for entry in dataclasses.fields(value) if entry.name != "place"]
        return {name: plain(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {str(name): plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(entry) for entry in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _option(options: Any, name: str) -> str:
    value = options.get(name, "") if isinstance(options, Mapping) else getattr(options, name, "")
    return str(value or "")


def _data(start: Checkpoint, context: Context) -> dict[str, Any]:
    """The data set: its file, the number of images per split, the classes; {} without a data set."""
    data = context.data or context.unlabelled
    if data is None:
        return {}
    family, splits = family_of(start), {}
    for name in ("train", "val"):
        if name in data.splits:
            splits[name] = len(family.split(data, name, objects=False))
    return {"file": str(Path(data.file).absolute()), "splits": splits, "classes": [str(n) for n in data.names.values()]}


def _beginnings(file: Path) -> list[str]:
    if not file.is_file():
        return []
    try:
        found = read_json(file)
    except UserError:
        return []
    return [str(time) for time in found.get("begun") or []] if isinstance(found, dict) else []
