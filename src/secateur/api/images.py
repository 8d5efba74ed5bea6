"""Image arguments of the API: files, folders, patterns, lists, arrays, tensors, PIL images."""

from __future__ import annotations

import glob
import logging
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image as Pillow
from PIL import ImageOps

from secateur.data.config import DataConfig, unlabelled_images
from secateur.data.images import Image, ImageError
from secateur.errors import UserError, shown
from secateur.files import usable_path
from secateur.prediction.media import read_image
from secateur.prediction.sources import find_media
from secateur.prediction.streams import MediumError

logger = logging.getLogger("secateur")

Source = Any
"""str | Path | NDArray[uint8] | torch.Tensor | PIL.Image.Image, or an iterable of these, nested to any depth."""
_KINDS = "a path, a NumPy array, a torch tensor, a PIL image, or a list of these"
_IN_MEMORY = Path("images in memory")  # one name for all, so that a new check replaces the cache of the last one


def is_one(source: Source) -> bool:
    """Whether a source is one image; folders, patterns, `.txt` lists, lists and batches are several."""
    if isinstance(source, str | Path):
        return not _names_several(source)
    if isinstance(source, np.ndarray | torch.Tensor):
        return source.ndim != 4
    return isinstance(source, Pillow.Image)


def each_image(source: Source, *, rgb: bool = False) -> Iterator[Image]:
    """The images of a source, BGR uint8 [H, W, 3]; one is in memory at a time.

    Args:
        source: files, folders (searched recursively), patterns and `.txt` lists; arrays uint8 [H, W, 3] (BGR), [H, W,
            4] (alpha is ignored), [H, W] (grey) or a batch [N, H, W, 3]; tensors [3, H, W] or [1, H, W] or a batch of
            them, RGB, uint8 or floating point in 0..1 (rounded to 8 bits); PIL images; iterables of all these.
        rgb: arrays are RGB.

    Raises:
        UserError: an image cannot be read, is empty, or has an unsupported shape, dtype or range.
        TypeError: a source has an unsupported type.
    """
    for part in _flat(source):
        if isinstance(part, str | Path):
            yield _read(str(part))
        else:
            yield _pixels(part, rgb)


@contextmanager
def described(source: Source, names: Mapping[int, str], *, rgb: bool = False) -> Iterator[DataConfig | None]:
    """An unlabelled data set from a source that `each_image` accepts, or from a data.yaml; None without a source.

    Images in memory are written as PNG to a temporary folder, which is removed on exit.
    """
    if source is None:
        yield None
        return
    if isinstance(source, str | Path):
        yield unlabelled_images(source, names)
        return
    with tempfile.TemporaryDirectory() as scratch:
        places: list[Path] = []
        folder = Path(scratch, "images")
        for number, part in enumerate(_flat(source, whole_names=True)):
            if isinstance(part, str | Path):
                places += _places(part, names)
                continue
            folder.mkdir(exist_ok=True)
            _write(folder / f"{number:06}.png", _pixels(part, rgb))
        if folder.exists():
            places.append(folder)
        if not places:
            raise UserError("The list of images is empty. Give at least one image.")
        file = _IN_MEMORY if folder.exists() else places[0]
        yield DataConfig(file, Path.cwd(), {"train": tuple(places)}, dict(names), labelled=False)


def _places(part: str | Path, names: Mapping[int, str]) -> tuple[Path, ...]:
    if Path(part).suffix.lower() in {".yaml", ".yml"}:
        raise UserError(f"{part} cannot be part of a list of images. Give the data.yaml on its own.")
    return unlabelled_images(part, names).splits["train"]


def _flat(source: Source, *, whole_names: bool = False) -> Iterator[Any]:
    """Single images and names of files, in order. With `whole_names`, names of folders and lists are not expanded."""
    if isinstance(source, str | Path):
        yield from [source] if whole_names or is_one(source) else _files(str(source))
    elif isinstance(source, np.ndarray | torch.Tensor) and source.ndim == 4:
        yield from source
    elif isinstance(source, np.ndarray | torch.Tensor | Pillow.Image):
        yield source
    elif isinstance(source, Iterable) and not isinstance(source, Mapping | bytes | bytearray):
        for part in source:
            yield from _flat(part, whole_names=whole_names)
    else:
        raise TypeError(f"{shown(source)} ({type(source).__name__}) is not an image. Give {_KINDS}.")


