"""Images and labels in the form that the package reads, label caches in memory, and a preserved number of threads."""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml

from secateur.data.labels import label_path
from secateur.errors import UserError
from secateur.families.ultralytics.package import installed_version, needed

LISTS = {"train": "train.txt", "val": "val.txt"}
_CACHES: dict[str, Any] = {}
"""Label caches of this process, by the path of the cache file that the package would write."""
_READS, _WRITES = "load_dataset_cache_file", "save_dataset_cache_file"


def described(folder: Path, splits: Mapping[str, Any], names: Mapping[int, str], **more: Any) -> Path:
    """Writes a data.yaml for images whose label files are where the package expects them.

    Args:
        folder: an empty folder, or that of an interrupted training.
        splits: "train" and "val". For splits with only some of the classes in their label files, the folder gets links
            to the images, and its own label files.
        more: other keys, such as kpt_shape.
    """
    folder, lists = Path(os.path.abspath(folder)), {}  # noqa: PTH100  (links stay)
    for name, split in splits.items():
        classes = getattr(split, "classes_in_files", None)
        files = split.index.files
        files = files if classes is None else _with_own_labels(folder, name, files, classes)
        lists[name] = str(folder / LISTS[name])
        Path(lists[name]).write_text("".join(f"{file}\n" for file in files), encoding="utf-8")
    file = folder / "data.yaml"
    file.write_text(yaml.safe_dump({"path": str(folder), **lists, "names": dict(names), **more}), encoding="utf-8")
    return file


def _with_own_labels(folder: Path, name: str, files: Sequence[str], classes: Sequence[int]) -> list[str]:
    """Links to images, next to label files with only some classes, renumbered by their index in the sequence."""
    images, labels = folder / "images" / name, folder / "labels" / name
    images.mkdir(parents=True, exist_ok=True)
    labels.mkdir(parents=True, exist_ok=True)
    number = {old: new for new, old in enumerate(classes)}
    links = []
    for place, file in enumerate(files):
        link = images / f"{place:06d}{Path(file).suffix}"
        if not link.exists():
            _link(Path(file), link)
        source = Path(label_path(file))
        text = source.read_text(encoding="utf-8") if source.is_file() else ""
        rows = [row.split(maxsplit=1) for row in text.splitlines() if row.strip()]
        kept = [f"{number[int(float(old))]} {rest}\n" for old, rest in rows if int(float(old)) in number]
        (labels / f"{link.stem}.txt").write_text("".join(kept), encoding="utf-8")
        links.append(str(link))
    return links


def folders_of_classes(folder: Path, files: Sequence[str], classes: Sequence[int], nc: int) -> Path:
    """Creates the folder structure that the package expects, with links to images: split folders with one folder per
    class.

    The folders are numbered by class, because class names may not be valid folder names.

    Args:
        folder: an empty folder.
        files: paths of images, for both train and val.
        classes: class of each image.
    """
    for split in LISTS:
        places = [folder / split / f"class-{number:06d}" for number in range(nc)]
        for place in places:
            place.mkdir(parents=True)
        for number, (file, kind) in enumerate(zip(files, classes, strict=True)):
            _link(Path(file), places[kind] / f"{number}{Path(file).suffix}")
    return folder


def _link(file: Path, place: Path) -> None:
    try:
        place.symlink_to(os.path.abspath(file))  # noqa: PTH100  (links stay)
    except OSError:  # on Windows, links need a privilege
        shutil.copyfile(file, place)


@contextmanager
def caches_in_memory() -> Iterator[None]:
    """Context in which the package neither reads nor writes label cache files, which are pickles next to the images.

    A data set could contain a malicious cache file. The caches are kept in the memory of this process.

    Raises:
        UserError: the installed version of the package caches labels differently.
    """
    module = needed("data.dataset")
    before = {name: getattr(module, name, None) for name in (_READS, _WRITES)}
    if None in before.values():
        raise UserError(
            f"The version {installed_version()} of the package ultralytics reads data sets in an unsupported way. "
            "Install a supported version: pip install 'ultralytics==8.4.190'."
        )

    def read(path: Any) -> Any:
        return copy.deepcopy(_CACHES[str(path)])

    def write(prefix: str, path: Any, found: Any, version: str) -> None:
        found["version"] = version  # the caller removes it again
        _CACHES[str(path)] = copy.deepcopy(found)

    setattr(module, _READS, read)
    setattr(module, _WRITES, write)
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(module, name, function)


@contextmanager
def kept_threads() -> Iterator[None]:
    """Restores the number of PyTorch threads on exit, because the package changes it."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
