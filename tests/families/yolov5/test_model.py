"""The detector: widths come from tensors, folding and exporting keep the outputs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from secateur.errors import UserError
from secateur.families.yolov5.blocks.convolutions import Conv
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import CONFIGS, Topology, parse_topology

Lively = Callable[..., Detector]
X = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def of_width(file: str, width: float, **changes: object) -> Topology:
    """A model of the family at an unusual width."""
    data = yaml.safe_load((CONFIGS / f"{file}.yaml").read_text())
    options = {"nc": 3, "depth_multiple": 0.33, "width_multiple": width, "channel_multiple": 2, **changes}
    return parse_topology({**data, **options}, file)


@pytest.mark.parametrize("name", ["yolov5n", "yolov5s-ghost", "yolov3-tiny", "yolov5s-transformer", "odd"])
def test_fusing_and_exporting_keep_the_outputs(name: str, lively: Lively, odd_yaml: Path) -> None:
    detector = lively(odd_yaml if name == "odd" else name, nc=3)
    with torch.no_grad():
        raw = detector(X)
        folded = detector.fused()(X)
        exported = torch.export.export(detector, (X,), strict=False).module()(X)
    assert max(float(r.std()) for r in raw) > 0.05, "signals must be alive for this test to mean anything"
    for a, b, c in zip(raw, folded, exported, strict=True):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-4)
        torch.testing.assert_close(a, c, atol=1e-5, rtol=1e-5)
    left = [m for m in detector.fused().modules() if isinstance(m, Conv) and isinstance(m.bn, nn.BatchNorm2d)]
    assert not left, "every norm that follows a convolution is folded"


def test_structure_is_all_but_values(lively: Lively) -> None:
    detector = lively("yolov5n", nc=3)
    other = Detector(detector.topology, {0: "a", 1: "b", 2: "c"}).train()
    assert other.structure() == detector.structure() and hash(other.structure()) == hash(detector.structure())

    def changed(change: Callable[[Detector], object]) -> Detector:
        copied = copy.deepcopy(detector)
        change(copied)
        return copied

    narrow = dict(detector.state_dict())
    for part in ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"):
        narrow[f"model.0.{part}"] = narrow[f"model.0.{part}"][:-1]
    narrow["model.1.conv.weight"] = narrow["model.1.conv.weight"][:, :-1]
    others = [
        detector.fused(),
        Detector(Topology.from_yaml("yolov5n", nc=2)),
        changed(lambda it: it.set_tensors(narrow)),
        changed(lambda it: it.half()),
        changed(lambda it: setattr(it.model[2].m[0], "add", False)),
        changed(lambda it: setattr(it.model[0], "act", nn.ReLU())),
        changed(lambda it: setattr(it, "strides", (4.0, 8.0, 16.0))),
    ]
    structures = {one.structure() for one in others}
    assert len(structures) == len(others) and detector.structure() not in structures


def test_forward_shapes_and_properties() -> None:
    detector = Detector(Topology.from_yaml("yolov5n", nc=3))
    assert (detector.nc, detector.na, detector.nl, detector.no) == (3, 3, 3, 8)
    assert [tuple(r.shape) for r in detector(X)] == [(2, 3, 8, 8, 8), (2, 3, 4, 4, 8), (2, 3, 2, 2, 8)]
    assert detector.predict(X).shape == (2, 3 * (64 + 16 + 4), 8)
    assert detector.names == {0: "class0", 1: "class1", 2: "class2"}


def test_keys_are_those_of_published_checkpoints() -> None:
    keys = Detector(Topology.from_yaml("yolov5n")).state_dict().keys()
    assert {"model.0.conv.weight", "model.0.bn.running_var", "model.2.m.0.cv1.conv.weight", "model.24.m.0.bias"} <= keys
    assert "model.24.anchors" in keys
    assert len(keys) == 57 * 6 + 3 * 2 + 1


def test_batch_norm_constants_and_prior() -> None:
    detector = Detector(Topology.from_yaml("yolov5n", nc=3))
    assert {(m.eps, m.momentum) for m in detector.modules() if isinstance(m, nn.BatchNorm2d)} == {(1e-3, 0.03)}
    scores = detector.eval().predict(torch.zeros(1, 3, 640, 640))[0, :, 4]
    # 8 expected objects for each of the 9 anchors, give or take what random weights add.
    assert 36 < float(scores.detach().sum()) < 144


def test_anchors_are_stored_in_stride_units_and_ordered() -> None:
    topology = Topology.from_yaml("yolov5n")
    detector = Detector(topology)
    torch.testing.assert_close(detector.head.anchors[1].flatten() * 16, torch.tensor(topology.anchors[1]))
    data = topology.to_dict()
    turned = Detector(Topology.from_dict({**data, "anchors": data["anchors"][::-1]}))
    torch.testing.assert_close(turned.head.anchors, detector.head.anchors)


@pytest.mark.parametrize("file", ["yolov5", "yolov5-ghost", "yolov5-bifpn", "yolov5-transformer", "yolov3-tiny"])
@pytest.mark.parametrize("narrow", [0.01, 0.07])
def test_widths_are_those_of_the_tensors(file: str, narrow: float) -> None:
    # The same blocks at another width stand for a detector that was cut. At 0.01 layers have one or two channels.
    # Four heads and halves of halves need a width of eight.
    options = {"channel_multiple": 8} if file in ("yolov5-transformer", "yolov5-ghost") else {}
    torch.manual_seed(0)
    small = Detector(of_width(file, narrow, **options)).eval()
    wide = Detector(of_width(file, 0.25)).eval()
    wide.set_tensors(small.state_dict())
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(wide(X), small(X), strict=True))
    assert {k: v.shape for k, v in wide.state_dict().items()} == {k: v.shape for k, v in small.state_dict().items()}
    wide.set_tensors(Detector(of_width(file, 0.25)).state_dict())  # and back
    assert wide.model[0].conv.out_channels == Detector(of_width(file, 0.25)).model[0].conv.out_channels


def test_one_channel_layers_run_and_train() -> None:
    detector = Detector(of_width("yolov5-ghost", 0.25))
    tiny = Detector(of_width("yolov5-ghost", 0.01, channel_multiple=8))
    detector.set_tensors(tiny.state_dict())
    assert min(m.out_channels for m in detector.modules() if isinstance(m, nn.Conv2d)) == 1
    sum(r.square().mean() for r in detector.train()(X)).backward()
    assert all(p.grad is not None for p in detector.parameters())


def test_widths_of_crossconv_and_transposed_depthwise(lively: Lively, odd_yaml: Path) -> None:
    data = yaml.safe_load(odd_yaml.read_text())
    data["backbone"][1][3][4] = 2  # two groups of the same width as the four of the wide model
    small = Detector(parse_topology({**data, "width_multiple": 0.25, "channel_multiple": 2}, "small")).eval()
    wide = lively(odd_yaml)
    groups = {n: m.groups for n, m in wide.named_modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)}
    wide.set_tensors(small.state_dict())
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(wide(X), small(X), strict=True))
    # Narrower depthwise layers have fewer groups of the same width.
    after = {n: m.groups for n, m in wide.named_modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)}
    assert after["model.8"] < groups["model.8"]
    assert after["model.3.conv"] < groups["model.3.conv"]
    assert (groups["model.1.conv"], after["model.1.conv"]) == (4, 2)
    tensors = {**wide.state_dict(), "model.1.conv.weight": torch.zeros(9, 3, 3, 3)}
    with pytest.raises(UserError, match="group width 5"):
        wide.set_tensors(tensors)


def test_a_layer_without_channels_is_refused() -> None:
    with pytest.raises(UserError, match="Block 2"):
        Detector(of_width("yolov5-ghost", 0.01))


def test_cut_inside_a_bottleneck_equals_silencing(lively: Lively) -> None:
    detector = lively("yolov5n", nc=3)
    cut, silent = copy.deepcopy(detector), copy.deepcopy(detector)
    tensors, keep = dict(detector.state_dict()), torch.tensor([1])
    a, b = "model.2.m.0.cv1", "model.2.m.0.cv2"
    for key in ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"):
        tensors[f"{a}.{key}"] = tensors[f"{a}.{key}"][keep]
    tensors[f"{b}.conv.weight"] = tensors[f"{b}.conv.weight"][:, keep]
    cut.set_tensors(tensors)
    gone = [i for i in range(16) if i != 1]
    silent.get_parameter(f"{a}.bn.weight").data[gone] = 0
    silent.get_parameter(f"{a}.bn.bias").data[gone] = 0
    with torch.no_grad():
        for x, y in zip(cut(X), silent(X), strict=True):
            torch.testing.assert_close(x, y, atol=1e-5, rtol=1e-5)


def test_cut_inside_a_ghost_bottleneck_equals_silencing(lively: Lively) -> None:
    detector = lively("yolov5s-ghost", nc=3)
    cut, silent = copy.deepcopy(detector), copy.deepcopy(detector)
    first, second = "model.2.m.0.conv.0", "model.2.m.0.conv.2"
    half = detector.get_parameter(f"{first}.cv1.conv.weight").shape[0]
    keep = torch.arange(half - 3)
    tensors = dict(detector.state_dict())
    for part in ("cv1", "cv2"):
        for key in ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"):
            tensors[f"{first}.{part}.{key}"] = tensors[f"{first}.{part}.{key}"][keep]
        for key in ("weight", "bias"):
            silent.get_parameter(f"{first}.{part}.bn.{key}").data[half - 3 :] = 0
    tensors[f"{second}.cv1.conv.weight"] = tensors[f"{second}.cv1.conv.weight"][:, torch.cat((keep, keep + half))]
    cut.set_tensors(tensors)
    with torch.no_grad():
        for x, y in zip(cut(X), silent(X), strict=True):
            torch.testing.assert_close(x, y, atol=1e-5, rtol=1e-5)


def test_fused_tensors_can_be_set_and_taken_back(lively: Lively) -> None:
    detector = lively("yolov5n", nc=3)
    other = Detector(detector.topology).eval()
    other.set_tensors(detector.fused().state_dict())
    with torch.no_grad():
        assert torch.equal(other.predict(X), detector.fused().predict(X))
        other.set_tensors(detector.state_dict())
        assert torch.equal(other.predict(X), detector.predict(X))
    assert {m.eps for m in other.modules() if isinstance(m, nn.BatchNorm2d)} == {1e-3}


def test_tensors_are_copied_and_the_detector_is_left_in_its_mode(lively: Lively) -> None:
    detector = lively("yolov5n", nc=3)
    other = Detector(detector.topology).train()
    source = {k: v.clone() for k, v in detector.state_dict().items()}
    other.set_tensors(source)
    other.model[0].conv.weight.data.zero_()
    assert float(source["model.0.conv.weight"].abs().sum()) > 0
    assert all(m.training for m in other.modules())
    assert all(p.requires_grad for p in other.parameters())


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("model.0.conv.weight", None, "lack model.0.conv.weight"),
        ("model.99.weight", torch.zeros(1), "unknown model.99.weight"),
        ("model.0.conv.weight", torch.zeros(16, 3, 3, 3), "model.0.conv.weight"),
        ("model.0.conv.weight", torch.zeros(0, 3, 6, 6), "model.0.conv.weight"),
        ("model.0.bn.weight", torch.zeros(15), "model.0.bn"),
        ("model.1.conv.weight", torch.zeros(32, 15, 3, 3), "do not fit the topology"),
        ("model.24.anchors", torch.zeros(3, 2, 2), "anchors"),
        ("model.24.m.0.bias", torch.zeros(23), "model.24.m.0"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(name: str, change: torch.Tensor | None, words: str) -> None:
    detector = Detector(Topology.from_yaml("yolov5n", nc=3))
    tensors = dict(detector.state_dict())
    if change is None:
        del tensors[name]
    else:
        tensors[name] = change
    with pytest.raises(UserError, match=words):
        detector.set_tensors(tensors)


def test_tensors_of_another_number_of_classes_are_refused() -> None:
    detector = Detector(Topology.from_yaml("yolov5n", nc=3))
    with pytest.raises(UserError, match="3 classes"):
        detector.set_tensors(Detector(Topology.from_yaml("yolov5n", nc=4)).state_dict())


def test_channels_last_gives_the_same(lively: Lively) -> None:
    detector = lively("yolov5n", nc=3)
    with torch.no_grad():
        expected = detector.predict(X)
        detector.to(memory_format=torch.channels_last)
        found = detector.predict(X.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("confidence", [0.0, 0.3, 0.999])
def test_decoding_above_a_confidence_gives_the_same_rows(confidence: float) -> None:
    torch.manual_seed(0)
    detector = Detector(Topology.from_yaml("yolov5n", nc=3)).eval()
    raw = [torch.randn(2, 3, side, side + 1, 8) for side in (8, 4, 2)]
    whole = detector.decode(raw)
    for rows, found in zip(whole, detector.decode_above(raw, confidence), strict=True):
        torch.testing.assert_close(found, rows[rows[:, 4] > confidence], rtol=1e-6, atol=1e-5)
