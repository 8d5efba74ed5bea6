"""What a layer of a YOLOv5 file says of itself is read, or the file is refused; the outputs are never others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from stock_network import SPP, Bottleneck, Conv, DetectionModel, enlivened, lively_network, writer
from torch import nn

from secateur.errors import UserError
from secateur.families.loading import load_checkpoint
from secateur.networks.checkpoint import save_checkpoint

X = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(1))
Write = Callable[[DetectionModel], Path]
Change = Callable[[nn.Sequential], object]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    return writer(tmp_path, monkeypatch)


def changed(path: str, **attributes: Any) -> Change:
    """Sets attributes of one layer."""

    def change(model: nn.Sequential) -> None:
        layer = model.get_submodule(path)
        for name, value in attributes.items():
            assert hasattr(layer, name)
            setattr(layer, name, value)

    return change


def replaced(path: str, layer: nn.Module) -> Change:
    """Puts another layer in the place of one."""

    def change(model: nn.Sequential) -> None:
        parent, _, name = path.rpartition(".")
        old = model.get_submodule(path)
        layer.__dict__.update({key: old.__dict__[key] for key in ("i", "f") if key in old.__dict__})
        model.get_submodule(parent)._modules[name] = layer

    return change


def activations(layer: nn.Module) -> Change:
    """The same activation everywhere."""

    def change(model: nn.Sequential) -> None:
        for module in model.modules():
            if isinstance(module, Conv):
                module.act = layer

    return change


def narrower(model: nn.Sequential) -> None:
    """What a fork's pruning leaves: the first sum of a stage goes where its widths no longer agree."""
    model[1].cv1 = Conv(8, 3)
    model[1].m[0] = Bottleneck(3, 4, 2, False)
    model[3][0] = Bottleneck(16, 10, 8, False)
    model[3][1] = Bottleneck(10, 16, 8, False)


READ: dict[str, Change] = {
    "nothing": lambda model: None,
    "one sum of a stage left out": changed("1.m.1", add=False),
    "widths that differ": narrower,
    "no sums": lambda model: [setattr(block, "add", False) for block in model[1].m],
    "one sum of a row left out": changed("3.0", add=False),
    "one sum of a row of cross convolutions": changed("4.1", add=True),
    "sums of a row of cross convolutions": lambda model: [setattr(block, "add", True) for block in model[4]],
    "one sum of cross convolutions left out": changed("5.m.0", add=False),
    "one sum of an old stage left out": changed("6.m.1", add=False),
    "fewer blocks": lambda model: model[1].m.__delitem__(2),
    "other pools": replaced("7", SPP(16, (3, 5, 7))),
    "another pool": changed("8.m", kernel_size=3, padding=1),
    "another pool, as a pair": changed("8.m", kernel_size=(7, 7), padding=(3, 3)),
    "sources": lambda model: [changed("10", f=[9, 1])(model), changed("3", f=2)(model), changed("6", f=4)(model)],
    "leaky activations": activations(nn.LeakyReLU(0.2, inplace=True)),
    "exponential activations": activations(nn.ELU(0.5)),
    "activations in place": changed("2.act", inplace=True),
    "another activation in an old stage": replaced("6.act", nn.LeakyReLU(0.1)),
    "momentum": changed("2.bn", momentum=0.5),
    "another eps": changed("2.bn", eps=0.1),
    "dropout": lambda model: model[1].add_module("drop", nn.Dropout(0.5)),
    "what training alone reads": changed("14", inplace=False),
}


@pytest.mark.parametrize("change", READ)
def test_it_is_read(change: str, write: Write, tmp_path: Path) -> None:
    network = lively_network()
    plain = network(X).clone()
    READ[change](network.model)
    enlivened(network) if change in ("widths that differ", "other pools") else network.eval()
    if change == "another eps":
        network.model[2].bn.eps = 0.1
    with torch.no_grad():
        expected = network(X)
        checkpoint = load_checkpoint(write(network))
        detector = checkpoint.build()
        torch.testing.assert_close(detector.predict(X), expected, atol=1e-4, rtol=1e-4)
        save_checkpoint(checkpoint, tmp_path / "a.safetensors")
        again = load_checkpoint(tmp_path / "a.safetensors").build()
        assert torch.equal(again.predict(X), detector.predict(X))
    silent = ("nothing", "activations in place", "momentum", "dropout", "what training alone reads")
    assert (expected.shape == plain.shape and torch.allclose(expected, plain)) == (change in silent)


