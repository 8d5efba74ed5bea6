"""Checks every image and label of a split once, in parallel, and caches the result."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from secateur.data.checking.cache import are_sound, load_arrays, save_arrays
from secateur.data.checking.each_image import Checked, check_images
from secateur.data.checking.key_points import key_points_of
from secateur.data.checking.label_places import LabelFiles, find_label_files
from secateur.data.config import DataConfig
from secateur.data.images import fold_remarks, list_images
from secateur.data.labels import find_class_line
from secateur.errors import UserError
from secateur.terminal import is_first_process

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
_FORMAT = "2"  # part of every signature; increase it when the meaning of the cached arrays changes
_ARRAYS = ("shapes", "labels", "offsets", "points", "point_offsets")
_SHOWN = 10  # problems printed before "and n more"


@dataclass(frozen=True)
class Counts:
    """Numbers of images with labels (found), without a label file (missing), with an empty label file (empty),
    skipped (corrupt); of duplicate rows that were removed (duplicate), clipped coordinates just outside the image
    (clipped), boxes of zero size that were ignored (flat), and label files without an image (unused)."""

    found: int = 0
    missing: int = 0
    empty: int = 0
    corrupt: int = 0
    duplicate: int = 0
    clipped: int = 0
    flat: int = 0
    unused: int = 0


@dataclass(frozen=True)
class Index:
    """The usable images of one split with their objects, as flat arrays.

    files: paths [n]; shapes: int32 [n, 2] (height, width) as displayed; labels: float32 [m, 5] (class, xywh
    normalised); offsets: int64 [n + 1], image i has rows offsets[i]:offsets[i+1]; points: float32 [p, 2] outlines
    (normalised), those of row j are point_offsets[j]:point_offsets[j+1] (none for boxes); problems: messages about
    single files, remarks: about the split; label_folders: see `LabelFiles.folders`.
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
    remarks: tuple[str, ...] = ()
    label_folders: tuple[tuple[str, int], ...] = ()

    def __len__(self) -> int:
        return len(self.files)

    def labels_of(self, i: int) -> Floats:
        """View [k, 5] of the objects of image i."""
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

    def of_classes(self, classes: Sequence[int]) -> Index:
        """The same images with only the objects of these classes, renumbered by position in the sequence."""
        place = {c: i for i, c in enumerate(classes)}
        kept = np.isin(self.labels[:, 0], list(place))
        rows = self.labels[kept].copy()
        rows[:, 0] = [place[int(c)] for c in rows[:, 0]]
        images = np.repeat(np.arange(len(self)), np.diff(self.offsets))
        lengths = np.bincount(images[kept], minlength=len(self))
        found = int((lengths > 0).sum())
        counts = replace(self.counts, found=found, empty=self.counts.empty + self.counts.found - found)
        index = replace(self, labels=rows, offsets=_offsets(lengths), counts=counts)
        if len(self.point_offsets):
            points = np.diff(self.point_offsets)
            index = replace(index, points=self.points[np.repeat(kept, points)], point_offsets=_offsets(points[kept]))
        return index


def scan(
    config: DataConfig,
    split: str,
    *,
    single_cls: bool = False,
    cache: bool = True,
    progress: bool = True,
    tell: bool = True,
    processes: bool = False,
) -> Index:
    """Checks a split, or uses the cached result if no file has changed since (by size and time).

    The cache is next to the label folder or, if that is not writable or there are no labels, in the cache folder of the
    user. Damaged images and labels are skipped and reported in `problems`. With `progress`, a progress bar is shown on
    stderr; with `tell`, a summary.

    Args:
        processes: check many images in processes instead of threads; see `check_images`.

    Raises:
        UserError: the split or folder does not exist or has no usable image, a label file is not text, a class id has
            no name, or there are key points without `kpt_shape`.
    """
    if split not in config.splits:
        have = ", ".join(config.splits)
        raise UserError(f"Data file {config.file} has no split '{split}'; it has {have}.")
    files = list_images(config.splits[split], config.root)
    places = ", ".join(str(source) for source in config.splits[split])
    if not files:
        if not config.labelled:
            raise UserError(f"There are no images in {places}. Supported: .jpg, .png, .bmp, .tif, .webp.")
        raise UserError(f"The data set is empty: there are no images in {places} (split {split} of {config.file}).")
    labels = find_label_files(files, config.splits[split]) if config.labelled else LabelFiles((None,) * len(files))
    signature = _signature(files, labels, config)
    caches = _cache_files(files, labels, split, config) if cache else []
    classes = sys.maxsize if single_cls else config.nc
    index = next((found for place in caches if (found := _load(place, signature, files, classes)) is not None), None)
    if index is None:
        index = _check(files, labels, signature, split, config, progress, processes)
        if len(index):
            _save(index, caches)
    counts = replace(index.counts, unused=len(labels.unused))
    index = replace(index, counts=counts, remarks=labels.remarks + index.remarks, label_folders=labels.folders)
    console = Console(
        stderr=True, quiet=not (progress and tell and is_first_process()), highlight=False, soft_wrap=True
    )
    _say(index, split, config.labelled, console)
    if not len(index):
        reason = index.problems[0] if index.problems else "no image can be used"
        if not config.labelled:
            raise UserError(f"None of the {len(files)} images in {places} can be used; for example {reason}.")
        raise UserError(f"The data set has no usable image in {places} (split {split}); for example {reason}.")
    if single_cls:
        rows = index.labels.copy()
        rows[:, 0] = 0
        return replace(index, labels=rows)
    _check_classes(index, dict(zip(files, labels.paths, strict=True)), config)
    return index


