"""Predicts the sizes of exported files from stand-ins: reduced copies of a network that are exported once.

A stand-in is the network with a tenth of its parameters. The overhead of its file (graph, names, constants, metadata)
equals that of the file of any cut of the network. A second stand-in, without removable blocks, shows the overhead per
layer.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
from torch import nn

from secateur.deploy.exporters import EXPORTERS, bytes_written, check_export
from secateur.deploy.settings import ExportSettings
from secateur.deploy.speed.latency_table import cache_file
from secateur.errors import UserError
from secateur.files import read_json, write_json
from secateur.networks.architecture import names_of
from secateur.pruning.allocation import allocate
from secateur.pruning.budget import Budget
from secateur.pruning.costs import COSTS
from secateur.pruning.depth import candidates, remove
from secateur.pruning.depth.chains import Chained
from secateur.pruning.graph import ChannelGraph, SizeTable, trace
from secateur.pruning.surgery import cut
from secateur.sizes import ImageSize, in_words

logger = logging.getLogger("secateur")

USUAL = "onnx-fp16"
"""The file format of a size budget that names none."""
_TENTH = Budget("params", 0.1)


def settings_of_file(kind: str = "") -> ExportSettings:
    """The export settings for a kind of file such as "onnx-int8". Without a precision, fp16 or the format's first one.

    Raises:
        UserError: the format or precision is unknown, a required package is not installed, or its size cannot be
            predicted.
    """
    name, _, precision = (kind or USUAL).partition("-")
    if name not in EXPORTERS or (precision and precision not in EXPORTERS[name].precisions):
        raise UserError(f"--size does not support {kind}. Choose one of {', '.join(kinds_of_files())}.")
    exporter = EXPORTERS[name]
    precision = precision or ("fp16" if "fp16" in exporter.precisions else exporter.precisions[0])
    if precision not in exporter.stored:
        raise UserError(
            f"The size of {exporter.title} files cannot be predicted. Choose one of {', '.join(kinds_of_files())}."
        )
    settings = ExportSettings(format=name, precision=precision)
    check_export(settings)
    return settings


def kinds_of_files() -> list[str]:
    """The kinds of files that a size budget supports."""
    return [f"{name}-{precision}" for name, exporter in EXPORTERS.items() for precision in exporter.stored]


def size_table(
    network: nn.Module,
    image_size: ImageSize,
    kind: str = "",
    about: Mapping[str, str] | None = None,
    *,
    blocks: bool = True,
) -> SizeTable:
    """The size table of a kind of file, for a network and all its cuts, as exported on this machine.

    Args:
        network: the dense network.
        image_size: input size in pixels; constants of the decoding grow with it.
        kind: format and precision ("onnx-int8"); "" is `USUAL`.
        about: additional metadata in the file.
        blocks: whether blocks may be removed. If not, and no table is cached, the measurement takes half the time, and
            the resulting table has no overhead per layer and is not cached.

    Raises:
        UserError: see `settings_of_file`, or the network cannot be exported to this format.
    """
    settings = settings_of_file(kind)
    graph = trace(network)
    file = _cache_file(network, image_size, settings, about or {})
    known = read_json(file) if file.is_file() else None
    if known is not None:
        return SizeTable.from_dict(known)
    name = f"{settings.format}-{settings.precision}"
    logger.info("Exporting a stand-in to %s to predict file sizes.", name)
    table = measured(network, graph, image_size, settings, about or {}, blocks=blocks)
    if not blocks:
        return table
    try:
        write_json(file, table.to_dict())
    except UserError as error:
        logger.warning("Cannot cache the table of file sizes: %s", error)
    return table


def measured(
    network: nn.Module,
    graph: ChannelGraph,
    image_size: ImageSize,
    settings: ExportSettings,
    about: Mapping[str, str],
    *,
    blocks: bool = True,
) -> SizeTable:
    """The table from newly exported stand-ins; without `blocks`, from one that keeps all layers."""
    stored = EXPORTERS[settings.format].stored[settings.precision]
    table = SizeTable(f"{settings.format}-{settings.precision}", stored, 0.0, 0.0)

    def besides_tensors(whole: nn.Module, graph: ChannelGraph) -> float:
        graph = replace(graph, sizing=table)
        plan = allocate(graph, np.random.default_rng(0).random(graph.units), _TENTH, strict=False)
        small = _lively(cut(whole, graph, plan))
        tensors: float = 1e6 * COSTS["size"].of(graph, None).price(plan.keep(graph))
        return bytes_written(small, image_size, settings, about) - tensors

    rest, layers = besides_tensors(network, graph), len(graph.filters)
    removable = [block.name for block in candidates(network)] if blocks and isinstance(network, Chained) else []
    if not removable:
        return replace(table, fixed=rest)
    shorter = remove(network, removable)
    left = trace(shorter)
    layer = (rest - besides_tensors(shorter, left)) / (layers - len(left.filters))
    return replace(table, fixed=rest - layer * layers, layer=layer)


def _lively(network: nn.Module) -> nn.Module:
    """Replaces all values of the network in place: some writers drop a bias of zeros, which no trained network has."""
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                noise = torch.randn(parameter.shape, generator=random)
                parameter.add_(noise.to(parameter), alpha=1e-3)
    return network


def _cache_file(network: nn.Module, image_size: ImageSize, settings: ExportSettings, about: Mapping[str, str]) -> Path:
    """Path of the cached table. It depends on everything that affects the file size."""
    shapes = [(name, list(tensor.shape)) for name, tensor in network.state_dict().items()]
    packages = (*EXPORTERS[settings.format].packages, "torch", "secateur")
    kind = f"{settings.format} {settings.precision}"
    key = [kind, image_size, shapes, list(names_of(network).values()), dict(about), [_version(x) for x in packages]]
    return cache_file(f"size {kind} {in_words(image_size)}px", key)


def _version(package: str) -> str:
    """Version of an installed package by its import name; "" if the distribution has another name."""
    try:
        return version(package.partition(".")[0])
    except PackageNotFoundError:
        return ""
