"""Reads `data.yaml`: image folders of each split and class names; also wraps images without labels."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from secateur.errors import UserError, shown
from secateur.files import usable_path
from secateur.limits import MAX_CLASSES
from secateur.yaml_files import read_yaml

SPLITS = ("train", "val", "test")
_MOST_DIGITS = 9  # of a class id
_CONFIGS = Path(__file__).parent / "configs"  # descriptions of well-known data sets, without the images


@dataclass(frozen=True)
class DataConfig:
    """A data set: its YAML file, its root folder, the sources (folders, lists) of each split, and the class names.

    If it is not `labelled`, label files are not searched, and `file` is the source of the images. If label rows hold a
    box and key points, `kpt_shape` is their number and the values per key point (2 or 3). If it is `one_class`, every
    object has class 0, independent of its label. If it has only some of the classes of another data set, `whole` is
    that data set, whose files it reads.
    """

    file: Path
    root: Path
    splits: dict[str, tuple[Path, ...]]
    names: dict[int, str]
    labelled: bool = True
    kpt_shape: tuple[int, int] | None = None
    one_class: bool = False
    whole: DataConfig | None = None

    @property
    def nc(self) -> int:
        """Number of classes."""
        return len(self.names)

    def with_classes(self, classes: Sequence[int]) -> DataConfig:
        """The data set with only these classes, in this order; objects of other classes become background."""
        return replace(self, names={i: self.names[c] for i, c in enumerate(classes)}, whole=self)


def load_data_config(path: str | Path) -> DataConfig:
    """Reads a YOLO `data.yaml`.

    Names of built-in data sets (coco.yaml, coco128.yaml) are resolved if there is no such file. A relative `path` is
    searched in the folder of the YAML file first, then in the current folder. Folders of unused splits may be missing;
    `scan` reports them when they are needed.

    Raises:
        UserError: the file is missing or damaged, has no splits, or `nc` and `names` are inconsistent.
    """
    file, data = _read(path)
    root = _root(file, data.get("path"))
    splits = {name: _sources(file, root, name, data[name]) for name in SPLITS if data.get(name)}
    if not splits:
        raise UserError(f"Data file {file} has no images. Add train:, val: or test:.")
    return DataConfig(file=file, root=root, splits=splits, names=_names(file, data), kpt_shape=_kpt_shape(file, data))


def unlabelled_images(source: str | Path, names: Mapping[int, str]) -> DataConfig:
    """A data set without labels: its only split is "train", and label files next to the images are ignored.

    Args:
        source: a folder (searched at any depth), a pattern ("shots/*.jpg", "shots/**/*.png"), a `.txt` list (with paths
            relative to the current folder or to the list), one image, or a data.yaml, of which only the split `train`
            is used.
        names: class id -> name, of the detector.

    Raises:
        UserError: the source does not exist, or is a data.yaml that is damaged or has no `train`. `scan` reports a
            source without images.
    """
    place = Path(os.path.abspath(usable_path(source, expand=True)))  # noqa: PTH100  (as above: links stay)
    if place.suffix.lower() in {".yaml", ".yml"}:
        file, data = _read(source)
        if not data.get("train"):
            raise UserError(f"Data file {file} has no images under train:. Set the folder of the images instead.")
        root = _root(file, data.get("path"))
        sources = _sources(file, root, "train", data["train"])
        return DataConfig(file=file, root=root, splits={"train": sources}, names=dict(names), labelled=False)
    if not place.exists() and not glob.has_magic(str(place)):
        raise UserError(f"{source} does not exist. Set a folder of images, a pattern, a .txt list or a data.yaml.")
    root = place if place.is_dir() else Path.cwd()
    return DataConfig(file=place, root=root, splits={"train": (place,)}, names=dict(names), labelled=False)


def _read(path: str | Path) -> tuple[Path, Mapping[str, Any]]:
    """The YAML file of a path or built-in name, and its content."""
    file = usable_path(path)
    known = {entry.name: entry for entry in _CONFIGS.glob("*.yaml")}
    if not file.exists() and file.parent == Path() and file.name in known:
        file = known[file.name]
    if not file.exists():
        raise UserError(
            f"Data file {file} does not exist. Set --data to the path of a data.yaml, or to "
            f"{' or '.join(sorted(known))}."
        )
    data = read_yaml(file, "data file", texts=("names",), paths=("path", *SPLITS))
    if not isinstance(data, Mapping):
        raise UserError(f"Data file {file} is not a data set description. It needs the keys train, val and names.")
    file = Path(os.path.abspath(file))  # noqa: PTH100  (Path.resolve would follow links that the user laid on purpose)
    return file, data


def _root(file: Path, path: Any) -> Path:
    if path in (None, ""):
        return file.parent
    folder = usable_path(str(path), expand=True)
    if folder.is_absolute():
        return folder
    shipped = file.parent == _CONFIGS
    for base in (Path.cwd(),) if shipped else (file.parent, Path.cwd()):
        if (base / folder).is_dir():
            return Path(os.path.normpath(base / folder))
    if shipped:
        place = os.path.normpath(Path.cwd() / folder)
        raise UserError(
            f"The images of {file.name} were not found. Put the data set into {place}, or set --data to a copy of "
            f"{file} with another path: in it."
        )
    raise UserError(
        f"Data file {file} has path: {shown(path)}, but there is no such folder next to the file or in {Path.cwd()}. "
        "Correct it."
    )


def _sources(file: Path, root: Path, split: str, value: Any) -> tuple[Path, ...]:
    entries = value if isinstance(value, list) else [value]
    sources = []
    for entry in entries:
        if not isinstance(entry, str):
            raise UserError(
                f"Data file {file}: {split}: must be one or more folders or .txt lists, not {shown(entry)}."
            )
        # Exported data sets often have ../train/images instead of train/images.
        names = [entry, entry[3:]] if entry.startswith("../") else [entry]
        candidates = [Path(os.path.normpath(root / usable_path(name, expand=True))) for name in names]
        sources.append(next((candidate for candidate in candidates if candidate.exists()), candidates[0]))
    return tuple(sources)


def _names(file: Path, data: Mapping[str, Any]) -> dict[int, str]:
    names, nc = data.get("names"), data.get("nc")
    if nc is not None and (not isinstance(nc, int) or isinstance(nc, bool) or not 1 <= nc <= MAX_CLASSES):
        raise UserError(
            f"Data file {file} has nc: {shown(nc)}, but it must be the number of classes, 1 to {MAX_CLASSES:,}."
        )
    if names is None:
        if nc is None:
            raise UserError(f"Data file {file} has no names. Add names: [first class, second class, ...].")
        return {i: f"class{i}" for i in range(nc)}
    entries = _entries(file, names)
    if not 1 <= len(entries) <= MAX_CLASSES:
        raise UserError(
            f"Data file {file}: names must be a list, or a mapping from class id to name, of 1 to {MAX_CLASSES:,}."
        )
    named: dict[int, str] = {}
    for key, name in entries:
        if not (key.isascii() and key.isdecimal() and len(key) <= _MOST_DIGITS):
            raise UserError(
                f"Data file {file}: the class ids in names must be 0 to {len(entries) - 1} without gaps, "
                f"not {shown(key)}."
            )
        if isinstance(name, Mapping | list | set):
            hint = "Put a name that contains ': ' in quotes" if isinstance(name, Mapping) else "Correct it"
            raise UserError(f"Data file {file}: each of the names must be a word, not {shown(name)}. {hint}.")
        if not name.strip():
            raise UserError(f"Data file {file}: class {int(key)} has no name. Add one, or remove the entry.")
        if int(key) in named:
            raise UserError(
                f"Data file {file}: names has the class id {int(key)} twice, for {shown(named[int(key)])} and "
                f"{shown(name)}. Use a different id for each class."
            )
        named[int(key)] = name
    _check_names(file, named, nc)
    return {i: named[i] for i in range(len(named))}


def _entries(file: Path, names: Any) -> list[tuple[str, Any]]:
    """Class ids, as written, and names, from a list, a mapping, or a list of entries such as `- 0: cat`."""
    if isinstance(names, Mapping):
        return list(names.items())
    if not isinstance(names, list):
        return []
    single = [next(iter(entry.items())) for entry in names if isinstance(entry, Mapping) and len(entry) == 1]
    if names and len(single) == len(names) and all(key.isdecimal() for key, _ in single):
        return single
    return [(str(number), name) for number, name in enumerate(names)]


def _check_names(file: Path, names: Mapping[int, str], nc: int | None) -> None:
    """Rejects gaps in ids, a number of names that differs from `nc`, and duplicate names."""
    if set(names) != set(range(len(names))):
        missing, last = next(i for i in range(len(names)) if i not in names), len(names) - 1
        raise UserError(
            f"Data file {file}: the class ids in names must be 0 to {last} without gaps, but {missing} is missing."
        )
    if nc is not None and nc != len(names):
        raise UserError(f"Data file {file} has nc: {nc} but {len(names)} names. Correct one of them.")
    ids: dict[str, int] = {}
    for i in sorted(names):
        if names[i] in ids:
            raise UserError(
                f"Data file {file}: class {ids[names[i]]} and class {i} have the same name {shown(names[i])}. "
                "Use a different name for each class."
            )
        ids[names[i]] = i


def _kpt_shape(file: Path, data: Mapping[str, Any]) -> tuple[int, int] | None:
    value = data.get("kpt_shape")
    if value is None:
        return None
    whole = isinstance(value, list) and all(isinstance(entry, int) and not isinstance(entry, bool) for entry in value)
    if not whole or len(value) != 2 or not 1 <= value[0] <= 10_000 or value[1] not in (2, 3):
        raise UserError(
            f"Data file {file} has kpt_shape: {shown(value)}, but it must be the number of key points and 2 or 3, the "
            "values of each, for example [17, 3]."
        )
    return value[0], value[1]
