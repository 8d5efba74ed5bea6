"""Images of every kind are read as a viewer shows them, and what is wrong with others is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from secateur.data.images import Image, ImageError, decode_image, read_image

# Left half red, the right half black with a green corner at the bottom.
RGB = np.zeros((40, 60, 3), np.uint8)
RGB[:, :30] = (200, 30, 40)
RGB[20:, 45:] = (10, 220, 60)
BGR = RGB[..., ::-1]
TURNED = {3: np.rot90(BGR, 2), 6: np.rot90(BGR, -1), 8: np.rot90(BGR)}


def decoded(file: Path) -> Image:
    image = decode_image(np.fromfile(file, np.uint8))
    assert (read_image(str(file)) == image).all()
    return image


def test_kinds_of_colour(tmp_path: Path) -> None:
    Pillow.fromarray(RGB).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    Pillow.fromarray(RGB).quantize(8).save(tmp_path / "palette.png")
    cv2.imwrite(str(tmp_path / "deep.png"), BGR.astype(np.uint16) * 257)
    cv2.imwrite(str(tmp_path / "deep.tif"), BGR.astype(np.uint16) * 257)
    alpha = np.full((40, 60, 1), 128, np.uint8)
    Pillow.fromarray(np.concatenate((RGB, alpha), 2)).save(tmp_path / "alpha.png")
    for name in ("cmyk.jpg", "palette.png", "deep.png", "deep.tif", "alpha.png"):
        image = decoded(tmp_path / name)
        assert image.shape == (40, 60, 3) and image.dtype == np.uint8, name
        for y, x in ((5, 5), (35, 55), (5, 55)):
            assert np.abs(image[y, x].astype(int) - BGR[y, x]).max() <= 6, (name, y, x)


@pytest.mark.parametrize(("mode", "depth"), [("L", np.uint8), ("deep", np.uint16), ("1", np.bool_)])
def test_grey(mode: str, depth: Any, tmp_path: Path) -> None:
    grey = np.where(RGB[..., 0] > 100, 255, 0).astype(np.uint8)
    if depth is np.uint16:
        cv2.imwrite(str(tmp_path / "grey.png"), grey.astype(np.uint16) * 257)
    else:
        Pillow.fromarray(grey).convert(mode).save(tmp_path / "grey.png")
    assert (decoded(tmp_path / "grey.png") == grey[..., None]).all()


@pytest.mark.parametrize("orientation", sorted(TURNED))
def test_turned_by_exif(orientation: int, tmp_path: Path) -> None:
    exif = Pillow.Exif()
    exif[0x112] = orientation
    Pillow.fromarray(RGB).save(tmp_path / "turned.jpg", exif=exif, quality=98, subsampling=0)
    image = decoded(tmp_path / "turned.jpg")
    assert image.shape == TURNED[orientation].shape
    assert np.abs(image.astype(int) - TURNED[orientation]).mean() < 3


@pytest.mark.parametrize("content", [b"", b"nothing of the kind", "half"])
def test_what_is_wrong_is_said(content: bytes | str) -> None:
    if content == "half":
        whole = cv2.imencode(".png", np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))[1]
        content = whole.tobytes()[: len(whole) // 2]
    assert isinstance(content, bytes)
    with pytest.raises(ImageError, match="damaged" if content else "empty"):
        decode_image(np.frombuffer(content, np.uint8))
