"""Batches of a data set, in the same order for any number of workers and processes, from any point of any epoch."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Sampler

from secateur.data.dataset import Batch, DetectionDataset, Sample
from secateur.errors import UserError
from secateur.machine import granted_cpus

Keys = list[tuple[int, int]]
_WORTH_A_WORKER = 64  # images; for fewer, starting a process takes longer than reading them (measured at 160 px)


class TrainBatches:
    """Training batches by epoch; see `train_batches`."""

    def __init__(self, dataset: DetectionDataset, sampler: _TrainSampler, workers: int, pin: bool) -> None:
        self.dataset = dataset
        self._sampler = sampler
        self._loader = _loader(dataset, sampler, workers, pin)

    def __len__(self) -> int:
        """Batches per epoch."""
        return self._sampler.per_epoch

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Batches of one epoch from index `start`; requesting another epoch ends an unfinished one."""
        self._sampler.epoch, self._sampler.start = epoch, start
        return _sentences(iter(self._loader))


class EvaluationBatches:
    """Every image once, in the order of the data set; can be iterated repeatedly with the same workers.

    The rectangles of a rectangular data set must contain whole batches. Small data sets get fewer workers.
    """

    def __init__(self, dataset: DetectionDataset, batch_size: int, *, workers: int, pin: bool = False) -> None:
        if dataset.rectangular and dataset.batch_size % batch_size:
            raise ValueError(f"the data set has rectangles for batches of {dataset.batch_size}, not {batch_size}")
        self.dataset = dataset
        order = dataset.order.tolist()
        self._batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
        self._loader = _loader(dataset, self._batches, min(workers, len(dataset) // _WORTH_A_WORKER), pin)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        return _sentences(iter(self._loader))


def train_batches(
    dataset: DetectionDataset,
    batch_size: int,
    *,
    seed: int,
    workers: int,
    rank: int = 0,
    world: int = 1,
    pin: bool = False,
) -> TrainBatches:
    """Shuffled batches; `epoch(e)` depends only on (seed, e).

    Step k of all processes together is global batch k (batch_size * world images) of the order for one process; process
    `rank` gets every `world`-th image of it. The last, partial global batch is kept if every process gets an image. A
    rectangular data set is not shuffled, and its batch size must be the global one.

    Args:
        workers: processes that load images, limited to the available processors.
        pin: keep batches in page-locked memory, for asynchronous copies to CUDA.
    """
    if dataset.rectangular and dataset.batch_size != batch_size * world:
        raise ValueError(f"the data set has rectangles for batches of {dataset.batch_size}, not {batch_size * world}")
    if len(dataset) < world:
        raise UserError(
            f"The training split has {len(dataset)} images, fewer than the {world} processes. Use fewer processes."
        )
    return TrainBatches(dataset, _TrainSampler(dataset, batch_size * world, seed, rank, world), workers, pin)


def collate(samples: list[Sample]) -> Batch:
    """Combines samples of one image size to a Batch."""
    height, width, channels = samples[0].image.shape
    images = torch.empty((len(samples), channels, height, width), dtype=torch.uint8)
    for place, sample in enumerate(samples):
        images[place] = torch.from_numpy(sample.image).permute(2, 0, 1)
    rows: list[NDArray[np.float32]] = [np.zeros((0, 6), np.float32)]
    for place, sample in enumerate(samples):
        rows.append(np.column_stack([np.full(len(sample.labels), place, np.float32), sample.labels]))
    return Batch(
        images=images,
        targets=torch.from_numpy(np.concatenate(rows).astype(np.float32)),
        indices=[sample.index for sample in samples],
        original_shapes=[sample.original_shape for sample in samples],
        ratio_pads=[sample.ratio_pad for sample in samples],
    )


class _TrainSampler(Sampler[Keys]):
    """Yields the share of this process in each global batch of the current epoch, as (epoch, image) keys."""

    def __init__(self, dataset: DetectionDataset, global_batch: int, seed: int, rank: int, world: int) -> None:
        self.epoch = self.start = 0
        self._order = dataset.order
        self._shuffle = not dataset.rectangular
        self._global_batch, self._seed, self._rank, self._world = global_batch, seed, rank, world
        whole, rest = divmod(len(self._order), global_batch)
        self.per_epoch = whole + (rest >= world)

    def __len__(self) -> int:
        return self.per_epoch - self.start

    def __iter__(self) -> Iterator[Keys]:
        epoch, order = self.epoch, self._order
        if self._shuffle:
            order = np.random.default_rng(np.random.SeedSequence([self._seed, epoch])).permutation(order)
        for step in range(self.start, self.per_epoch):
            batch = order[step * self._global_batch : (step + 1) * self._global_batch]
            yield [(epoch, int(i)) for i in batch[self._rank :: self._world]]


def _loader(
    dataset: DetectionDataset, batches: _TrainSampler | list[list[int]], workers: int, pin: bool
) -> DataLoader[Sample]:
    workers = min(workers, granted_cpus(), len(batches))
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin and torch.cuda.is_available(),
        persistent_workers=workers > 0,
        prefetch_factor=2 if workers else None,
        worker_init_fn=_start_worker,
        # A separate generator, because the random state of the training must not depend on loading.
        generator=torch.Generator(),
    )


def _start_worker(_: int) -> None:
    # Loading is already parallel by processes; threads inside each would compete for the same cores.
    cv2.setNumThreads(0)


def _sentences(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Passes batches on; converts an error of a worker, which arrives as a traceback, to its message."""
    try:
        yield from batches
    except UserError as error:
        raise UserError(str(error).rsplit("UserError: ", 1)[-1].strip()) from None
