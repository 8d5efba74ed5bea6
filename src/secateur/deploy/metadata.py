"""Metadata of exported files: the keys of YOLOv5's exports, and additional ones."""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from secateur.deploy.settings import OUTPUTS
from secateur.errors import UserError
from secateur.families.loading import FIRST_KIND
from secateur.limits import MAX_CLASSES
from secateur.yaml_files import parse_yaml, read_yaml

FILE = "metadata.yaml"
"""Metadata file of an export folder."""
_MARKS = ("single_cls", "narrowed")
"""Keys that are written only if they are true."""
_LONGEST = 80
"""Longest text kept from the metadata of a foreign file, in characters."""


@dataclass(frozen=True)
class Metadata:
    """Metadata of an exported file.

    Attributes:
        names: class id -> name; of a foreign file only those that it states.
        strides: stride of each level in pixels; of a foreign file possibly only the largest.
        size: height and width of the image; None if any multiple of the stride is accepted.
        batch: batch size; 0 if it is dynamic.
        channels: channels of the image.
        family: family of the network.
        output: kind of output, see `families.outputs.Form`.
        precision: "fp32", "fp16" or "int8".
        single_cls: whether all classes of the data set were merged into one.
        narrowed: whether the network has only some of the classes that it was trained on.
        told: all other entries as plain data, for the family and for people.
        own: whether this package wrote the file; other files are recognised by their outputs.
        task: task stated by a foreign file: "detect", "segment"; "" if it states none.
        classes: number of classes that it states; 0 if it states none.
        suppressed: whether it states that non-maximum suppression is inside.
        title: title stated by a foreign file.
    """

    names: dict[int, str] = field(default_factory=dict)
    strides: tuple[float, ...] = (32.0,)
    size: tuple[int, int] | None = None
    batch: int = 1
    channels: int = 3
    family: str = FIRST_KIND
    output: str = "decoded"
    precision: str = "fp32"
    single_cls: bool = False
    narrowed: bool = False
    told: Mapping[str, Any] = field(default_factory=dict)
    own: bool = field(default=False, compare=False)
    task: str = field(default="", compare=False)
    classes: int = field(default=0, compare=False)
    suppressed: bool = field(default=False, compare=False)
    title: str = field(default="", compare=False)

    @property
    def stated(self) -> int:
        """Number of classes that the file states; 0 if it states none."""
        return len(self.names) or self.classes

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON and YAML."""
        return {
            **self.told,
            "family": self.family,
            "names": {int(index): str(name) for index, name in self.names.items()},
            "nc": len(self.names),
            "stride": int(max(self.strides, default=1)),
            "strides": [float(stride) for stride in self.strides],
            "imgsz": list(self.size or ()),
            "batch": self.batch,
            "channels": self.channels,
            "output": self.output,
            "precision": self.precision,
            **{name: True for name in _MARKS if getattr(self, name)},
        }

    def to_text(self) -> dict[str, str]:
        """Every value as text, for formats whose metadata is text only."""
        return {key: value if isinstance(value, str) else str(value) for key, value in self.to_dict().items()}

    def to_json(self) -> str:
        """JSON text."""
        return json.dumps(self.to_dict())

    @staticmethod
    def of_json(text: str | bytes) -> Metadata:
        """The inverse of `to_json`. Invalid JSON gives empty metadata."""
        try:
            return Metadata.read(json.loads(text))
        except (ValueError, RecursionError):
            return Metadata()

    @staticmethod
    def of_yaml(text: str) -> Metadata:
        """The metadata in a `metadata.yaml`, the inverse of `to_dict` in YAML. Invalid YAML gives empty metadata."""
        try:
            data = parse_yaml(text, FILE)
        except UserError:
            return Metadata()
        # Aliases can expand a short file to a long text, so names that are not plain values are not expanded.
        names = data.get("names") if isinstance(data, Mapping) else None
        entries = list(names.values()) if isinstance(names, Mapping) else names if isinstance(names, list) else []
        if any(isinstance(entry, Mapping | list | set) for entry in entries):
            data = {**data, "names": None}
        return Metadata.read(data)

    @staticmethod
    def read(data: Any) -> Metadata:
        """The inverse of `to_dict` and `to_text`. Missing and invalid entries get their defaults.

        Nothing in it is executed.
        """
        known = {str(key): _value(value) for key, value in data.items()} if isinstance(data, Mapping) else {}
        usual = Metadata()
        names = known.get("names")
        names = dict(enumerate(names)) if isinstance(names, list | tuple) else names
        stride = _number(known.get("stride"))
        size = _numbers(known.get("imgsz"))
        batch, channels = _number(known.get("batch")), _number(known.get("channels"))
        return Metadata(
            names=_names(names),
            strides=_numbers(known.get("strides")) or ((stride,) if stride else usual.strides),
            size=(int(size[0]), int(size[1])) if len(size) == 2 else None,
            batch=int(batch) if batch is not None else usual.batch,
            channels=int(channels) if channels else usual.channels,
            family=_text(known.get("family")) or FIRST_KIND,
            output=_word(known.get("output"), OUTPUTS),
            precision=_word(known.get("precision"), ("fp32", "fp16", "int8")),
            own=known.get("output") in OUTPUTS,
            task=_text(known.get("task")),
            classes=int(_number(known.get("nc")) or 0),
            suppressed=_suppressed(known),
            title=_text(known.get("description")),
            **{name: known.get(name) is True for name in _MARKS},
            told={key: value for key, value in known.items() if key not in {*usual.to_dict(), *_MARKS}},
        )


def write_metadata(folder: Path, metadata: Metadata) -> None:
    """Writes the metadata file into a folder."""
    text = yaml.safe_dump(metadata.to_dict(), sort_keys=False, allow_unicode=True)
    (folder / FILE).write_text(text, encoding="utf-8")


def read_metadata(folder: Path) -> Metadata:
    """The metadata of a folder, which must contain the image size.

    Raises:
        UserError: the file is missing or invalid, or has no image size.
    """
    file = folder / FILE
    try:
        data = read_yaml(file)
    except UserError as error:
        raise UserError(f"Cannot read {FILE} in {folder}. Export the network again.") from error
    metadata = Metadata.read(data)
    if metadata.size is None:
        raise UserError(f"{file} does not contain the image size (imgsz). Export the network again.")
    return metadata


def _value(value: Any) -> Any:
    """The value of a text that is a Python or JSON literal; otherwise the text itself."""
    if not isinstance(value, str):
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return value


def _names(value: Any) -> dict[int, str]:
    if not isinstance(value, Mapping) or len(value) > MAX_CLASSES:
        return {}
    try:
        return {int(index): str(name) for index, name in value.items()}
    except (ValueError, TypeError, OverflowError):
        return {}


def _number(value: Any) -> float | None:
    """A finite, non-negative number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value < 1e6 and math.isfinite(value) else None


def _numbers(value: Any) -> tuple[float, ...]:
    """Positive numbers; empty if one of them is not positive."""
    found = tuple(_number(entry) for entry in value) if _is_list(value) else ()
    return tuple(number for number in found if number) if all(found) else ()


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _word(value: Any, choices: tuple[str, ...]) -> str:
    return value if value in choices else choices[0]


def _text(value: Any) -> str:
    return " ".join(value.split())[:_LONGEST] if isinstance(value, str) else ""


def _suppressed(known: Mapping[str, Any]) -> bool:
    """Whether a foreign file states that its outputs are boxes after suppression, directly or in its export options."""
    options = known.get("args")
    told = [known, options] if isinstance(options, Mapping) else [known]
    return any(entry.get(key) is True for entry in told for key in ("nms", "end2end"))
