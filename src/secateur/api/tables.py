"""What is measured once for a model and then holds for all that is cut from it: tables of milliseconds and of bytes."""

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
    """What every layer of a model takes at every width on this machine: with it in its graph, budgets may be in `ms`.

    It is measured once, in a minute or two, and known from then on; or read from a `file` of `secateur latency`.

    Args:
        model: the dense one, or its file; the table holds for all that is cut from it.
        image_size: px of a side, or (height, width); 0 takes the one that the checkpoint remembers, else 640.
        runtime: "onnx" or "torch"; "" takes the first that is installed.
        threads: 0 takes those that this process was granted.

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
    """What exported files of a model and of its cuts take: with it in its graph, budgets may be in `size`.

    Stand-ins of the model are written once, in some seconds, and known from then on.

    Args:
        model: the dense one, or its file; the table holds for all that is cut from it.
        file: format and precision ("onnx-int8"); "" is "onnx-fp16".
        image_size: px of a side, or (height, width); 0 takes the one that the checkpoint remembers, else 640.

    Raises:
        UserError: the kind of file is unknown, or what writes it is not installed.

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
