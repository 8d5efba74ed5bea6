"""Images of every kind are read as a viewer shows them, and what is wrong with others is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from secateur.data.images import Image, ImageError, check_image_channels, decode_image, read_image, with_channels
from secateur.errors import UserError

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


@pytest.mark.parametrize("reduce", [1, 2])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_one_channel_is_the_weighted_sum_of_the_decoded_colours(suffix: str, reduce: int, tmp_path: Path) -> None:
    file = str(tmp_path / f"colours{suffix}")
    cv2.imwrite(file, BGR)
    colours = read_image(file, reduce)
    grey = read_image(file, reduce, channels=1)
    assert grey.shape == colours.shape[:2] and grey.dtype == np.uint8
    expected = colours @ np.array([0.114, 0.587, 0.299])
    assert np.abs(grey - expected).max() <= 0.51
    np.testing.assert_array_equal(grey, with_channels(colours, 1))
    assert with_channels(colours, 3) is colours


def test_one_channel_of_a_grey_file_is_its_values(tmp_path: Path) -> None:
    values = np.arange(40 * 60, dtype=np.uint16).reshape(40, 60) % 256
    cv2.imwrite(str(tmp_path / "grey.png"), values.astype(np.uint8))
    cv2.imwrite(str(tmp_path / "deep.png"), values * 257)
    for name in ("grey.png", "deep.png"):
        np.testing.assert_array_equal(read_image(str(tmp_path / name), channels=1), values)


def test_other_numbers_of_channels_are_refused() -> None:
    check_image_channels(1)
    check_image_channels(3)
    for channels in (2, 4):
        with pytest.raises(UserError) as caught:
            check_image_channels(channels)
        assert str(caught.value) == (
            f"The network takes images of {channels} channels, and Secateur reads images of 1 (grey) or 3 (colour): "
            "use a network with 'ch: 1' or 'ch: 3' in its model YAML."
        )
