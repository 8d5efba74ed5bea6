"""Blocks compute what their papers say, checked against independent formulas."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from detector_files import enliven
from torch import nn

from secateur.errors import UserError
from secateur.families.loading import load_checkpoint
from secateur.families.yolov5.blocks import BLOCKS, link_of
from secateur.families.yolov5.blocks.attention import Attention
from secateur.families.yolov5.blocks.convolutions import Conv, DWConv, Focus
from secateur.families.yolov5.blocks.detect import Detect
from secateur.families.yolov5.blocks.ghost import GhostBottleneck
from secateur.families.yolov5.blocks.pyramid_pooling import SPP, SPPF
from secateur.families.yolov5.blocks.torch_layers import Concat
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import Topology, parse_topology
from secateur.registry import PLUGINS


def test_chained_pools_equal_pools_side_by_side() -> None:
    torch.manual_seed(0)
    fast, plain = SPPF(8, 6, 5).eval(), SPP(8, 6, (5, 9, 13)).eval()
    plain.load_state_dict(fast.state_dict())
    x = torch.randn(2, 8, 20, 20)
    assert torch.equal(fast(x), plain(x))


def test_attention_equals_torch() -> None:
    torch.manual_seed(0)
    ours, theirs = Attention(16, 4), nn.MultiheadAttention(16, 4)
    nn.init.normal_(ours.in_proj_bias)
    nn.init.normal_(ours.out_proj.bias)
    theirs.load_state_dict(ours.state_dict())
    q, k, v = torch.randn(3, 9, 2, 16)
    torch.testing.assert_close(ours(q, k, v), theirs(q, k, v)[0])


def test_focus_keeps_every_pixel() -> None:
    focus = Focus(1, 4)
    focus.conv = nn.Identity()  # type: ignore[assignment]
    x = torch.arange(16.0).view(1, 1, 4, 4)
    y = focus(x)
    assert y.shape == (1, 4, 2, 2)
    assert y[0, :, 0, 0].tolist() == [0.0, 4.0, 1.0, 5.0]


def test_depthwise_groups() -> None:
    assert DWConv(12, 8, 3).conv.groups == 4
    assert DWConv(8, 8, 3).conv.groups == 8


def test_ghost_bottleneck_at_stride_two() -> None:
    block = GhostBottleneck(8, 16, 3, 2).eval()
    assert block(torch.randn(1, 8, 8, 8)).shape == (1, 16, 4, 4)


def test_concat_dimension() -> None:
    assert Concat(2)([torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 1, 4)]).shape == (1, 2, 4, 4)


def test_decoding_by_hand() -> None:
    head = Detect(2, [[10.0, 14.0, 20.0, 30.0]], [4])
    head.set_strides([8])
    raw = torch.zeros(1, 2, 3, 5, 7)
    raw[0, 1, 2, 4] = torch.tensor([1.0, -1.0, 0.5, 2.0, 3.0, -3.0, 0.0])
    s = [1 / (1 + 2.718281828459045**-v) for v in (1.0, -1.0, 0.5, 2.0, 3.0, -3.0, 0.0)]
    rows = head.decode([raw])
    assert rows.shape == (1, 30, 7)
    # Row of anchor 1, line 2, column 4; the anchor is 20 x 30 px.
    expected = [(2 * s[0] - 0.5 + 4) * 8, (2 * s[1] - 0.5 + 2) * 8, (2 * s[2]) ** 2 * 20, (2 * s[3]) ** 2 * 30, *s[4:]]
    torch.testing.assert_close(rows[0, 1 * 15 + 2 * 5 + 4], torch.tensor(expected))
    # A zero logit is the middle of the cell and the anchor's own size.
    torch.testing.assert_close(rows[0, 0, :4], torch.tensor([4.0, 4.0, 10.0, 14.0]))


def test_decoding_of_half_precision_is_done_in_fp32() -> None:
    head = Detect(1, [[10.0, 14.0]], [4])
    head.set_strides([8])
    raw = torch.randn(1, 1, 160, 160, 6).bfloat16()
    assert torch.equal(head.decode([raw]), head.decode([raw.float()]))


PLUGIN = """
from torch import nn

