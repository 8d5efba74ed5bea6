"""Blocks compute what their papers say, checked against independent formulas."""

from __future__ import annotations

import torch
from torch import nn

from secateur.detector.attention import Attention
from secateur.detector.blocks import SPP, SPPF, Concat, DWConv, Focus
from secateur.detector.ghost import GhostBottleneck
from secateur.detector.head import Detect


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
