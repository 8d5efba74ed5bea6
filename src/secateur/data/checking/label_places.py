"""Finds the label files of a split, in `labels` folders or next to the images; each folder is listed once."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from secateur.data.images import SUFFIXES
from secateur.data.labels import label_path

_SHOWN = 3  # names in a sentence
# Text files that tools create in folders of labels or images.
_NO_LABELS = frozenset({"classes", "labels", "names", "notes", "predefined_classes", "test", "train", "val"})


@dataclass(frozen=True)
class LabelFiles:
    """Locations of the labels of a split.

    Attributes:
        paths: label file of each image; None if there is none.
        folders: folders with label files of the split, grouped under a common folder, and the number of images with
            labels there; if no image has labels, the folders that were searched, with 0.
        remarks: notes for the user: labels in unusual or several places, shared by images, or without an image.
        unused: label files without an image.
    """

    paths: tuple[str | None, ...] = ()
    folders: tuple[tuple[str, int], ...] = ()
    remarks: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()


def find_label_files(files: Sequence[str], sources: Iterable[Path] = ()) -> LabelFiles:
    """Finds the label file of each image.

    For an image in a folder `images` (in any case), the label is searched in the same path with `labels` (in any case),
    then next to the image; the suffix may be `.txt` or `.TXT`.

    Args:
        files: images.
        sources: folders of the split; their label folders are searched at any depth for label files without an image.
    """
    search = _Search()
    paths = tuple(search.label_of(file) for file in files)
    unused = search.unused(source for source in sources if source.is_dir())
    remarks = (*search.remarks(), *_shared(files, paths), *_of_no_image(unused))
    return LabelFiles(paths, search.folders(), remarks, tuple(unused))


@dataclass(frozen=True)
class _Place:
    """A folder that may hold labels for the images of one folder.

    Attributes:
        folder: path.
        root: the folder `labels` that contains it; "" next to the images.
        usual: the usual folder for the labels of these images.
    """

    folder: str
    root: str
    usual: str


@dataclass
class _Listing:
    """Content of a folder: label files by stem, label files with duplicate stems, stems of images, folders.

    `listed` is False if the folder exists but cannot be listed.
    """

    labels: dict[str, str] = field(default_factory=dict)
    spare: list[str] = field(default_factory=list)
    images: set[str] = field(default_factory=set)
    folders: list[str] = field(default_factory=list)
    listed: bool = True


class _Search:
    """Folder listings, and where labels were found."""

    def __init__(self) -> None:
        self._listings: dict[str, _Listing] = {}
        self._places: dict[str, list[_Place]] = {}
        self._taken: dict[str, set[str]] = {}  # stems by label folder
        self._images_of: dict[str, set[str]] = {}  # folders of images by label folder
        self._found: Counter[_Place] = Counter()
        self._double: Counter[tuple[str, str]] = Counter()

    def label_of(self, file: str) -> str | None:
        """Label file of an image."""
        folder, name = os.path.split(file)
        stem = os.path.splitext(name)[0]  # noqa: PTH122
        places = self._places.get(folder)
        if places is None:
            places = self._places[folder] = self._places_of(folder)
        for number, place in enumerate(places):
            label = self._label_in(place.folder, stem)
            if label is None:
                continue
            self._taken.setdefault(place.folder, set()).add(stem)
            self._found[place] += 1
            other = next((p for p in places[number + 1 :] if self._label_in(p.folder, stem) is not None), None)
            if other is not None:
                self._double[place.folder, other.folder] += 1
            return os.path.join(place.folder, label)  # noqa: PTH118
        return None

    def folders(self) -> tuple[tuple[str, int], ...]:
        """See LabelFiles."""
        groups: dict[str, list[tuple[str, int]]] = {}
        for place, count in self._found.items():
            groups.setdefault(place.root, []).append((place.folder, count))
        if not groups:
            for places in self._places.values():
                groups.setdefault(places[0].root, []).append((places[0].folder, 0))
        return tuple((_around(name for name, _ in group), sum(n for _, n in group)) for group in groups.values())

    def remarks(self) -> list[str]:
        """Notes on labels in unusual places, or in two places."""
        unusual: dict[str, list[_Place]] = {}
        for place in self._found:
            if place.folder != place.usual:
                unusual.setdefault(place.root, []).append(place)
        said = []
        for places in unusual.values():
            count = sum(self._found[place] for place in places)
            where, usual = _around(place.folder for place in places), _around(place.usual for place in places)
            said.append(f"{_images(count)}: labels found in {where}, not in {usual}")
        if self._double:
            (first, second), _ = next(iter(self._double.items()))
            said.append(
                f"{_images(sum(self._double.values()))}: labels in {first} and in {second}; those in the first folder "
                "are used"
            )
        return said

    def unused(self, sources: Iterable[Path]) -> list[str]:
        """Label files without an image, in the folders with labels and below those of the sources."""
        for folder, places in self._places.items():
            for number, place in enumerate(places):
                # Text files next to images are only treated as labels if some labels are there.
                if place.folder in self._taken or (number == 0 and place.root):
                    self._images_of.setdefault(place.folder, set()).add(folder)
        for source in sources:
            self._add_folders_below(str(source))
        result = []
        for folder, images in sorted(self._images_of.items()):
            listing, taken = self._listing(folder), self._taken.get(folder, set())
            left = [
                name for stem, name in listing.labels.items() if stem not in taken and not self._is_of(stem, images)
            ]
            result += [os.path.join(folder, name) for name in sorted([*left, *listing.spare])]  # noqa: PTH118
        return result

    def _is_of(self, stem: str, folders: Iterable[str]) -> bool:
        """Whether a label file belongs to an image, possibly of another split, or is not a label file."""
        name = stem.lower()
        other = name in _NO_LABELS or name.startswith(("readme", "."))
        return other or any(stem in self._listing(folder).images for folder in folders)

    def _add_folders_below(self, source: str) -> None:
        for place in self._places_of(source):
            below = [(place.folder, source)] if place.root else []
            while below:
                folder, images = below.pop()
                self._images_of.setdefault(folder, set()).add(images)
                for name in self._listing(folder).folders:
                    path = os.path.join(folder, name)  # noqa: PTH118
                    if not os.path.islink(path):  # noqa: PTH114  (a link that leads back up would never end)
                        below.append((path, os.path.join(images, name)))  # noqa: PTH118

    def _places_of(self, folder: str) -> list[_Place]:
        """Possible locations of labels for the images of a folder: the usual one first, next to the images last."""
        usual = os.path.dirname(label_path(os.path.join(folder, "x.jpg")))  # noqa: PTH118, PTH120
        parts = folder.split(os.sep)  # noqa: PTH206
        found = []
        for number in reversed(range(len(parts))):
            if parts[number].lower() != "images":
                continue
            parent = os.sep.join(parts[:number]) or (os.sep if number else os.curdir)  # noqa: PTH118
            if usual == folder:  # no folder is called images in lower case
                usual = os.path.join(parent, "labels", *parts[number + 1 :])  # noqa: PTH118
            names = sorted(name for name in self._listing(parent).folders if name.lower() == "labels")
            roots = [os.path.join(parent, name) for name in reversed(names or ["labels"])]  # noqa: PTH118
            found += [(os.path.join(root, *parts[number + 1 :]), root) for root in roots]  # noqa: PTH118
        found.sort(key=lambda place: place[0] != usual)
        return [_Place(path, root, usual) for path, root in (*found, (folder, ""))]

    def _label_in(self, folder: str, stem: str) -> str | None:
        """Name of the label file for images of this stem in a folder."""
        listing = self._listing(folder)
        if listing.listed:
            return listing.labels.get(stem)
        name = f"{stem}.txt"
        return name if os.path.lexists(os.path.join(folder, name)) else None  # noqa: PTH118

    def _listing(self, folder: str) -> _Listing:
        known = self._listings.get(folder)
        if known is None:
            known = self._listings[folder] = _listing(folder)
        return known


def _listing(folder: str) -> _Listing:
    listing = _Listing()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                stem, suffix = os.path.splitext(entry.name)  # noqa: PTH122
                if entry.is_dir():
                    listing.folders.append(entry.name)
                elif suffix.lower() in SUFFIXES:
                    listing.images.add(stem)
                elif suffix.lower() == ".txt":
                    known = listing.labels.get(stem)
                    first, *rest = sorted(
                        {entry.name, known or entry.name}, key=lambda name: (name[-4:] != ".txt", name)
                    )
                    listing.labels[stem] = first
                    listing.spare += rest
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError:
        listing.listed = False
    return listing


def _around(folders: Iterable[str]) -> str:
    """The common parent folder, or the only folder."""
    places = list(folders)
    try:
        return os.path.commonpath(places)
    except ValueError:  # on two drives
        return places[0]


def _images(count: int) -> str:
    return f"{count} image{'' if count == 1 else 's'}"


def _shared(files: Sequence[str], paths: Sequence[str | None]) -> list[str]:
    """Note on images that share a label file."""
    users: dict[str, list[str]] = {}
    for file, path in zip(files, paths, strict=True):
        if path is not None:
            users.setdefault(path, []).append(file)
    shared = {path: sorted(set(images)) for path, images in users.items() if len(images) > 1}
    shared = {path: images for path, images in shared.items() if len(images) > 1}
    if not shared:
        return []
    said = [
        f"{' and '.join(os.path.basename(image) for image in images[:_SHOWN])} share the label file {path}"  # noqa: PTH119
        for path, images in list(shared.items())[:_SHOWN]
    ]
    return [f"{'; '.join(said)}{_more(len(shared))}"]


def _of_no_image(unused: Sequence[str]) -> list[str]:
    """Note on label files without an image."""
    if not unused:
        return []
    where = _around(os.path.dirname(path) for path in unused)  # noqa: PTH120
    names = ", ".join(os.path.relpath(path, where) for path in unused[:_SHOWN])
    files = "1 label file" if len(unused) == 1 else f"{len(unused)} label files"
    return [f"{files} in {where} without an image: {names}{_more(len(unused))}"]


def _more(count: int) -> str:
    return f" and {count - _SHOWN} more" if count > _SHOWN else ""
