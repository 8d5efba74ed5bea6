"""Batches: the same for any number of workers and processes, resumable, with global random state untouched."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from pictures import MakeData

import secateur.data.batches as batches_module
from secateur.data.augment import Augmentation
from secateur.data.batches import EvaluationBatches, train_batches
from secateur.data.config import load_data_config
from secateur.data.dataset import Batch, DetectionDataset
from secateur.data.index import Index, scan
from secateur.errors import UserError


@pytest.fixture
def index(make_data: MakeData) -> Index:
    texts = [f"{k % 3} 0.5 0.5 0.{k + 1} 0.5\n" for k in range(9)] + [None, ""]
    sizes = [(40 + 4 * k, 60) for k in range(11)]
    return scan(load_data_config(make_data(texts, sizes=sizes)), "train", progress=False)


@pytest.fixture
def dataset(index: Index) -> DetectionDataset:
    return DetectionDataset(index, 64, augmentation=Augmentation())


def same(first: Iterable[Batch], second: Iterable[Batch]) -> bool:
    pairs = list(zip(first, second, strict=True))
    return all(
        torch.equal(a.images, b.images) and torch.equal(a.targets, b.targets) and a.indices == b.indices
        for a, b in pairs
    )


def test_batch_layout(dataset: DetectionDataset) -> None:
    batches = list(train_batches(dataset, 4, seed=0, workers=0).epoch(0))
    assert [len(batch) for batch in batches] == [4, 4, 3]
    assert sorted(i for batch in batches for i in batch.indices) == list(range(11))
    assert batches[0].images.shape == (4, 3, 64, 64)
    assert batches[0].images.dtype == torch.uint8
    assert batches[0].images.is_contiguous()
    assert batches[0].targets.shape[1] == 6
    assert batches[0].to("cpu").indices == batches[0].indices


def test_workers_do_not_change_batches(dataset: DetectionDataset) -> None:
    none, two = (train_batches(dataset, 4, seed=3, workers=workers) for workers in (0, 2))
    before = torch.get_rng_state()
    for epoch in (0, 1, 7):
        assert same(none.epoch(epoch), two.epoch(epoch))
    assert torch.equal(before, torch.get_rng_state())


def test_epochs_differ_and_repeat(dataset: DetectionDataset) -> None:
    batches = train_batches(dataset, 4, seed=0, workers=0)
    assert same(batches.epoch(2), list(batches.epoch(2)))
    assert not same(list(batches.epoch(0)), batches.epoch(1))


def test_start_in_the_middle_of_an_epoch(dataset: DetectionDataset) -> None:
    batches = train_batches(dataset, 4, seed=0, workers=2)
    whole = list(batches.epoch(1))
    next(iter(batches.epoch(0)))  # left unfinished
    assert same(batches.epoch(1, start=1), whole[1:])
    assert len(batches) == 3


def test_two_processes_share_each_global_batch(dataset: DetectionDataset) -> None:
    one = list(train_batches(dataset, 4, seed=0, workers=0).epoch(5))
    shares = [list(train_batches(dataset, 2, seed=0, workers=0, rank=rank, world=2).epoch(5)) for rank in (0, 1)]
    assert len(shares[0]) == len(shares[1]) == len(one) == 3
    for whole, first, second in zip(one, *shares, strict=True):
        assert sorted(first.indices + second.indices) == sorted(whole.indices)
        assert whole.indices[0::2] == first.indices
        assert torch.equal(whole.images[1::2], second.images)


def test_last_batch_needs_an_image_for_every_process(dataset: DetectionDataset) -> None:
    shares = [train_batches(dataset, 1, seed=0, workers=0, rank=rank, world=5) for rank in range(5)]
    assert {len(share) for share in shares} == {2}  # 11 images: the eleventh would serve one process only
    with pytest.raises(UserError, match="fewer than the 12 processes"):
        train_batches(dataset, 1, seed=0, workers=0, world=12)


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_batches(index: Index, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches_module, "_WORTH_A_WORKER", 1)
    dataset = DetectionDataset(index, 64, rectangular=True, batch_size=4)
    batches = EvaluationBatches(dataset, 4, workers=workers)
    assert len(batches) == 3
    for _ in range(2):
        seen = [batch.indices for batch in batches]
        assert [i for indices in seen for i in indices] == dataset.order.tolist()
    with pytest.raises(ValueError, match="batches of 4"):
        EvaluationBatches(dataset, 8, workers=0)


def test_rectangular_training_is_not_shuffled(index: Index) -> None:
    dataset = DetectionDataset(index, 64, augmentation=Augmentation(), rectangular=True, batch_size=4)
    batches = list(train_batches(dataset, 4, seed=0, workers=0).epoch(0))
    assert [i for batch in batches for i in batch.indices] == dataset.order.tolist()


@pytest.mark.parametrize("workers", [0, 1])
def test_image_that_vanishes_is_one_sentence(index: Index, workers: int) -> None:
    dataset = DetectionDataset(index, 64, augmentation=Augmentation(), cache_images=False)
    for file in index.files:
        Path(file).unlink()
    with pytest.raises(UserError) as caught:
        list(train_batches(dataset, 4, seed=0, workers=workers).epoch(0))
    assert str(caught.value).startswith("Cannot read image")
    assert "\n" not in str(caught.value)


def test_targets_name_their_image(index: Index) -> None:
    batch = next(iter(EvaluationBatches(DetectionDataset(index, 64), 11, workers=0)))
    assert batch.targets[:, 0].tolist() == list(range(9))
    assert batch.targets[:, 1].tolist() == [k % 3 for k in range(9)]
    assert len(batch.original_shapes) == len(batch.ratio_pads) == 11


def test_no_more_workers_than_processors_and_batches(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(batches_module, "DataLoader", lambda *_, **options: asked.append(options))
    monkeypatch.setattr(batches_module, "granted_cpus", lambda: 3)
    many = index.select([0] * 200)
    for images, size, workers in ((many, 4, 1), (many, 4, 64), (many, 100, 64), (many, 4, 0), (index, 1, 64)):
        EvaluationBatches(DetectionDataset(images, 64), size, workers=workers)
    assert [options["num_workers"] for options in asked] == [1, 3, 2, 0, 0]
    train_batches(DetectionDataset(index, 64), 1, seed=0, workers=64)  # their workers stay for all epochs
    assert asked[-1]["num_workers"] == 3


@pytest.mark.parametrize("pin", [False, True])
def test_batches_are_pinned_on_request(index: Index, dataset: DetectionDataset, monkeypatch, pin: bool) -> None:
    asked = []
    monkeypatch.setattr(batches_module, "DataLoader", lambda *_, **options: asked.append(options["pin_memory"]))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    EvaluationBatches(DetectionDataset(index, 64), 4, workers=0, pin=pin)
    train_batches(dataset, 4, seed=0, workers=0, pin=pin)
    assert asked == [pin, pin]


def test_batches_of_grey_images(index: Index) -> None:
    dataset = DetectionDataset(index, 64, augmentation=Augmentation(), channels=1)
    batches = [list(train_batches(dataset, 4, seed=0, workers=workers).epoch(0)) for workers in (0, 1)]
    assert [batch.images.shape for batch in batches[0]] == [(4, 1, 64, 64), (4, 1, 64, 64), (3, 1, 64, 64)]
    assert same(*batches)
