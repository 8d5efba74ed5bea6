"""Images alone: whatever names them, labels beside them are not read and nothing is written next to them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
from pictures import MakeData, smooth_image

import secateur.data.index as index_module
from secateur.data.augment import Augmentation
from secateur.data.batches import train_batches
from secateur.data.config import load_data_config, unlabelled_images
from secateur.data.dataset import DetectionDataset
from secateur.data.index import Index, content_signature
from secateur.errors import UserError
from secateur.families.detection.split import DetectionSplit

NAMES = {0: "first", 1: "second"}
BROKEN_LABEL = "7 0.5 0.5 0.2\nnot a label"


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    """Images at two depths, one with a label file beside it that would be refused, and other files among them."""
    folder = tmp_path / "shots"
    (folder / "deep" / "er").mkdir(parents=True)
    for number, name in enumerate(("b.png", "a.jpg", "deep/c.png", "deep/er/d.png")):
        cv2.imwrite(str(folder / name), smooth_image(48, 64, number))
    (folder / "a.txt").write_text(BROKEN_LABEL)
    (folder / "readme.md").write_text("no image")
    return folder


def taken(source: str | Path) -> Index:
    return DetectionSplit.of(unlabelled_images(source, NAMES), "train").index


def found(source: str | Path) -> list[str]:
    return [Path(name).name for name in taken(source).files]


def listing(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def test_a_folder_is_searched_to_any_depth_and_left_as_it_was(shots: Path) -> None:
    before = listing(shots)
    config = unlabelled_images(shots, NAMES)
    assert list(config.splits) == ["train"]
    assert config.names == NAMES
    assert not config.labelled
    index = DetectionSplit.of(config, "train").index
    assert [str(Path(name).relative_to(shots)) for name in index.files] == [
        "a.jpg",
        "b.png",
        "deep/c.png",
        "deep/er/d.png",
    ]
    assert index.labels.shape == (0, 5)
    assert index.offsets.tolist() == [0] * 5
    assert index.counts.missing == 4
    assert listing(shots) == before


def test_patterns_lists_and_single_pictures(shots: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(f"{shots}/*.png") == ["b.png"]
    assert found(f"{shots}/**/*.png") == ["b.png", "c.png", "d.png"]
    assert found(f"{shots}/*") == ["a.jpg", "b.png", "c.png", "d.png"]  # what is no image is passed over
    assert found(f"{shots}/**") == ["a.jpg", "b.png", "c.png", "d.png"]  # each once, though folders match too
    assert found(shots / "deep" / "c.png") == ["c.png"]
    (shots / "some.txt").write_text("deep/c.png\n./b.png\n")
    assert found(shots / "some.txt") == ["b.png", "c.png"]
    monkeypatch.chdir(shots.parent)
    (shots / "some.txt").write_text("shots/deep/c.png\n")
    assert found("shots/some.txt") == ["c.png"]
    assert found("shots") == ["a.jpg", "b.png", "c.png", "d.png"]


def test_a_folder_whose_name_looks_like_a_pattern_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "run[1]").mkdir()
    cv2.imwrite(str(tmp_path / "run[1]" / "a.png"), smooth_image(20, 30, 0))
    assert found(tmp_path / "run[1]") == ["a.png"]


def test_of_a_data_file_the_training_pictures_are_taken_and_nothing_else(make_data: MakeData) -> None:
    file = make_data(["0 0.5 0.5 0.2 0.2\n", BROKEN_LABEL])
    before = listing(file.parent)
    index = taken(file)
    assert (len(index), len(index.labels)) == (2, 0)
    assert listing(file.parent) == before
    # Neither scan takes the other's cache.
    assert len(DetectionSplit.of(load_data_config(file), "train").index.labels) == 1
    assert len(taken(file).labels) == 0
    file.write_text("train: images/train\n")  # the names are the detector's
    assert unlabelled_images(file, NAMES).names == NAMES
    file.write_text("val: images/train\nnames: [a]")
    with pytest.raises(UserError, match="has no images under train:"):
        unlabelled_images(file, NAMES)


def test_a_scan_is_remembered_until_a_picture_changes(shots: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = taken(shots)
    calls: list[int] = []
    check = index_module._check
    monkeypatch.setattr(index_module, "_check", lambda *a: calls.append(1) or check(*a))
    (shots / "b.txt").write_text("0 0.5 0.5 0.2 0.2\n")  # a label is none of its business
    again = taken(shots)
    assert not calls
    assert again.files == first.files
    assert content_signature(again) == content_signature(first)
    cv2.imwrite(str(shots / "b.png"), smooth_image(50, 64, 9))
    assert content_signature(taken(shots)) != content_signature(first)
    assert calls == [1]


def test_mistakes_are_told_in_one_sentence(shots: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere does not exist\. Set a folder of images"):
        unlabelled_images(tmp_path / "nowhere", NAMES)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"There are no images in .*empty\."):
        taken(tmp_path / "empty")
    with pytest.raises(UserError, match=r"Nothing matches the pattern .*\*\.bmp"):
        taken(f"{shots}/*.bmp")
    with pytest.raises(UserError, match=r"There are no images in .*\*\.md"):
        taken(f"{shots}/*.md")
    with pytest.raises(UserError, match=r"readme\.md is neither a folder"):
        taken(shots / "readme.md")
    with pytest.raises(UserError, match="has no 'val' split"):
        DetectionSplit.of(unlabelled_images(shots, NAMES), "val")


def test_unreadable_pictures_are_counted_and_refused_when_none_is_left(
    shots: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (shots / "b.png").write_bytes(b"")
    (shots / "deep" / "c.png").write_bytes(b"\x00\x01" * 100)
    index = DetectionSplit.of(unlabelled_images(shots, NAMES), "train", tell=True).index
    assert (len(index), index.counts.corrupt) == (2, 2)
    assert "train: 2 images, labels ignored, 2 skipped" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"None of the 1 images in .*b\.png can be used; for example .*zero bytes"):
        taken(shots / "b.png")


def test_augmented_batches_have_no_targets(shots: Path) -> None:
    full = Augmentation.from_hyp(
        {**dataclasses.asdict(Augmentation()), "mosaic": 1.0, "mixup": 1.0, "copy_paste": 1.0, "degrees": 10.0}
    )
    dataset = DetectionDataset(taken(shots), 64, augmentation=full, seed=1)
    for sample in (dataset[0], dataset[1, 3]):
        assert sample.image.shape == (64, 64, 3)
        assert sample.labels.shape == (0, 5)
    assert np.ptp(dataset[0].image) > 0
    batch = next(iter(train_batches(dataset, 2, seed=0, workers=0).epoch(0)))
    assert batch.targets.shape == (0, 6)
    assert DetectionDataset(taken(shots), 64)[0].labels.shape == (0, 5)
