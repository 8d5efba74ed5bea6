"""The graph of what a plan leaves is the one that a trace of the cut network finds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
import torchvision

from law_subjects import NARROW, subject_named
from networks import enliven, keep_every_other
from secateur.pruning.graph import ChannelGraph, remaining, trace
from secateur.pruning.surgery import cut

NETWORKS: dict[str, Any] = {
    "mobilenet_v3_small": lambda: torchvision.models.mobilenet_v3_small(num_classes=5),
    "shufflenet": lambda: torchvision.models.shufflenet_v2_x0_5(num_classes=5),
    "vit": lambda: torchvision.models.VisionTransformer(32, 8, 2, 4, 32, 64, num_classes=5),
}


def _equal(first: Mapping[str, Any], second: Mapping[str, Any]) -> None:
    assert list(first) == list(second)
    for name, units in first.items():
        np.testing.assert_array_equal(units, second[name], err_msg=name)


def check_same_graph(found: ChannelGraph, traced: ChannelGraph, *sizes: Any) -> None:
    assert found.units == traced.units
    for attribute in ("emitted", "norms", "layer_norms"):
        _equal(getattr(found, attribute), getattr(traced, attribute))
    for one, other in ((found.axes, traced.axes), (found.filters.values(), traced.filters.values())):
        _equal({(axis.tensor, axis.dim): axis.units for axis in one}, {(x.tensor, x.dim): x.units for x in other})
    _equal(
        {(n.module, n.attribute): n.ids for n in found.numbers},
        {(n.module, n.attribute): n.ids for n in traced.numbers},
    )
    assert [(s.layers, s.widths, s.frozen) for s in found.spaces] == [
        (s.layers, s.widths, s.frozen) for s in traced.spaces
    ]
    for space, other in zip(found.spaces, traced.spaces, strict=True):
        np.testing.assert_array_equal(space.units, other.units)
    assert (found.frozen, found.norm_after, found.image_size) == (traced.frozen, traced.norm_after, traced.image_size)
    assert [(o.signature, o.weight, o.place) for o in found.operations] == [
        (o.signature, o.weight, o.place) for o in traced.operations
    ]
    for operation, same in zip(found.operations, traced.operations, strict=True):
        np.testing.assert_array_equal(operation.reads, same.reads)
        np.testing.assert_array_equal(operation.emits, same.emits)
    for size in (None, *sizes):
        assert found.price(image_size=size) == traced.price(image_size=size)
        np.testing.assert_allclose(
            found.pricing.flop_savings(found.units, size), traced.pricing.flop_savings(traced.units, size)
        )
    np.testing.assert_allclose(
        found.pricing.parameter_savings(found.units), traced.pricing.parameter_savings(traced.units)
    )


@pytest.mark.parametrize("name", list(NARROW))
def test_detectors(name: str) -> None:
    subject = subject_named(name)
    # A layer that keeps one channel is traced as one without groups: the plan keeps more of each.
    plan = keep_every_other(subject.graph)
    keep = plan.keep(subject.graph)
    small = cut(subject.detector, subject.graph, plan)
    stride = int(max(subject.detector.strides))
    check_same_graph(remaining(subject.graph, keep), trace(small), 3 * stride, (2 * stride, 5 * stride))


@pytest.mark.parametrize("name", list(NETWORKS))
def test_other_networks(name: str) -> None:
    network = enliven(NETWORKS[name]())
    image = torch.zeros(1, 3, 32, 32)
    graph = trace(network, image)
    plan = keep_every_other(graph)
    found = remaining(graph, plan.keep(graph))
    check_same_graph(found, trace(cut(network, graph, plan), image))
    again = keep_every_other(found)
    twice = cut(cut(network, graph, plan), found, again)
    check_same_graph(remaining(found, again.keep(found)), trace(twice, image))


def test_nothing_gone() -> None:
    subject = subject_named("yolov5n")
    assert remaining(subject.graph, subject.graph.everything()) is subject.graph
