"""`secateur.predict`: detections of supervision, for anything that detects."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import supervision
import torch
from bright_rectangles import GREEN, RED, WHITE, BrightRectangles, picture
from PIL import Image

import secateur
from secateur.errors import UserError
from secateur.families.loading import load_checkpoint

SCENE = picture(80, 160, (RED, (10, 20, 60, 70)), (GREEN, (100, 0, 120, 20)))


def test_one_picture_gives_one_result_and_several_give_a_list(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "scene.png"), SCENE)
    predictor = BrightRectangles()
    for one in (SCENE, tmp_path / "scene.png", str(tmp_path / "scene.png")):
        found = secateur.predict(predictor, one, image_size=160)
        assert isinstance(found, supervision.Detections)
        assert found.xyxy.tolist() == [[10, 20, 60, 70], [100, 0, 120, 20]]
        assert list(found.data["class_name"]) == ["red", "green"]
        assert found.class_id is not None and found.class_id.tolist() == [0, 1]
    several = secateur.predict(predictor, [SCENE, tmp_path / "scene.png", picture(64, 64)], image_size=160)
    assert [len(found) for found in several] == [2, 2, 0]
    assert secateur.predict(predictor, []) == []


def test_options_are_those_of_the_command() -> None:
    found = secateur.predict(BrightRectangles(), SCENE, classes=("green",), conf=0.4, batch_size=1)
    assert list(found.data["class_name"]) == ["green"]
    assert len(secateur.predict(BrightRectangles(), SCENE, max_det=1)) == 1
    with pytest.raises(TypeError, match=r"has no option 'shape'. Its options: .*agnostic"):
        secateur.predict(BrightRectangles(), SCENE, shape=3)


def test_a_file_is_asked_like_its_checkpoint(tiny_weights: Path, tiny_data: Path) -> None:
    pictures = sorted((tiny_data.parent / "images" / "val").iterdir())[:3]
    checkpoint = load_checkpoint(tiny_weights)
    first = secateur.predict(checkpoint, pictures, image_size=64, conf=0.001)
    second = secateur.predict(tiny_weights, pictures, image_size=64, conf=0.001)
    assert sum(map(len, first)) > 0
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one.xyxy, other.xyxy) and np.array_equal(one.class_id, other.class_id)


def test_what_cannot_be_a_picture_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("nothing of the kind")
    with pytest.raises(UserError, match=r"text\.jpg: is not an image or is damaged\."):
        secateur.predict(BrightRectangles(), tmp_path / "text.jpg")
    with pytest.raises(UserError, match=r"gone\.jpg: does not exist\."):
        secateur.predict(BrightRectangles(), ["gone.jpg"])
    with pytest.raises(UserError, match=r"uint8 \[H, W, 3\] .* or \[H, W\] \(grey\), not float32 \[4, 4\]"):
        secateur.predict(BrightRectangles(), np.zeros((4, 4), np.float32))
    with pytest.raises(UserError, match="no runtime for this file type"):
        secateur.predict(tmp_path / "text.jpg", SCENE)


def test_a_predictor_of_one_size_says_so(caplog: pytest.LogCaptureFixture) -> None:
    predictor = BrightRectangles((96, 160))
    secateur.predict(predictor, SCENE, image_size=640)
    assert predictor.shapes == [(1, 3, 96, 160)]
    assert "accepts only images of 96 x 160 pixels" in caplog.text


def test_without_supervision_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(UserError, match=r"pip install 'secateur\[predict\]'"):
        secateur.predict(BrightRectangles(), SCENE)


BOXES = [[10, 20, 60, 70], [100, 0, 120, 20]]


def one_image() -> dict[str, tuple[object, bool]]:
    """The scene in every form that an image may have, and whether arrays are RGB."""
    rgb = SCENE[:, :, ::-1].copy()
    chw = torch.from_numpy(rgb).permute(2, 0, 1)
    alpha = np.full((80, 160, 1), 9, np.uint8)
    return {
        "BGR array": (SCENE, False),
        "RGB array": (rgb, True),
        "BGRA array": (np.concatenate([SCENE, alpha], 2), False),
        "RGBA array": (np.concatenate([rgb, alpha], 2), True),
        "a view": (SCENE[::1, ::-1][:, ::-1], False),
        "PIL": (Image.fromarray(rgb), False),
        "PIL palette": (Image.fromarray(rgb).convert("P", palette=Image.Palette.ADAPTIVE), False),
        "PIL with alpha": (Image.fromarray(rgb).convert("RGBA"), False),
        "PIL, arrays are RGB": (Image.fromarray(rgb), True),
        "uint8 tensor": (chw, False),
        "float tensor": (chw / 255, False),
        "half tensor": ((chw / 255).half(), False),
        "tensor with gradient": ((chw / 255).requires_grad_(), False),
    }


@pytest.mark.parametrize("kind", one_image())
def test_one_image_of_any_kind_gives_one_result(kind: str) -> None:
    image, rgb = one_image()[kind]
    found = secateur.predict(BrightRectangles(), image, image_size=160, rgb=rgb)
    assert found.xyxy.tolist() == BOXES
    assert list(found.data["class_name"]) == ["red", "green"]


def test_grey_images_have_three_equal_channels() -> None:
    white = picture(80, 160, (WHITE, (10, 20, 60, 70)))
    grey = white[:, :, 0].copy()
    sixteen_bits = Image.fromarray(grey.astype(np.uint16) * 257)
    forms = [grey, grey[:, :, None], torch.from_numpy(grey)[None], Image.fromarray(grey), sixteen_bits]
    for found in secateur.predict(BrightRectangles(), forms, image_size=160):
        assert found.xyxy.tolist() == BOXES[:1]
        assert list(found.data["class_name"]) == ["white"]


def test_several_images_of_any_kind_give_a_list_in_their_order(tmp_path: Path) -> None:
    empty = picture(80, 160)
    for name, image in (("a.png", SCENE), ("b.png", empty), ("c.png", SCENE)):
        cv2.imwrite(str(tmp_path / name), image)
    listed = tmp_path / "list.txt"
    listed.write_text("b.png\nc.png\n")
    tensors = torch.from_numpy(np.stack([SCENE, empty])[..., ::-1].copy()).permute(0, 3, 1, 2)
    several: dict[str, tuple[object, list[int]]] = {
        "folder": (tmp_path, [2, 0, 2]),
        "folder as text": (str(tmp_path), [2, 0, 2]),
        "pattern": (str(tmp_path / "[ab].png"), [2, 0]),
        "pattern as a path": (tmp_path / "*.png", [2, 0, 2]),
        "list": (listed, [0, 2]),
        "one in a list": ([SCENE], [2]),
        "tuple": ((SCENE, empty), [2, 0]),
        "generator": ((image for image in (empty, SCENE, empty)), [0, 2, 0]),
        "nested": ([tmp_path, [SCENE, (empty,)], str(listed)], [2, 0, 2, 2, 0, 0, 2]),
        "batch of arrays": (np.stack([SCENE, empty]), [2, 0]),
        "batch of tensors": (tensors, [2, 0]),
        "batch of one": (tensors[:1] / 255, [2]),
        "empty generator": (iter(()), []),
    }
    for kind, (images, counts) in several.items():
        found = secateur.predict(BrightRectangles(), images, image_size=160, batch_size=2)
        assert isinstance(found, list) and [len(one) for one in found] == counts, kind


def test_a_file_whose_name_looks_like_a_pattern_is_one_image(tmp_path: Path) -> None:
    (tmp_path / "shot[1].png").write_bytes(cv2.imencode(".png", SCENE)[1].tobytes())
    assert secateur.predict(BrightRectangles(), tmp_path / "shot[1].png", image_size=160).xyxy.tolist() == BOXES


def test_a_turned_pil_image_is_seen_as_a_viewer_shows_it(tmp_path: Path) -> None:
    turned = Image.fromarray(SCENE[:, :, ::-1].copy()).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as opened:
        assert secateur.predict(BrightRectangles(), opened, image_size=160).xyxy.tolist() == BOXES


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (np.zeros((0, 64, 3), np.uint8), r"An image is empty: its shape is \[0, 64, 3\]\."),
        (np.zeros((64, 0), np.uint8), r"An image is empty: its shape is \[64, 0\]\."),
        (torch.zeros(3, 0, 4), r"An image is empty: its shape is \[3, 0, 4\]\."),
        (np.zeros((4, 4, 2), np.uint8), r"not uint8 \[4, 4, 2\]"),
        (torch.zeros(4, 4, 3), r"An image tensor must be \[3, H, W\] \(RGB\).* not float32 \[4, 4, 3\]"),
        (torch.full((3, 16, 16), 200.0), r"must be in 0\.\.1, not 200 to 200\. Divide by 255"),
        (torch.full((3, 16, 16), float("nan")), r"must be in 0\.\.1, not nan to nan"),
        (torch.zeros(3, 16, 16, dtype=torch.int64), r"not int64 \[3, 16, 16\]"),
        (Image.new("F", (16, 16)), "A PIL image of mode F has no defined value range"),
        ("https://example.com/a.jpg", "is a URL. Use the command `secateur predict`"),
        ("a\0.jpg", "contains a NUL character"),
    ],
)
def test_what_is_no_image_is_one_sentence(image: object, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        secateur.predict(BrightRectangles(), image)


def test_a_damaged_pil_image_is_one_sentence(tmp_path: Path) -> None:
    content = cv2.imencode(".png", np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))[1].tobytes()
    (tmp_path / "cut.png").write_bytes(content[: len(content) // 2])
    with (
        Image.open(tmp_path / "cut.png") as opened,
        pytest.raises(UserError, match=r"Cannot read a PIL image \(.+\)\."),
    ):
        secateur.predict(BrightRectangles(), opened)


@pytest.mark.parametrize("image", [{"image": SCENE}, 3, None, [SCENE, 3.5], b"bytes"], ids=repr)
def test_what_is_no_source_is_a_type_error(image: object) -> None:
    with pytest.raises(
        TypeError, match=r"is not an image. Give a path, a NumPy array, a torch tensor, a PIL image, or"
    ):
        secateur.predict(BrightRectangles(), image)


def test_videos_of_a_folder_are_left_out_and_named(
    tmp_path: Path, video: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "moving.mp4").write_bytes(video.read_bytes())
    with pytest.raises(UserError, match=r"There are no images in .* use the command `secateur predict`"):
        secateur.predict(BrightRectangles(), tmp_path)
    cv2.imwrite(str(tmp_path / "a.png"), SCENE)
    assert len(secateur.predict(BrightRectangles(), tmp_path)) == 1
    assert "1 of" in caplog.text and "they are not images, for example" in caplog.text


@pytest.mark.parametrize(
    ("classes", "kept"),
    [
        (0, ["red"]),
        (1, ["green"]),
        ("0", ["red"]),
        ("green", ["green"]),
        (np.int64(1), ["green"]),
        (np.uint8(0), ["red"]),
        (torch.tensor(1), ["green"]),
        ([0], ["red"]),
        ([np.int32(1), 0], ["red", "green"]),
        (np.array([1]), ["green"]),
        (torch.tensor([0, 1]), ["red", "green"]),
        (range(1, 3), ["green"]),
        ({"red"}, ["red"]),
        (["green", 0], ["red", "green"]),
        (("red", "1"), ["red", "green"]),
        (1.0, ["green"]),
        (2, []),
        (None, ["red", "green"]),
    ],
    ids=repr,
)
def test_classes_are_ids_or_names(classes: object, kept: list[str]) -> None:
    found = secateur.predict(BrightRectangles(), SCENE, image_size=160, classes=classes)
    assert list(found.data["class_name"]) == kept


def test_text_of_digits_is_one_id_and_a_number_is_an_id_whatever_the_names() -> None:
    predictor = BrightRectangles()
    predictor.names = {0: "1", 1: "0", 2: "white"}
    assert secateur.predict(predictor, SCENE, image_size=160, classes=0).class_id.tolist() == [0]
    assert secateur.predict(predictor, SCENE, image_size=160, classes="0").class_id.tolist() == [1]
    with pytest.raises(UserError, match="There is no class '10'"):
        secateur.predict(BrightRectangles(), SCENE, classes="10")


@pytest.mark.parametrize(
    ("classes", "error", "sentence"),
    [
        (3, UserError, "There is no class 3. The detector has 3 classes"),
        (-1, UserError, "There is no class -1"),
        ([], UserError, "classes is empty. Give an id or a name, or omit it"),
        (True, TypeError, "classes is True .bool.; it must be an integer or text, or a list"),
        ([0, None], TypeError, "it must be an integer or text, or a list"),
        (0.5, UserError, "There is no class '0.5'"),
        ({0: "red"}, TypeError, "it must be an integer or text, or a list"),
    ],
)
def test_what_is_no_class_is_said(classes: object, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        secateur.predict(BrightRectangles(), SCENE, classes=classes)


def test_height_and_width_may_be_given() -> None:
    predictor = BrightRectangles((96, 160))
    secateur.predict(predictor, SCENE, image_size=(96, 160))
    assert predictor.shapes == [(1, 3, 96, 160)]
    square = BrightRectangles()
    secateur.predict(square, SCENE, image_size=[160, 160])
    assert square.shapes == [(1, 3, 96, 160)]  # as for one number: the other side follows the image


def test_a_network_is_asked_like_its_checkpoint(tiny_weights: Path) -> None:
    checkpoint = load_checkpoint(tiny_weights)
    first = secateur.predict(checkpoint, SCENE, image_size=64, conf=0.001, device="cpu")
    second = secateur.predict(checkpoint.build(), SCENE, image_size=64, conf=0.001, device=torch.device("cpu"))
    assert len(first) > 0 and np.array_equal(first.xyxy, second.xyxy)


def test_a_predictor_is_evaluated(tmp_path: Path) -> None:
    for folder in ("images/val", "labels/val"):
        (tmp_path / folder).mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "images/val/scene.png"), SCENE)
    rows = [
        f"{c} {(x1 + x2) / 320} {(y1 + y2) / 160} {(x2 - x1) / 160} {(y2 - y1) / 80}\n"
        for c, (x1, y1, x2, y2) in enumerate(BOXES)
    ]
    (tmp_path / "labels/val/scene.txt").write_text("".join(rows))
    data = tmp_path / "data.yaml"
    data.write_text("val: images/val\nnames: [red, green, white]\n")
    metrics = secateur.evaluate(BrightRectangles(), data, image_size=160, workers=0)
    assert (metrics.instances, metrics.mAP50) == (2, pytest.approx(0.995, abs=0.01))
    data.write_text("val: images/val\nnames: [green, red, white]\n")
    with pytest.raises(UserError, match=r"The predictor has the classes of .* in another order"):
        secateur.evaluate(BrightRectangles(), data, image_size=160, workers=0)