REFUSED: dict[str, tuple[Change, str]] = {
    "stride": (changed("2.conv", stride=(1, 1)), r"layer model\.2\.conv has stride \(1, 1\), but its model.yaml gives"),
    "padding": (changed("2.conv", padding=(0, 0)), r"layer model\.2\.conv has padding \(0, 0\)"),
    "dilation": (changed("2.conv", dilation=(2, 2)), r"layer model\.2\.conv has dilation \(2, 2\)"),
    "padding mode": (changed("2.conv", padding_mode="reflect"), r"layer model\.2\.conv has padding_mode 'reflect'"),
    "groups": (
        replaced("2.conv", nn.Conv2d(8, 16, 3, 2, 1, groups=2, bias=False)),
        r"layer model\.2\.conv has groups 2, but its model.yaml gives 1",
    ),
    "pool stride": (changed("8.m", stride=2), r"layer model\.8\.m has stride 2"),
    "pool rounding": (changed("13", ceil_mode=True), r"layer model\.13 has ceil_mode True"),
    "pool sides": (changed("8.m", kernel_size=(3, 5), padding=(1, 2)), r"layer model\.8\.m has kernel_size"),
    "pool dilation": (changed("7.m.1", dilation=2), r"layer model\.7\.m\.1 has dilation 2"),
    "enlarging": (changed("9", mode="bilinear"), r"layer model\.9 has mode 'bilinear'"),
    "corners": (changed("9", mode="nearest", align_corners=True), r"layer model\.9 has align_corners True"),
    "factor": (changed("9", scale_factor=4.0), r"layer model\.9 has scale_factor 4\.0"),
    "size": (changed("9", scale_factor=None, size=(16, 24)), r"layer model\.9 has (size|scale_factor)"),
    "padding around": (changed("11", padding=(0, 2, 0, 2)), r"layer model\.11 has padding"),
    "padding with": (changed("11", value=1.0), r"layer model\.11 has value 1\.0"),
    "dimension": (changed("10", d=2), r"layer model\.10 has d 2"),
    "one activation": (replaced("3.1.cv1.act", nn.ReLU()), r"layer model\.3\.1\.cv1\.act is ReLU, but must be SiLU"),
    "no activation": (replaced("2.act", nn.Identity()), r"layer model\.2\.act is Identity, but must be SiLU"),
    "slope": (
        lambda model: [activations(nn.LeakyReLU(0.1))(model), replaced("2.act", nn.LeakyReLU(0.2))(model)],
        r"layer model\.2\.act has negative_slope 0\.2, but its model.yaml gives 0\.1",
    ),
    "range": (activations(nn.Hardtanh(0, 6)), r"layer model\.0\.act has min_val 0"),
    "softness": (activations(nn.Softplus(2.0)), r"layer model\.0\.act has beta 2"),
    "approximation": (activations(nn.GELU("tanh")), r"layer model\.0\.act has approximate 'tanh'"),
    "a part more": (
        lambda model: model[1].add_module("pool", nn.MaxPool2d(3, 1, 1)),
        r"layer model\.1 has the part pool \(MaxPool2d\), which is not part of C3 in YOLOv5",
    ),
    "a part less": (lambda model: delattr(model[2], "act"), r"layer model\.2\.act \(SiLU\) is missing"),
    "no word of a sum": (
        lambda model: delattr(model[1].m[0], "add"),
        r"layer model\.1\.m\.0 lacks the attribute add, which determines what it computes",
    ),
    "a source to come": (changed("6", f=8), r"block 6 \(BottleneckCSP\): there is no earlier block 8"),
    "a source before all": (changed("6", f=-9), r"block 6 \(BottleneckCSP\): there is no earlier block -9"),
    "no source": (changed("6", f="x"), r"layer 6 has the sources 'x'"),
    "two sources": (changed("6", f=[5, 3]), r"block 6 \(BottleneckCSP\): only Concat or Detect can read several"),
}


@pytest.mark.parametrize("change", REFUSED)
def test_it_is_refused_by_name(change: str, write: Write) -> None:
    network = lively_network()
    apply, words = REFUSED[change]
    apply(network.model)
    with pytest.raises(UserError, match=words) as error:
        load_checkpoint(write(network))
    assert "\n" not in str(error.value)
