"""Tables of the sizes of exported files, from stand-ins of a network that are written once.

A stand-in is the network at a tenth of its parameters. What its file has besides its tensors is what the file of any
cut of the network has: the graph, names, constants, what it says of itself. A second one without the blocks that may be
removed shows what the description of a layer takes.
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
"""The kind of file that a budget means that names none."""
_TENTH = Budget("params", 0.1)


def settings_of_file(kind: str = "") -> ExportSettings:
    """The settings that write a kind of file, "onnx-int8"; without a precision it is fp16, or the format's first.

    Raises:
        UserError: unknown format or precision, a package of it is not installed, or it is not sized beforehand.
    """
    name, _, precision = (kind or USUAL).partition("-")
    if name not in EXPORTERS or (precision and precision not in EXPORTERS[name].precisions):
        raise UserError(f"--size knows no kind of file {kind}; write one of {', '.join(kinds_of_files())}.")
    exporter = EXPORTERS[name]
    precision = precision or ("fp16" if "fp16" in exporter.precisions else exporter.precisions[0])
    if precision not in exporter.stored:
        raise UserError(
            f"The size of {exporter.title} files is not known before they are written; write one of "
            f"{', '.join(kinds_of_files())}."
        )
    settings = ExportSettings(format=name, precision=precision)
    check_export(settings)
    return settings


def kinds_of_files() -> list[str]:
    """The kinds of files whose size can be a budget."""
    return [f"{name}-{precision}" for name, exporter in EXPORTERS.items() for precision in exporter.stored]


def size_table(
    network: nn.Module,
    image_size: ImageSize,
    kind: str = "",
    about: Mapping[str, str] | None = None,
    *,
    blocks: bool = True,
) -> SizeTable:
    """The table of a kind of file for a network and all that is cut from it, as it is written on this machine.

    Args:
        network: the dense one.
        image_size: of the images that the file takes, in pixels: constants of the decoding grow with it.
        kind: format and precision ("onnx-int8"); "" is `USUAL`.
        about: metadata that the file also stores.
        blocks: whether whole blocks may be removed. Where not, a table that is not cached yet takes half the time,
            has no size of a layer and is not cached.

    Raises:
        UserError: as `settings_of_file`, or the network cannot be expressed in that format.
    """
    settings = settings_of_file(kind)
    graph = trace(network)
    file = _cache_file(network, image_size, settings, about or {})
    known = read_json(file) if file.is_file() else None
    if known is not None:
        return SizeTable.from_dict(known)
    name = f"{settings.format}-{settings.precision}"
    logger.info("Writing a stand-in as %s to learn what such a file takes.", name)
    table = measured(network, graph, image_size, settings, about or {}, blocks=blocks)
    if not blocks:
        return table
    try:
        write_json(file, table.to_dict())
    except UserError as error:
        logger.warning("The table of file sizes is not kept: %s", error)
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
    """The table from stand-ins that are written now; without `blocks` from one that keeps all layers."""
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
    """The network with other values, in place: some writers leave out a bias of zeros, which no trained network has."""
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                noise = torch.randn(parameter.shape, generator=random)
                parameter.add_(noise.to(parameter), alpha=1e-3)
    return network


def _cache_file(network: nn.Module, image_size: ImageSize, settings: ExportSettings, about: Mapping[str, str]) -> Path:
    """The path of the cached table; it depends on everything that the size of the file depends on."""
    shapes = [(name, list(tensor.shape)) for name, tensor in network.state_dict().items()]
    packages = (*EXPORTERS[settings.format].packages, "torch", "secateur")
    kind = f"{settings.format} {settings.precision}"
    key = [kind, image_size, shapes, list(names_of(network).values()), dict(about), [_version(x) for x in packages]]
    return cache_file(f"size {kind} {in_words(image_size)}px", key)


def _version(package: str) -> str:
    """Of an installed package, by the name that it is imported by; "" where it has another one."""
    try:
        return version(package.partition(".")[0])
    except PackageNotFoundError:
        return ""
