"""Tables that are measured once for a model and are valid for all of its cuts: milliseconds and file sizes."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from secateur.api.arguments import Model, Size, checkpoint_of, network_of, size_of
from secateur.api.options import settings_of, typed
from secateur.deploy.exporting import about
from secateur.deploy.file_size import size_table
from secateur.deploy.speed.latency_table import latency_table
from secateur.families.evaluation import usable_size
from secateur.networks.checkpoint import Checkpoint
from secateur.pruning.graph import SizeTable
from secateur.pruning.latency import LatencyTable
from secateur.pruning.options import LatencySettings


def latency(
    model: Model,
    image_size: Size = 0,
    *,
    file: str | Path = "",
    runtime: str = "",
    threads: int = 0,
) -> LatencyTable:
    """Measures the latency of every layer of a model at every width on this machine. With the table in its graph, a
    budget can be in `ms`.

    The measurement takes one to two minutes and is cached. Alternatively, `file` is read, written by `secateur
    latency`.

    Args:
        model: the dense model, or its path; the table is valid for all of its cuts.
        image_size: px of a side, or (height, width); 0 uses the size stored in the checkpoint, otherwise 640.
        file: a latency table to read instead.
        runtime: "onnx" or "torch"; "" uses the first that is installed.
        threads: 0 uses all CPUs granted to this process.

    Raises:
        UserError: the file or the runtime cannot be used.

    >>> graph = trace(checkpoint)  # doctest: +SKIP
    >>> graph = dataclasses.replace(graph, timing=latency(checkpoint, 320))  # doctest: +SKIP
    >>> plan = allocate(graph, score(checkpoint, graph, "l2"), ms=8)  # doctest: +SKIP
    """
    size = size_of(latency, image_size)
    if not isinstance(model, nn.Module):
        model = checkpoint_of(model)
        size = usable_size(model, size)
    given = {"latency_table": file, "runtime": runtime, "threads": threads}
    [settings] = settings_of(latency, given, LatencySettings)
    return latency_table(network_of(model), size or 640, settings)


def file_size(model: Model, file: str = "", *, image_size: Size = 0) -> SizeTable:
    """Predicts the sizes of exported files of a model and its cuts. With the table in its graph, a budget can be in
    `size`.

    Stand-ins of the model are exported once, which takes some seconds, and the result is cached.

    Args:
        model: the dense model, or its path; the table is valid for all of its cuts.
        file: format and precision ("onnx-int8"); "" is "onnx-fp16".
        image_size: px of a side, or (height, width); 0 uses the size stored in the checkpoint, otherwise 640.

    Raises:
        UserError: the kind of file is unknown, or its exporter is not installed.

    >>> graph = trace(checkpoint)  # doctest: +SKIP
    >>> graph = dataclasses.replace(graph, sizing=file_size(checkpoint, "onnx-int8"))  # doctest: +SKIP
    >>> plan = allocate(graph, score(checkpoint, graph, "l2"), size="2MB")  # doctest: +SKIP
    """
    size = size_of(file_size, image_size)
    if not isinstance(model, nn.Module):
        model = checkpoint_of(model)
        size = usable_size(model, size)
    told = about(model) if isinstance(model, Checkpoint) else {}
    return size_table(network_of(model), size or 640, typed(file_size, "file", file, str), told)