def without_objects(index: Index, split: str, config: DataConfig) -> str | None:
    """Message that no image of a split has an object, and where labels were searched; None if one has."""
    if len(index.labels):
        return None
    folders = [folder for folder, _ in index.label_folders]
    if index.counts.missing and Path(index.files[0]).parent not in map(Path, folders):
        folders.append("next to the images")
    example = f", for example {index.problems[0]}" if index.counts.corrupt else ""
    return (
        f"No image of split {split} ({config.file.name}) has an object. Labels were searched in "
        f"{' and '.join(folders)} ({_background(index.counts)}{example}). Put them there, or correct the paths"
    )


def few_objects(index: Index) -> str | None:
    """Warning that less than a tenth of the images have objects; None if more have, or none."""
    found = index.counts.found
    if not 0 < 10 * found < len(index):
        return None
    have = "1 has" if found == 1 else f"{found} have"
    return f"Warning: of {len(index)} images only {have} an object ({_background(index.counts)})."


def _background(counts: Counts) -> str:
    """Why images have no objects."""
    reasons = {
        "without label file": counts.missing,
        "with a label file without boxes": counts.empty,
        "skipped": counts.corrupt,
    }
    return " and ".join(f"{count} {reason}" for reason, count in reasons.items() if count)


def content_signature(index: Index) -> str:
    """Short text that identifies the content of a split: labels, outlines, and names and sizes of image files.

    Unlike `Index.signature`, it does not depend on the location of the data set or on file times, so it shows whether
    an earlier result belongs to the same data.
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


def _check(
    files: list[str],
    labels: LabelFiles,
    signature: str,
    split: str,
    config: DataConfig,
    progress: bool,
    processes: bool,
) -> Index:
    checked = check_images(files, labels.paths, config.kpt_shape, split, progress=progress, processes=processes)
    checked, remarks = _agreeing_on_confidences(checked)
    usable = [(file, result, result.labels) for file, result in zip(files, checked, strict=True) if result.labels]
    found = [entry[2] for entry in usable]
    outlines = [outline for entry in found for outline in entry.outlines]
    counts = Counts(
        found=sum(len(entry.rows) > 0 for entry in found),
        missing=sum(not result.label_file for _, result, _ in usable),
        empty=sum(bool(result.label_file) and not len(entry.rows) for _, result, entry in usable),
        corrupt=len(files) - len(usable),
        duplicate=sum(entry.duplicates for entry in found),
        clipped=sum(entry.clipped for entry in found),
        flat=sum(len(entry.flat) for entry in found),
    )
    index = Index(
        files=tuple(entry[0] for entry in usable),
        shapes=np.array([entry[1].shape for entry in usable], np.int32).reshape(-1, 2),
        labels=np.concatenate([np.zeros((0, 5), np.float32), *(entry.rows for entry in found)]),
        offsets=_offsets([len(entry.rows) for entry in found]),
        counts=counts,
        problems=fold_remarks(problem for result in checked for problem in result.problems),
        signature=signature,
        points=np.concatenate([np.zeros((0, 2), np.float32), *outlines]),
        point_offsets=_offsets([len(outline) for outline in outlines]),
        remarks=(*remarks, *_repairs(counts)),
    )
    _refuse_key_points(index, split, config)
    return index


def _repairs(counts: Counts) -> tuple[str, ...]:
    """Changes to label files and unused parts of them; `problems` lists the files."""
    clipped = f"coordinates just outside the image (-0.01 to 1.01), clipped: {counts.clipped}"
    flat = f"boxes of zero size, ignored: {counts.flat}"
    return tuple(text for count, text in ((counts.clipped, clipped), (counts.flat, flat)) if count)


def _agreeing_on_confidences(checked: list[Checked]) -> tuple[list[Checked], tuple[str, ...]]:
    """Treats the sixth values of all rows as confidences or none; otherwise images with rows of six values are
    skipped."""
    with_rows = [result.labels for result in checked if result.labels is not None and result.labels.has_rows]
    six = sum(bool(labels.six) for labels in with_rows)
    if not six:
        return checked, ()
    if six == len(with_rows):
        return checked, ("the sixth value of every row is treated as a confidence and ignored",)
    return [
        Checked(problems=(*result.problems, f"{result.label_file}: {result.labels.six}; the image is skipped"))
        if result.labels is not None and result.labels.six
        else result
        for result in checked
    ], ()


def _refuse_key_points(index: Index, split: str, config: DataConfig) -> None:
    lengths = np.diff(index.point_offsets)
    shape = None if config.kpt_shape else key_points_of(index.points, lengths[lengths > 0])
    if shape is None:
        return
    row = int(np.flatnonzero(lengths)[0])
    image = index.files[int(np.searchsorted(index.offsets, row, side="right")) - 1]
    raise UserError(
        f"The labels of split {split} (for example of {image}) are boxes with key points, not outlines. Add "
        f"kpt_shape: {list(shape)} to {config.file}."
    )


def _check_classes(index: Index, label_files: Mapping[str, str | None], config: DataConfig) -> None:
    ids = index.labels[:, 0]
    wrong = np.flatnonzero((ids < 0) | (ids >= config.nc))
    if not len(wrong):
        return
    path = label_files[index.files[int(np.searchsorted(index.offsets, wrong[0], side="right")) - 1]]
    assert path is not None  # it has rows
    line, class_id = find_class_line(path, config.nc)
    raise UserError(
        f"Label file {path}, line {line} has class id {class_id}, but {config.file} has {config.nc} names "
        f"(ids 0 to {config.nc - 1}). Correct the label or add the name."
    )


def _say(index: Index, split: str, labelled: bool, console: Console) -> None:
    counts = index.counts
    if labelled:
        parts = [f"{len(index)} images", f"{len(index.labels)} objects"]
        background = counts.missing + counts.empty
        parts += [f"{background} without objects"] if background else []
    else:
        parts = [f"{len(index)} images, labels ignored"]
    parts += [f"{counts.corrupt} skipped"] if counts.corrupt else []
    console.print(f"{split}: {', '.join(parts)}", markup=False)
    for remark in (few_objects(index) if labelled else None, *index.remarks):
        if remark:
            console.print(f"  {remark}", markup=False)
    for problem in index.problems[:_SHOWN]:
        console.print(f"  {problem}", markup=False)
    if len(index.problems) > _SHOWN:
        console.print(f"  and {len(index.problems) - _SHOWN} more", markup=False)


def _offsets(lengths: Sequence[int] | Integers) -> Integers:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(np.asarray(lengths, np.int64), dtype=np.int64)])


def _signature(files: list[str], labels: LabelFiles, config: DataConfig) -> str:
    kind = f"{_FORMAT} {config.kpt_shape}" if config.labelled else f"{_FORMAT} pictures"
    digest = hashlib.blake2b(kind.encode(), digest_size=16)
    for file, label_file in zip(files, labels.paths, strict=True):
        for path in (file, label_file):
            if path is None:
                digest.update(b"-\n")
                continue
            try:
                status = os.stat(path)  # noqa: PTH116
                digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode(errors="surrogateescape"))
            except OSError:
                digest.update(f"{path}\0-\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _cache_files(files: list[str], labels: LabelFiles, split: str, config: DataConfig) -> list[Path]:
    folder = Path(next((path for path in labels.paths if path is not None), files[0])).parent
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    kind = "" if config.labelled else "\0pictures"
    key = hashlib.blake2b(f"{config.file}\0{split}{kind}".encode(errors="surrogateescape"), digest_size=8).hexdigest()
    places = [home / "secateur" / "index" / f"{folder.name}-{split}-{key}.npz"]
    # A cache next to labels is common; a folder with only images is not changed.
    if any(labels.paths) and os.access(folder.parent, os.W_OK):
        places.insert(0, folder.parent / f"{folder.name}.{split}.secateur.npz")
    return places


def _save(index: Index, places: list[Path]) -> None:
    text = {name: getattr(index, name) for name in ("files", "problems", "remarks")}
    arrays = {name: getattr(index, name) for name in _ARRAYS}
    save_arrays(places, index.signature, {**text, "counts": asdict(index.counts)}, arrays)


def _load(place: Path, signature: str, files: Sequence[str], classes: int) -> Index | None:
    """The cached index of these files; None if there is none or it does not match, because data sets are copied with
    caches."""
    try:
        found = load_arrays(place, signature, _ARRAYS)
        if found is None:
            return None
        text, arrays = found
        if not (set(text["files"]) <= set(files) and are_sound(arrays, len(text["files"]), classes)):
            return None
        return Index(
            files=tuple(text["files"]),
            counts=Counts(**text["counts"]),
            problems=tuple(map(str, text["problems"])),
            remarks=tuple(map(str, text["remarks"])),
            signature=signature,
            **arrays,
        )
    except Exception:  # a damaged cache is created again
        return None