def _names_several(name: str | Path) -> bool:
    path = usable_path(name, expand=True)
    if path.exists():
        return path.is_dir() or path.suffix.lower() == ".txt"
    return glob.has_magic(str(name)) and "://" not in str(name)


def _files(name: str) -> list[str]:
    """The image files of a folder, a pattern or a list."""
    media = find_media([str(usable_path(name, expand=True))])
    images = [medium.address for medium in media if medium.kind == "image"]
    others = [medium for medium in media if medium.kind != "image"]
    if not images:
        raise UserError(f"There are no images in {name}. For videos and streams, use the command `secateur predict`.")
    if others:
        logger.warning(
            "%d of %s are skipped because they are not images, for example %s.", len(others), name, others[0]
        )
    return images


def _read(file: str) -> Image:
    if "://" in file:
        raise UserError(f"{file} is a URL. Use the command `secateur predict`, which reads URLs.")
    try:
        return read_image(str(usable_path(file, expand=True)))
    except (ImageError, MediumError) as reason:
        raise UserError(f"{file}: {reason}.") from None


def _pixels(image: Any, rgb: bool) -> Image:
    """The pixels of an image in memory: BGR uint8 [H, W, 3]."""
    if isinstance(image, torch.Tensor):
        return _of_tensor(image)
    return _of_pillow(image) if isinstance(image, Pillow.Image) else _of_array(image, rgb)


def _of_array(array: np.ndarray[Any, Any], rgb: bool) -> Image:
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise UserError(
            "An image array must be uint8 [H, W, 3] (BGR, or RGB with rgb=True) or [H, W] (grey), not "
            f"{array.dtype} {list(array.shape)}."
        )
    _check_sides(array.shape[:2], array.shape)
    if array.ndim == 2 or array.shape[2] == 1:
        return np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    colours = array[:, :, 2::-1] if rgb else array[:, :, :3]
    return np.ascontiguousarray(colours)


def _of_tensor(tensor: torch.Tensor) -> Image:
    kind = str(tensor.dtype).removeprefix("torch.")
    if tensor.ndim != 3 or tensor.shape[0] not in (1, 3) or not (tensor.is_floating_point() or kind == "uint8"):
        raise UserError(
            "An image tensor must be [3, H, W] (RGB) or [1, H, W] (grey), of uint8 or of floating point in "
            f"0..1, not {kind} {list(tensor.shape)}."
        )
    _check_sides(tensor.shape[1:], tensor.shape)
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point():
        tensor = tensor.float()
        least, most = float(tensor.min()), float(tensor.max())
        if not (least >= -1e-3 and most <= 1 + 1e-3):  # NaN fails both comparisons
            raise UserError(
                f"An image tensor of floating point must be in 0..1, not {least:g} to {most:g}. Divide by "
                "255, or remove the normalisation."
            )
        tensor = (tensor * 255).round().clamp(0, 255).to(torch.uint8)
    return _of_array(tensor.permute(1, 2, 0).numpy(), rgb=True)


def _of_pillow(image: Pillow.Image) -> Image:
    _check_sides((image.height, image.width), (image.height, image.width))
    if image.mode in ("I", "F"):
        raise UserError(f"A PIL image of mode {image.mode} has no defined value range. Convert it to L or RGB first.")
    try:  # PIL reads the file only now
        image = ImageOps.exif_transpose(image)
        deep = image.mode.startswith("I;16")
        pixels = (np.asarray(image) >> 8).astype(np.uint8) if deep else np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"Cannot read a PIL image ({error}).") from None
    return _of_array(pixels, rgb=True)


def _check_sides(sides: Iterable[int], shape: Iterable[int]) -> None:
    if not all(sides):
        raise UserError(f"An image is empty: its shape is {list(shape)}.")


def _write(file: Path, image: Image) -> None:
    done, content = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not done:
        raise UserError(f"Cannot write an image of {image.shape[1]} x {image.shape[0]} pixels as PNG.")
    try:
        file.write_bytes(content.tobytes())
    except OSError as error:
        raise UserError(
            f"Cannot write {file} ({error.strerror or error}). Set TMPDIR to a folder with more space."
        ) from None
