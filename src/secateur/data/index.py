"""Checks every image and label of a split once, in parallel, and keeps the result in a cache."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from secateur.data.config import DataConfig
from secateur.data.images import ImageError, check_image, fold_remarks, list_images
from secateur.data.labels import LabelError, Labels, find_class_line, label_path, read_labels
from secateur.errors import UserError
from secateur.files import atomic_write
from secateur.machine import granted_cpus

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
_FORMAT = "1"  # part of every signature: raise it when the meaning of the cached arrays changes
_ARRAYS = ("shapes", "labels", "offsets", "points", "point_offsets")
_SHOWN = 10  # problems printed before "and n more"


@dataclass(frozen=True)
class Counts:
    """Images with labels (found), without a label file (missing), with an empty one (empty), left out (corrupt);
    rows that were there twice and were removed (duplicate)."""

    found: int = 0
    missing: int = 0
    empty: int = 0
    corrupt: int = 0
    duplicate: int = 0


@dataclass(frozen=True)
class Index:
    """The usable images of one split with their objects, as flat arrays.

    files: paths [n]; shapes: int32 [n,2] (height, width) as displayed; labels: float32 [m,5] (class, xywh normalised);
    offsets: int64 [n+1], image i has rows offsets[i]:offsets[i+1]; points: float32 [p,2] outlines (normalised), those
    of row j are point_offsets[j]:point_offsets[j+1] (none where the label was a box).
    """

    files: tuple[str, ...]
    shapes: NDArray[np.int32]
    labels: Floats
    offsets: Integers
    counts: Counts
    problems: tuple[str, ...]
    signature: str
    points: Floats = field(default_factory=lambda: np.zeros((0, 2), np.float32))
    point_offsets: Integers = field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.files)

    def labels_of(self, i: int) -> Floats:
        """View [k,5] of the objects of image i."""
        return self.labels[self.offsets[i] : self.offsets[i + 1]]

    def select(self, chosen: Sequence[int] | Integers) -> Index:
        """The index of some of the images, in the given order."""
        chosen = np.asarray(chosen, np.int64)
        rows = [np.arange(self.offsets[i], self.offsets[i + 1]) for i in chosen]
        row = np.concatenate(rows) if rows else np.zeros(0, np.int64)
        outlined = len(self.point_offsets) > 0
        points = [self.points[self.point_offsets[j] : self.point_offsets[j + 1]] for j in row] if outlined else []
        return replace(
            self,
            files=tuple(self.files[i] for i in chosen),
            shapes=self.shapes[chosen],
            labels=self.labels[row],
            offsets=_offsets([len(r) for r in rows]),
            signature=hashlib.blake2b(self.signature.encode() + chosen.tobytes(), digest_size=16).hexdigest(),
            points=np.concatenate([np.zeros((0, 2), np.float32), *points]),
            point_offsets=_offsets([len(p) for p in points]) if outlined else self.point_offsets,
        )


@dataclass(frozen=True)
class _Checked:
    """What the check of one image gave; labels is None where the image is left out."""

    shape: tuple[int, int] = (0, 0)
    labels: Labels | None = None
    has_file: bool = False
    problems: tuple[str, ...] = ()


def scan(
    config: DataConfig, split: str, *, single_cls: bool = False, cache: bool = True, progress: bool = True
) -> Index:
    """Checks a split, or takes the result of an earlier check if no file has changed since (by size and time).

    The cache lies beside the label folder or, where that cannot be written, in the user's cache folder; that of
    pictures without labels lies only there. Broken images and labels are left out and named in `problems`; with
    `progress` a bar and the problems are shown on stderr.

    Raises:
        UserError: no such split or folder, nothing usable in it, a label file that is no text, a class id without name.
    """
    if split not in config.splits:
        have = ", ".join(config.splits)
        raise UserError(f"Data file {config.file} has no split '{split}'; it has {have}.")
    files = list_images(config.splits[split], config.root)
    places = ", ".join(str(source) for source in config.splits[split])
    if not files:
        if not config.labelled:
            raise UserError(f"There are no pictures in {places}; their names end in .jpg, .png, .bmp, .tif or .webp.")
        raise UserError(f"The data set is empty: there are no images in {places} (split {split} of {config.file}).")
    signature = _signature(files, config.labelled)
    caches = _cache_files(files, split, config) if cache else []
    classes = sys.maxsize if single_cls else config.nc
    index = next((found for place in caches if (found := _load(place, signature, files, classes)) is not None), None)
    if index is None:
        index = _check(files, signature, split, config.labelled, progress)
        if len(index):
            _save(index, caches)
    console = Console(stderr=True, quiet=not progress, highlight=False, soft_wrap=True)
    _say(index, split, config.labelled, console)
    if not len(index):
        reason = index.problems[0] if index.problems else "no image can be used"
        if not config.labelled:
            raise UserError(f"None of the {len(files)} pictures in {places} can be used; for example {reason}.")
        raise UserError(f"The data set has no usable image in {places} (split {split}); for example {reason}.")
    if single_cls:
        labels = index.labels.copy()
        labels[:, 0] = 0
        return replace(index, labels=labels)
    _check_classes(index, config)
    return index


def content_signature(index: Index) -> str:
    """What a split holds, as a short text: labels, outlines, names and sizes of image files.

    Unlike `Index.signature` it does not depend on where the data set lies nor on when its files were written, so it
    tells whether a result that was computed before still belongs to the same data.
    """
    digest = hashlib.blake2b(digest_size=16)
    for array in (index.shapes, index.labels, index.offsets, index.points, index.point_offsets):
        digest.update(f"{array.dtype.str}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    root = os.path.commonpath([os.path.dirname(file) for file in index.files]) if index.files else ""  # noqa: PTH120
    for file in index.files:
        try:
            size = os.stat(file).st_size  # noqa: PTH116
        except OSError:
            size = -1
        digest.update(f"{os.path.relpath(file, root)}\0{size}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _check(files: list[str], signature: str, split: str, labelled: bool, progress: bool) -> Index:
    # OpenCV releases the interpreter while it decodes, so threads use all cores and nothing is pickled.
    with ThreadPoolExecutor(min(32, granted_cpus() + 1)) as pool:
        console = Console(stderr=True)
        hidden = not (progress and console.is_terminal)
        results = pool.map(partial(_check_one, labelled=labelled), files)
        try:
            checked = list(
                track(results, f"Checking {split}", len(files), console=console, transient=True, disable=hidden)
            )
        except UserError:
            pool.shutdown(cancel_futures=True)
            raise
    usable = [(file, result.shape, result.labels) for file, result in zip(files, checked, strict=True) if result.labels]
    labels = [entry[2] for entry in usable]
    outlines = [outline for entry in labels for outline in entry.outlines]
    counts = Counts(
        found=sum(len(entry.rows) > 0 for entry in labels),
        missing=sum(result.labels is not None and not result.has_file for result in checked),
        empty=sum(result.labels is not None and result.has_file and not len(result.labels.rows) for result in checked),
        corrupt=len(files) - len(usable),
        duplicate=sum(entry.duplicates for entry in labels),
    )
    return Index(
        files=tuple(entry[0] for entry in usable),
        shapes=np.array([entry[1] for entry in usable], np.int32).reshape(-1, 2),
        labels=np.concatenate([np.zeros((0, 5), np.float32), *(entry.rows for entry in labels)]),
        offsets=_offsets([len(entry.rows) for entry in labels]),
        counts=counts,
        problems=fold_remarks(problem for result in checked for problem in result.problems),
        signature=signature,
        points=np.concatenate([np.zeros((0, 2), np.float32), *outlines]),
        point_offsets=_offsets([len(outline) for outline in outlines]),
    )


def _check_one(file: str, *, labelled: bool) -> _Checked:
    problems: list[str] = []
    try:
        height, width, remark = check_image(file)
    except ImageError as error:
        return _Checked(problems=(f"{file}: {error}; left out",))
    if remark:
        problems.append(f"{file}: {remark}")
    nothing = Labels(np.zeros((0, 5), np.float32), (), 0)
    if not labelled:
        return _Checked((height, width), nothing, False, tuple(problems))
    path = label_path(file)
    try:
        labels = read_labels(path)
    except (FileNotFoundError, NotADirectoryError):
        return _Checked((height, width), nothing, False, tuple(problems))
    except (LabelError, OSError) as error:
        return _Checked(problems=(*problems, f"{path}: {error}; the image is left out"))
    if labels.duplicates:
        problems.append(f"{path}: {labels.duplicates} duplicate rows removed")
    return _Checked((height, width), labels, True, tuple(problems))


def _check_classes(index: Index, config: DataConfig) -> None:
    ids = index.labels[:, 0]
    wrong = np.flatnonzero((ids < 0) | (ids >= config.nc))
    if not len(wrong):
        return
    path = label_path(index.files[int(np.searchsorted(index.offsets, wrong[0], side="right")) - 1])
    line, class_id = find_class_line(path, config.nc)
    raise UserError(
        f"Label file {path}, line {line} has class id {class_id}, but {config.file} has {config.nc} names "
        f"(ids 0 to {config.nc - 1}); correct the label or add the name."
    )


def _say(index: Index, split: str, labelled: bool, console: Console) -> None:
    counts = index.counts
    if labelled:
        parts = [f"{len(index)} images", f"{len(index.labels)} objects"]
        background = counts.missing + counts.empty
        parts += [f"{background} without objects"] if background else []
    else:
        parts = [f"{len(index)} pictures, labels not read"]
    parts += [f"{counts.corrupt} left out"] if counts.corrupt else []
    console.print(f"{split}: {', '.join(parts)}", markup=False)
    for problem in index.problems[:_SHOWN]:
        console.print(f"  {problem}", markup=False)
    if len(index.problems) > _SHOWN:
        console.print(f"  and {len(index.problems) - _SHOWN} more", markup=False)


def _offsets(lengths: Sequence[int]) -> Integers:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(np.asarray(lengths, np.int64), dtype=np.int64)])


def _signature(files: list[str], labelled: bool) -> str:
    digest = hashlib.blake2b((_FORMAT if labelled else f"{_FORMAT} pictures").encode(), digest_size=16)
    for file in files:
        for path in (file, label_path(file)) if labelled else (file,):
            try:
                status = os.stat(path)  # noqa: PTH116
                digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode(errors="surrogateescape"))
            except OSError:
                digest.update(f"{path}\0-\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _cache_files(files: list[str], split: str, config: DataConfig) -> list[Path]:
    folder = Path(label_path(files[0]) if config.labelled else files[0]).parent
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    kind = "" if config.labelled else "\0pictures"
    key = hashlib.blake2b(f"{config.file}\0{split}{kind}".encode(errors="surrogateescape"), digest_size=8).hexdigest()
    places = [home / "secateur" / "index" / f"{folder.name}-{split}-{key}.npz"]
    # Beside labels a cache is where it is looked for; a folder of somebody's pictures is left as it is.
    if config.labelled and folder.is_dir() and os.access(folder.parent, os.W_OK):
        places.insert(0, folder.parent / f"{folder.name}.{split}.secateur.npz")
    return places


def _save(index: Index, places: list[Path]) -> None:
    text = {"files": index.files, "counts": asdict(index.counts), "problems": index.problems}
    # ASCII escapes keep file names that are no valid UTF-8.
    packed = np.frombuffer(json.dumps(text, ensure_ascii=True).encode(), np.uint8)
    arrays = {name: getattr(index, name) for name in _ARRAYS}
    for place in places:
        try:
            with atomic_write(place) as temporary, temporary.open("wb") as stream:
                np.savez(stream, text=packed, signature=np.array(index.signature), **arrays)
            return
        except UserError:
            continue  # a cache that cannot be written costs only time


def _load(place: Path, signature: str, files: Sequence[str], classes: int) -> Index | None:
    """What is cached of these files; None where nothing is, or no index of them: data sets travel with their caches."""
    try:
        with zipfile.ZipFile(place) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > place.stat().st_size:
                return None  # ours are not compressed: this one would grow
        with np.load(place, allow_pickle=False) as data:
            if str(data["signature"]) != signature:
                return None
            text = json.loads(data["text"].tobytes())
            index = Index(
                files=tuple(text["files"]),
                counts=Counts(**text["counts"]),
                problems=tuple(map(str, text["problems"])),
                signature=signature,
                **{name: data[name] for name in _ARRAYS},
            )
        return index if _is_sound(index, files, classes) else None
    except Exception:  # a damaged cache, whatever is wrong with it, is made anew
        return None


def _is_sound(index: Index, files: Sequence[str], classes: int) -> bool:
    """Whether all that an index says of its arrays holds, and it speaks of these files alone."""
    rows, points = len(index.labels), len(index.points)
    return (
        set(index.files) <= set(files)
        and index.shapes.shape == (len(index), 2)
        and index.labels.shape == (rows, 5)
        and index.points.shape == (points, 2)
        and _are_within(index.labels[:, :1], classes - 1)
        and not (index.labels[:, 0] % 1).any()
        and _are_within(index.labels[:, 1:], 1)
        and _are_within(index.points, 1)
        and len(index.offsets) == len(index) + 1
        and _are_offsets(index.offsets, rows)
        and len(index.point_offsets) in (0, rows + 1)
        and (not len(index.point_offsets) or _are_offsets(index.point_offsets, points))
    )


def _are_within(values: Floats, most: float) -> bool:
    return bool(((values >= 0) & (values <= most)).all())  # neither holds for NaN


def _are_offsets(offsets: Integers, count: int) -> bool:
    whole = np.issubdtype(offsets.dtype, np.integer) and offsets.ndim == 1
    return bool(whole and offsets[0] == 0 and offsets[-1] == count and (np.diff(offsets) >= 0).all())
