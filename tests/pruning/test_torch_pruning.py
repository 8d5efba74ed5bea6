"""Torch-Pruning as oracle: it finds the same rows and columns for a channel as the id propagation."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import Topology
from secateur.pruning.graph import ChannelGraph, trace

tp = pytest.importorskip("torch_pruning")

Entries = set[tuple[str, int, int]]


def entries_of_unit(graph: ChannelGraph, unit: int) -> Entries:
    """(layer, dimension of the weight, index) of all that leaves with a unit."""
    weights = [axis for axis in graph.axes if axis.tensor.endswith(".weight")]
    return {(axis.layer, axis.dim, i) for axis in weights for i in (axis.units == unit).nonzero()[0].tolist()}


def entries_of_group(names: dict[nn.Module, str], group: object) -> Entries:
    """The same from a group of Torch-Pruning."""
    entries: Entries = set()
    for dependency, indices in group:  # type: ignore[attr-defined]
        layer = dependency.target.module
        if layer not in names or not isinstance(layer, nn.Conv2d | nn.BatchNorm2d):
            continue
        reads = dependency.handler == tp.prune_conv_in_channels and layer.groups == 1
        entries |= {(names[layer], int(reads), int(i)) for i in indices}
    return entries


@pytest.mark.parametrize("name", ["yolov5n", "yolov3-tiny", "yolov5s-ghost"])
def test_groups_are_those_of_torch_pruning(name: str) -> None:
    detector = Detector(Topology.from_yaml(name)).eval()
    graph = trace(detector)
    oracle = tp.DependencyGraph().build_dependency(detector, torch.zeros(1, 3, 64, 64))
    names = {module: layer for layer, module in detector.named_modules()}
    modules = dict(detector.named_modules())
    compared = 0
    for space in graph.spaces:
        layer = space.layers[0]
        for unit in (int(space.units[0]), int(space.units[-1])):
            row = int((graph.emitted[layer] == unit).nonzero()[0][0])
            group = oracle.get_pruning_group(modules[layer], tp.prune_conv_out_channels, idxs=[row])
            assert entries_of_unit(graph, unit) == entries_of_group(names, group), (layer, row)
            compared += 1
    assert compared == 2 * len(graph.spaces)
