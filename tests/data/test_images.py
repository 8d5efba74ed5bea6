"""Images of every kind are read as a viewer shows them, and what is wrong with others is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pictures import smooth_image
from PIL import Image as Pillow

from secateur.data.images import (
    Image,
    ImageError,
    check_image,
    check_image_channels,
    decode_image,
    fold_remarks,
    list_images,
    read_image,
    with_channels,
)
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


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("colour", [True, False])
@pytest.mark.parametrize("bits", [8, 10, 12])
def test_fewer_bits_than_sixteen_keep_their_brightness(bits: int, colour: bool, suffix: str, tmp_path: Path) -> None:
    image = smooth_image(60, 80, 3) if colour else smooth_image(60, 80, 3)[..., 0]
    image[10:20, 10:20] = 255
    file = tmp_path / f"deep{suffix}"
    cv2.imwrite(str(file), (image.astype(np.uint32) * (2**bits - 1) // 255).astype(np.uint16))
    expected = image if colour else np.repeat(image[..., None], 3, 2)
    assert np.abs(decoded(file).astype(int) - expected).max() <= 1
    assert check_image(str(file)) == (60, 80, f"has 16-bit values below {2**bits}, read as {bits} bits")
    # Half the size is as bright, though averaging takes the largest values away.
    half = cv2.resize(decoded(file), (40, 30), interpolation=cv2.INTER_LINEAR_EXACT)
    assert (read_image(str(file), 2) == half).all()


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_read_as_before(suffix: str, tmp_path: Path) -> None:
    image = smooth_image(60, 80, 4).astype(np.uint16) * 60  # 14 bits: darker, not black
    cv2.imwrite(str(tmp_path / f"deep{suffix}"), image)
    content = np.fromfile(tmp_path / f"deep{suffix}", np.uint8)
    assert (decoded(tmp_path / f"deep{suffix}") == cv2.imdecode(content, cv2.IMREAD_COLOR)).all()
    reduced = cv2.imdecode(content, cv2.IMREAD_REDUCED_COLOR_2)
    assert (read_image(str(tmp_path / f"deep{suffix}"), 2) == reduced).all()
    assert check_image(str(tmp_path / f"deep{suffix}"))[2] == ""


def test_the_remark_that_all_images_of_a_camera_share_is_made_once() -> None:
    deep = "has 16-bit values below 4096, read as 12 bits"
    problems = [f"a.png: {deep}", "b.txt: line 1; skipped", f"c.png: {deep}", f"d.png: {deep}", "b.txt: line 1"]
    assert fold_remarks(problems) == (
        f"a.png: {deep} (also 2 more images)",
        "b.txt: line 1; skipped",
        "b.txt: line 1",
    )


@pytest.mark.parametrize("missing", [1, 2])
@pytest.mark.parametrize("progressive", [0, 1])
def test_a_jpeg_without_its_end_marker_is_read_and_left_as_it_is(
    missing: int, progressive: int, tmp_path: Path
) -> None:
    whole, file = tmp_path / "whole.jpg", tmp_path / "cut.jpg"
    cv2.imwrite(str(whole), smooth_image(200, 300, 5), [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive])
    file.write_bytes(whole.read_bytes()[:-missing])
    before = file.read_bytes()
    assert (decoded(file) == decoded(whole)).all()
    assert (read_image(str(file), 2) == read_image(str(whole), 2)).all()
    assert check_image(str(file)) == (200, 300, "the JPEG lacks its end marker; it is read anyway")
    assert file.read_bytes() == before


@pytest.mark.parametrize("missing", [3, 20, 2000])
@pytest.mark.parametrize("progressive", [0, 1])
def test_a_jpeg_that_lacks_more_is_refused(missing: int, progressive: int, tmp_path: Path) -> None:
    file = tmp_path / "cut.jpg"
    cv2.imwrite(str(file), smooth_image(200, 300, 5), [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive])
    file.write_bytes(file.read_bytes()[:-missing])
    with pytest.raises(ImageError, match="the JPEG is truncated"):
        decode_image(np.fromfile(file, np.uint8))
    with pytest.raises(ImageError, match="the JPEG is truncated"):
        check_image(str(file))


def test_a_film_behind_a_jpeg_is_passed_over(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.jpg"), smooth_image(200, 300, 5))
    expected = decoded(tmp_path / "a.jpg")
    with (tmp_path / "a.jpg").open("ab") as file:
        file.write(b"film" * 5000)
    assert (decoded(tmp_path / "a.jpg") == expected).all()
    assert check_image(str(tmp_path / "a.jpg")) == (200, 300, "")


def test_images_of_kinds_that_are_not_read_are_counted_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("a.png", "b.HEIC", "deep/c.heic", "d.avif", "deep/e.jp2", "notes.md", "f.txt"):
        (tmp_path / name).write_bytes(b"x")
    assert list_images((tmp_path,), tmp_path) == [str(tmp_path / "a.png")]
    assert caplog.messages == [
        f"{tmp_path}: images of unsupported formats are skipped (1 .avif, 2 .heic, 1 .jp2; for example "
        f"{tmp_path}/b.HEIC). Convert them to .jpg or .png."
    ]
    caplog.clear()
    assert list_images((tmp_path / "*",), tmp_path) == [str(tmp_path / "a.png")]
    assert "(1 .avif, 2 .heic, 1 .jp2; for example" in caplog.text
    with pytest.raises(UserError, match=r"b\.HEIC has an unsupported image format\. Convert it"):
        list_images((tmp_path / "b.HEIC",), tmp_path)
    caplog.clear()
    for file in [*tmp_path.glob("*.*c"), *tmp_path.glob("deep/*"), *tmp_path.glob("*.avif"), tmp_path / "b.HEIC"]:
        file.unlink(missing_ok=True)
    assert list_images((tmp_path,), tmp_path) == [str(tmp_path / "a.png")]
    assert not caplog.messages


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff", b"nothing of the kind", "half"])
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
            f"The network takes images of {channels} channels, but Secateur reads only images of 1 (grey) or "
            "3 (colour). Use a network with 'ch: 1' or 'ch: 3' in its model YAML."
        )
