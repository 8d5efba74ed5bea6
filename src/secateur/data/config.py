"""Reads `data.yaml`: where the images of each split lie and what the classes are called; or takes images alone."""

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
_CONFIGS = Path(__file__).parent / "configs"  # descriptions of well-known data sets; their images lie with the user


@dataclass(frozen=True)
class DataConfig:
    """A data set: its YAML file, its root folder, the sources (folders, lists) of each split, the class names.

    Where it is not `labelled`, no label file is looked for, and `file` is the source of the images. Where rows of
    labels hold a box and key points, `kpt_shape` is their number and the values of each (2 or 3). Where it is
    `one_class`, every object counts as class 0, also where its label names another. Where it has some of the classes of
    another data set, `whole` is that one, whose files it reads.
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
        """The data set with only these classes, in this order: objects of others are background."""
        return replace(self, names={i: self.names[c] for i, c in enumerate(classes)}, whole=self)


def load_data_config(path: str | Path) -> DataConfig:
    """Reads a YOLO `data.yaml`.

    Names of data sets that are known here (coco.yaml, coco128.yaml) stand for their descriptions where there is no such
    file. A relative `path` is looked for in the YAML's folder first, then in the current folder. Folders of splits that
    are not used may be absent: `scan` complains when one is asked for.

    Raises:
        UserError: the file is missing or broken, has no splits, or `nc` and `names` disagree.
    """
    file, data = _read(path)
    root = _root(file, data.get("path"))
    splits = {name: _sources(file, root, name, data[name]) for name in SPLITS if data.get(name)}
    if not splits:
        raise UserError(f"Data file {file} names no images; give it train:, val: or test:.")
    return DataConfig(file=file, root=root, splits=splits, names=_names(file, data), kpt_shape=_kpt_shape(file, data))


def unlabelled_images(source: str | Path, names: Mapping[int, str]) -> DataConfig:
    """A data set without labels: its one split is "train", and label files next to the images are not read.

    Args:
        source: a folder (searched to any depth), a pattern ("shots/*.jpg", "shots/**/*.png"), a `.txt` list (its lines
            relative to the current folder, or to the list's), one image, or a data.yaml, of which the `train` split
            is taken and nothing else.
        names: class id -> name, as the detector knows them.

    Raises:
        UserError: the source does not exist, or it is a data.yaml that is broken or has no `train`. That there is no
            image in it is said by `scan`.
    """
    place = Path(os.path.abspath(usable_path(source, expand=True)))  # noqa: PTH100  (as above: links stay)
    if place.suffix.lower() in {".yaml", ".yml"}:
        file, data = _read(source)
        if not data.get("train"):
            raise UserError(f"Data file {file} names no images under train:; give the folder of the images instead.")
        root = _root(file, data.get("path"))
        sources = _sources(file, root, "train", data["train"])
        return DataConfig(file=file, root=root, splits={"train": sources}, names=dict(names), labelled=False)
    if not place.exists() and not glob.has_magic(str(place)):
        raise UserError(f"{source} does not exist; give a folder of images, a pattern, a .txt list or a data.yaml.")
    root = place if place.is_dir() else Path.cwd()
    return DataConfig(file=place, root=root, splits={"train": (place,)}, names=dict(names), labelled=False)


def _read(path: str | Path) -> tuple[Path, Mapping[str, Any]]:
    """The YAML file that a path or the name of a known data set stands for, and what it says."""
    file = usable_path(path)
    known = {entry.name: entry for entry in _CONFIGS.glob("*.yaml")}
    if not file.exists() and file.parent == Path() and file.name in known:
        file = known[file.name]
    if not file.exists():
        raise UserError(
            f"Data file {file} does not exist; give --data the path of a data.yaml, or {' or '.join(sorted(known))}."
        )
    data = read_yaml(file, "data file", texts=("names",), paths=("path", *SPLITS))
    if not isinstance(data, Mapping):
        raise UserError(f"Data file {file} is not a data set description; it needs the keys train, val and names.")
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
            f"The images of {file.name} are not here: put the data set into {place}, or give --data a copy of {file} "
            "with another path: in it."
        )
    raise UserError(
        f"Data file {file} has path: {shown(path)}, but there is no such folder next to the file or in {Path.cwd()}; "
        "correct it."
    )


def _sources(file: Path, root: Path, split: str, value: Any) -> tuple[Path, ...]:
    entries = value if isinstance(value, list) else [value]
    sources = []
    for entry in entries:
        if not isinstance(entry, str):
            raise UserError(
                f"Data file {file}: {split}: must be one or more folders or .txt lists, not {shown(entry)}."
            )
        # Exported data sets often say ../train/images where train/images is meant.
        names = [entry, entry[3:]] if entry.startswith("../") else [entry]
        candidates = [Path(os.path.normpath(root / usable_path(name, expand=True))) for name in names]
        sources.append(next((candidate for candidate in candidates if candidate.exists()), candidates[0]))
    return tuple(sources)


def _names(file: Path, data: Mapping[str, Any]) -> dict[int, str]:
    names, nc = data.get("names"), data.get("nc")
    if nc is not None and (not isinstance(nc, int) or isinstance(nc, bool) or not 1 <= nc <= MAX_CLASSES):
        raise UserError(
            f"Data file {file} has nc: {shown(nc)}; it must be the number of classes, 1 to {MAX_CLASSES:,}."
        )
    if names is None:
        if nc is None:
            raise UserError(f"Data file {file} has no names; add names: [first class, second class, ...].")
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
            hint = "put a name with ': ' in it in quotes" if isinstance(name, Mapping) else "correct it"
            raise UserError(f"Data file {file}: each of the names must be a word, not {shown(name)}; {hint}.")
        if not name.strip():
            raise UserError(f"Data file {file}: class {int(key)} has no name; give it one, or remove the entry.")
        if int(key) in named:
            raise UserError(
                f"Data file {file}: the class id {int(key)} is given twice in names, to {shown(named[int(key)])} and "
                f"{shown(name)}; give each class its own."
            )
        named[int(key)] = name
    _check_names(file, named, nc)
    return {i: named[i] for i in range(len(named))}


def _entries(file: Path, names: Any) -> list[tuple[str, Any]]:
    """Class ids, as written, and their names: of a list, a mapping, or a list of entries such as `- 0: cat`."""
    if isinstance(names, Mapping):
        return list(names.items())
    if not isinstance(names, list):
        return []
    single = [next(iter(entry.items())) for entry in names if isinstance(entry, Mapping) and len(entry) == 1]
    if names and len(single) == len(names) and all(key.isdecimal() for key, _ in single):
        return single
    return [(str(number), name) for number, name in enumerate(names)]


def _check_names(file: Path, names: Mapping[int, str], nc: int | None) -> None:
    """Refuses ids with gaps, another number of names than `nc`, and two classes of one name."""
    if set(names) != set(range(len(names))):
        missing, last = next(i for i in range(len(names)) if i not in names), len(names) - 1
        raise UserError(
            f"Data file {file}: the class ids in names must be 0 to {last} without gaps; {missing} is missing."
        )
    if nc is not None and nc != len(names):
        raise UserError(f"Data file {file} has nc: {nc} but {len(names)} names; make them agree.")
    ids: dict[str, int] = {}
    for i in sorted(names):
        if names[i] in ids:
            raise UserError(
                f"Data file {file} calls class {ids[names[i]]} and class {i} both {shown(names[i])}; "
                "give each class a name of its own."
            )
        ids[names[i]] = i


def _kpt_shape(file: Path, data: Mapping[str, Any]) -> tuple[int, int] | None:
    value = data.get("kpt_shape")
    if value is None:
        return None
    whole = isinstance(value, list) and all(isinstance(entry, int) and not isinstance(entry, bool) for entry in value)
    if not whole or len(value) != 2 or not 1 <= value[0] <= 10_000 or value[1] not in (2, 3):
        raise UserError(
            f"Data file {file} has kpt_shape: {shown(value)}; it must be the number of key points and 2 or 3, the "
            "values of each, [17, 3] for example."
        )
    return value[0], value[1]
