"""Measures the latency table of a detector on this machine, or loads the cached one.

Every kind of layer is timed at a grid of widths. Then random cuts of the complete network, interleaved with the dense
network, calibrate how the sum over layers becomes the time of a network.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from secateur.deploy.timing import MOST_TURNS, STOPWATCHES, Stopwatch, settle
from secateur.errors import UserError
from secateur.machine import cpu_threads, processor, simd_channels
from secateur.pruning.allocation import allocate
from secateur.pruning.budget import Budget
from secateur.pruning.costs import COSTS
from secateur.pruning.graph import ChannelGraph, Floats, trace
from secateur.pruning.latency import LatencyTable, Signature, TimedSignature
from secateur.pruning.options import LatencySettings
from secateur.pruning.plan import Plan
from secateur.pruning.settings import Guards
from secateur.pruning.surgery import cut
from secateur.sizes import ImageSize, in_words, sides_of, square_as_one
from secateur.terminal import Advance, timing_bar

logger = logging.getLogger("secateur")

CUTS = 10
"""Number of random cuts that calibrate the sum of layer times against network times."""
PATIENCE = 8
"""Number of turns without a lower time after which a network's time has settled; complete networks are disturbed more
often.
"""
_READS = (1, 2, 4, 8, 16, 32, 64, 128)
_EMITS = (1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
# Widths of the grid in blocks. Times are almost linear in the input width, less so in the output width.


def latency_table(
    network: nn.Module, image_size: ImageSize, settings: LatencySettings | None = None, *, refresh: bool = False
) -> LatencyTable:
    """The table from the settings' file, from the cache, or from a new measurement.

    Args:
        network: the dense detector; the table is valid for all of its cuts.
        image_size: side of the image, or height and width, in pixels.
        settings: file, or runtime and threads of the measurement.
        refresh: ignore the cache.

    Raises:
        UserError: the file is not a table or belongs to another network or size, the runtime is unknown or not
            installed, or the fit is too poor.
    """
    settings, image_size = settings or LatencySettings(), square_as_one(image_size)
    graph = trace(network)
    if settings.latency_table:
        table = LatencyTable.load(settings.latency_table)
        COSTS["ms"].of(replace(graph, timing=table), image_size).price(graph.everything())
        return table
    stopwatch = stopwatch_of(settings.runtime)
    threads = settings.threads or cpu_threads()
    file = _cache_file(graph, image_size, stopwatch.name, threads)
    if not refresh and (known := _known(file)) is not None:
        return known
    table = measure(network, graph, image_size, stopwatch, threads)
    try:
        table.save(file)
    except UserError as error:
        logger.warning("Cannot cache the latency table: %s", error)
    return table


def measure(
    network: nn.Module, graph: ChannelGraph, image_size: ImageSize, stopwatch: Stopwatch, threads: int
) -> LatencyTable:
    """Times all layers and the random cuts, with a progress bar on stderr.

    Raises:
        UserError: the network does not take an image, or the fit is too poor.
    """
    if graph.image_size is None:
        raise UserError("A latency table needs a network whose input is one image.")
    block = simd_channels()
    sides = sides_of(image_size)
    grids = _grids(
        [(s.signature.scaled(graph.image_size, sides), len(s.reads), len(s.emits)) for s in graph.operations], block
    )
    logger.info("Measuring the latency of this network's layers in %s. This takes one to two minutes.", stopwatch.name)
    layers = [(signature, reads, width) for signature, (reads, _) in grids.items() for width in reads]
    timings = [stopwatch.layers(signature, width, grids[signature][1], threads) for signature, _, width in layers]
    with timing_bar("timing layers", MOST_TURNS * (len(layers) + CUTS + 1)) as advance:
        times = dict(zip(layers, settle(timings, done=advance), strict=True))
        entries = tuple(
            TimedSignature(signature, reads, emits, tuple(tuple(times[signature, reads, width]) for width in reads))
            for signature, (reads, emits) in grids.items()
        )
        table = LatencyTable(processor(), stopwatch.name, threads, image_size, block, entries)
        return _fitted(table, network, graph, stopwatch, advance)


def line(sums: Floats, times: Floats) -> tuple[float, float, float]:
    """Slope and offset of `times = slope x sums + offset`, and R2, with errors weighted relative to the time.

    Args:
        sums: sums of the layers' times, float [networks].
        times: times of the networks, float [networks], in the same unit.
    """
    terms = np.stack([sums, np.ones_like(sums)], axis=1)
    (slope, offset), *_ = np.linalg.lstsq(terms / times[:, None], np.ones_like(times), rcond=None)
    spread = float(((times - times.mean()) ** 2).sum())
    missed = float(((slope * sums + offset - times) ** 2).sum())
    return float(slope), float(offset), 1 - missed / spread if spread > 0 else 0.0


def stopwatch_of(name: str) -> Stopwatch:
    """The runtime of that name, or the first installed of ONNX Runtime and PyTorch."""
    if name:
        return STOPWATCHES[name]
    return STOPWATCHES["onnx"] if STOPWATCHES["onnx"].installed else STOPWATCHES["torch"]


def _grids(
    operations: Sequence[tuple[Signature, int, int]], block: int
) -> dict[Signature, tuple[tuple[int, ...], tuple[int, ...]]]:
    """For each signature, the grid of input and output widths, up to the widest layer with this signature."""
    widest: dict[Signature, tuple[int, int]] = {}
    for signature, reads, emits in operations:
        known = widest.get(signature, (0, 0))
        widest[signature] = max(known[0], reads), max(known[1], emits)
    return {
        signature: (
            _widths(_READS, reads, block) if signature.reads_matter else (0,),
            _widths(_EMITS, emits, block, signature.per_group[1]),
        )
        for signature, (reads, emits) in widest.items()
    }


def _widths(blocks: Sequence[int], widest: int, block: int, multiple: int = 1) -> tuple[int, ...]:
    """Numbers of channels below the widest, and the widest itself; for grouped convolutions, those with complete
    groups.
    """
    below = [count * block for count in blocks if count * block < widest]
    return (*(width for width in below if width % max(multiple, 1) == 0), widest)


def _fitted(
    table: LatencyTable, network: nn.Module, graph: ChannelGraph, stopwatch: Stopwatch, advance: Advance
) -> LatencyTable:
    """The table with the line fitted through complete networks: the dense one and random cuts of it."""
    graph = replace(graph, timing=table)
    cost = COSTS["ms"].of(graph, None)
    plans = list(_random_plans(graph, table.block))
    networks = [network, *(cut(network, graph, plan) for plan in plans)]
    shape = (1, graph.inputs[0].shape[1], *sides_of(table.image_size))
    timings = [stopwatch.network(entry, shape, table.threads) for entry in networks]
    times = np.array([ms for (ms,) in settle(timings, PATIENCE, advance)])
    sums = np.array([cost.price(keep) for keep in (graph.everything(), *(plan.keep(graph) for plan in plans))])
    return table.fitted(*line(sums, times), dense=float(times[0]))


def _random_plans(graph: ChannelGraph, block: int) -> Iterator[Plan]:
    """Random plans over the whole range of costs, with different shares per layer."""
    for number, share in enumerate(np.linspace(0.15, 0.9, CUTS)):
        random = np.random.default_rng(number)
        scores = random.random(graph.units) * random.uniform(0.5, 1.5, len(graph.spaces))[graph.space_of]
        yield allocate(graph, scores, Budget("flops", float(share)), Guards(round_to=block), strict=False)


def _cache_file(graph: ChannelGraph, image_size: ImageSize, runtime: str, threads: int) -> Path:
    """Path of the cached table of this machine, runtime and network."""
    operations = [
        (str(s.signature), s.signature.stride, s.signature.activation, len(s.reads), len(s.emits))
        for s in graph.operations
    ]
    key = [processor(), runtime, threads, image_size, graph.image_size, operations]
    return cache_file(f"{runtime} {in_words(image_size)}px {threads} threads", key)


def cache_file(title: str, key: Sequence[Any]) -> Path:
    """Path in the user's cache folder for measurements under a key (plain JSON data)."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.blake2b(json.dumps(key).encode(), digest_size=8).hexdigest()
    return home / "secateur" / "latency" / f"{re.sub(r'[^a-z0-9]+', '-', title.lower())}-{digest}.json"


def _known(file: Path) -> LatencyTable | None:
    """The cached table, if it is readable."""
    try:
        return LatencyTable.load(file) if file.is_file() else None
    except UserError:
        return None