from secateur.families.yolov5.blocks import BLOCKS, BlockKind, Link, chained
from secateur.families.yolov5.blocks.bottlenecks import read_shortcut
from secateur.families.yolov5.blocks.convolutions import Conv


class Squeeze(nn.Module):
    def __init__(self, c1, c2, shortcut=True, scale=2, *, act="SiLU"):
        super().__init__()
        self.conv = nn.Conv2d(c1, c2, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(c2)
        self.cv2 = Conv(c2, c2, 1, act=act)
        self.scale = scale
        self.add = shortcut and c1 == c2

    def forward(self, x):
        y = self.cv2(self.bn(self.conv(x)) * self.scale)
        return x + y if self.add else y


BLOCKS.register("Squeeze")(
    BlockKind(
        chained(Squeeze),
        wide=True,
        link=Link(Squeeze, lambda block: block.add, ends=("cv2",)),
        read=read_shortcut,
        compared={Squeeze: ("scale",)},
    )
)
"""


@pytest.fixture
def squeeze(tmp_path: Path) -> Iterator[Path]:
    """A user's file with a kind of block; the kind is known while the test runs."""
    file = tmp_path / "squeeze.py"
    file.write_text(PLUGIN)
    before = dict(BLOCKS._methods)
    list(BLOCKS)
    exec(compile(PLUGIN, str(file), "exec"), {"__name__": "squeeze"})
    yield file
    BLOCKS._methods.clear()
    BLOCKS._methods.update(before)


def with_squeeze(width: int = 16) -> Topology:
    config = {
        "nc": 2,
        "anchors": [[10, 13, 16, 30]],
        "backbone": [[-1, 1, "Conv", [width, 3, 2]], [-1, 3, "Squeeze", [width]], [-1, 1, "Squeeze", [24, False]]],
        "head": [[[-1], 1, "Detect", ["nc", "anchors"]]],
    }
    return parse_topology(config, "m.yaml")


def test_a_kind_of_block_is_one_file(squeeze: Path, write_upstream: Callable[..., Path]) -> None:
    detector = enliven(Detector(with_squeeze()))
    x = torch.rand(1, 3, 32, 32)
    # A network that this block stands in is built, narrowed, and read from a file in YOLOv5's layout.
    small = enliven(Detector(with_squeeze(8)))
    wide = Detector(with_squeeze()).eval()
    wide.set_tensors(small.state_dict())
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(wide(x), small(x), strict=True))
        read = load_checkpoint(write_upstream(detector, half=False)).build()
        assert torch.equal(read.predict(x), detector.predict(x))
    link = link_of(detector.model[1][1])
    assert link is not None
    assert link.residual(detector.model[1][1])
    assert link_of(detector.model[0]) is None
    for change in (2, 3):
        detector.model[1][1].scale = change
        path = write_upstream(detector, half=False)
        if change == 2:
            load_checkpoint(path)
        else:
            with pytest.raises(UserError, match=r"model\.1\.1 has scale 3"):
                load_checkpoint(path)


def test_a_kind_of_block_of_a_users_file_is_found(squeeze: Path) -> None:
    code = "from secateur.families.yolov5.blocks import BLOCKS; print('Squeeze' in BLOCKS, BLOCKS['Squeeze'].wide)"
    environment = {**os.environ, PLUGINS: str(squeeze)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.split() == ["True", "True"]


def test_links_of_chains() -> None:
    detector = Detector(Topology.from_yaml("yolov5s-ghost", nc=1))
    blocks = {name: link_of(module) for name, module in detector.named_modules()}
    links = {name: link for name, link in blocks.items() if link is not None}
    assert {"model.2.m.0", "model.13.m.0", "model.1"} - links.keys() == {"model.1"}
    for name, link in links.items():
        block = detector.get_submodule(name)
        ends = [block.get_submodule(end) for end in link.ends]
        assert all(isinstance(end, Conv) for end in ends)
        assert link.residual(block) == isinstance(block.shortcut, nn.Identity)
        if link.residual(block):
            # The branch gives nothing where its ends do.
            for end in ends:
                nn.init.zeros_(end.bn.weight)
            x = torch.rand(1, block.conv[0].cv1.conv.in_channels, 8, 8)
            assert torch.equal(block.eval()(x), x)
