"""Splits of images with boxes: the batches of trainings and of evidence, digests, and which splits are refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from secateur.data.config import load_data_config, unlabelled_images
from secateur.data.index import content_signature
from secateur.errors import UserError
from secateur.families.context import as_one_class
from secateur.families.detection.split import DetectionSplit, index_of
from secateur.families.family import FAMILIES
from secateur.families.reading import Reading, evenly
from secateur.training.hyp import Hyp


@pytest.fixture
def split(tiny_data: Path) -> DetectionSplit:
    return DetectionSplit.of(load_data_config(tiny_data), "train")


def test_the_family_gives_it(tiny_data: Path, split: DetectionSplit) -> None:
    family = FAMILIES["yolov5"]
    data = family.open_data(str(tiny_data))
    assert (data.nc, data.labelled, data.one_class) == (3, True, False)
    given = family.split(data, "train")
    assert len(given) == 24 and index_of(given, "This") is given.index  # type: ignore[attr-defined]
    assert given.signature() == split.signature() == content_signature(split.index)


def test_shuffled_batches_are_a_function_of_seed_and_epoch(split: DetectionSplit) -> None:
    reading = Reading(64, 8, seed=3)
    batches = split.shuffled(reading)
    assert len(batches) == 3
    first, again, other = ([batch.indices for batch in batches.epoch(number)] for number in (0, 0, 1))
    assert first == again != other and sorted(place for indices in first for place in indices) == list(range(24))
    assert [batch.indices for batch in batches.epoch(0, 1)] == first[1:]
    batch = next(iter(batches.epoch(0)))
    assert batch.images.shape == (8, 3, 64, 64) and batch.images.dtype == torch.uint8


def test_processes_share_the_batches(split: DetectionSplit) -> None:
    whole = [batch.indices for batch in split.shuffled(Reading(64, 8)).epoch(0)]
    parts = [list(split.shuffled(Reading(64, 4, rank=rank, world=2)).epoch(0)) for rank in (0, 1)]
    for together, *shares in zip(whole, *parts, strict=True):
        assert sorted(together) == sorted(shares[0].indices + shares[1].indices)


def test_an_augmentation_makes_mosaics(split: DetectionSplit) -> None:
    plain, varied = (
        next(iter(split.shuffled(Reading(64, 8, augmentation=how)).epoch(0))) for how in (None, Hyp(mosaic=1.0))
    )
    assert plain.indices == varied.indices and not torch.equal(plain.images, varied.images)


def test_ordered_batches_show_every_image_once(split: DetectionSplit) -> None:
    chosen = split.select([5, 2, 9])
    batches = list(chosen.ordered(Reading((32, 64), 2, channels=1)))
    assert [len(batch) for batch in batches] == [2, 1] and batches[0].images.shape[1:] == (1, 32, 64)
    assert list(chosen.index.files) == [split.index.files[place] for place in (5, 2, 9)]
    assert chosen.signature() != split.signature()


def test_some_images_are_spread_evenly(split: DetectionSplit) -> None:
    some = evenly(split, 3)
    assert list(index_of(some, "This").files) == [split.index.files[place] for place in (0, 12, 23)]
    assert evenly(split, None) is split and evenly(split, 24) is split


def test_all_objects_are_of_one_class(tiny_data: Path) -> None:
    one = DetectionSplit.of(as_one_class(load_data_config(tiny_data)), "train")
    assert set(one.index.labels[:, 0].tolist()) == {0.0}


def test_what_cannot_be_read_is_refused(tiny_data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no 'test' split\. Available: train"):
        DetectionSplit.of(unlabelled_images(tiny_data.parent / "images" / "train", {}), "test")
    shutil.copytree(tiny_data.parent, tmp_path / "set")
    shutil.rmtree(tmp_path / "set" / "labels")
    bare = load_data_config(tmp_path / "set" / "data.yaml")
    with pytest.raises(
        UserError, match=r"No image of split train .* has an object.*, or give --images and no --data\.$"
    ):
        DetectionSplit.of(bare, "train", otherwise=", or give --images and no --data")
    assert len(DetectionSplit.of(bare, "train", objects=False)) == 24

    class Other:
        """A split of another task."""

    with pytest.raises(UserError, match="int8 needs images with boxes, but this data set has labels of another kind"):
        index_of(Other(), "int8")  # type: ignore[arg-type]
