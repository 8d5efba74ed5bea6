"""Transformer blocks of the YOLO family (https://arxiv.org/abs/2010.11929, without the layer norms)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secateur.families.yolov5.blocks import BLOCKS, BlockKind, repeated
from secateur.families.yolov5.blocks.convolutions import Conv
from secateur.families.yolov5.blocks.cross_stage import C3


class Attention(nn.Module):
    """Multi-head attention in plain operations; names and layouts of tensors match `nn.MultiheadAttention`."""

    # Options under their names in nn.MultiheadAttention that no upstream block sets.
    batch_first, add_zero_attn = False, False

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """[L, B, E] each -> [L, B, E]."""
        length, batch, width = query.shape
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        q, k, v = (
            F.linear(x, weight, bias)
            .reshape(length, batch, self.num_heads, width // self.num_heads)
            .permute(1, 2, 0, 3)
            for x, weight, bias in zip((query, key, value), weights, biases, strict=True)
        )
        mixed = F.scaled_dot_product_attention(q, k, v)  # [B, heads, L, E / heads]
        return self.out_proj(mixed.permute(2, 0, 1, 3).reshape(length, batch, width))


class TransformerLayer(nn.Module):
    """Attention and two linear layers, each with a residual sum."""

    def __init__(self, c: int, num_heads: int) -> None:
        super().__init__()
        self.q = nn.Linear(c, c, bias=False)
        self.k = nn.Linear(c, c, bias=False)
        self.v = nn.Linear(c, c, bias=False)
        self.ma = Attention(c, num_heads)
        self.fc1 = nn.Linear(c, c, bias=False)
        self.fc2 = nn.Linear(c, c, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[L, B, c] -> [L, B, c]."""
        x = self.ma(self.q(x), self.k(x), self.v(x)) + x
        return self.fc2(self.fc1(x)) + x


class TransformerBlock(nn.Module):
    """Transformer layers over the pixels of a feature map, with a learned position embedding."""

    def __init__(self, c1: int, c2: int, num_heads: int, num_layers: int, *, act: str = "SiLU") -> None:
        super().__init__()
        self.conv: Conv | None = None if c1 == c2 else Conv(c1, c2, act=act)
        self.linear = nn.Linear(c2, c2)
        self.tr = nn.Sequential(*(TransformerLayer(c2, num_heads) for _ in range(num_layers)))

    def forward(self, x: Tensor) -> Tensor:
        """[B, c1, H, W] -> [B, c2, H, W]."""
        if self.conv is not None:
            x = self.conv(x)
        batch, width, height, breadth = x.shape
        pixels = x.flatten(2).permute(2, 0, 1)  # [H * W, B, c2]
        pixels = self.tr(pixels + self.linear(pixels))
        return pixels.permute(1, 2, 0).reshape(batch, width, height, breadth)


class C3TR(C3):
    """C3 with a transformer block."""

    def inner(self, hidden: int, n: int, shortcut: bool | Sequence[bool], g: int, act: str) -> nn.Module:
        return TransformerBlock(hidden, hidden, 4, n, act=act)


BLOCKS.register("C3TR")(
    BlockKind(
        repeated(C3TR),
        wide=True,
        compared={Attention: ("num_heads", "batch_first", "add_zero_attn")},
        foreign=("TransformerBlock", "TransformerLayer"),
    )
)
