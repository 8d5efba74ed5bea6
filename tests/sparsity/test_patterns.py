"""Patterns: which weights share a block, round trips, exact counts of N:M, and texts that are no pattern."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from secateur.errors import UserError
from secateur.sparsity.patterns import PATTERNS, from_matrix, parse_pattern, to_matrix, zeros_per_block

SHAPES = st.one_of(
    st.tuples(st.sampled_from((2, 4, 8, 12)), st.sampled_from((1, 3, 4, 8)), st.just(3), st.sampled_from((1, 3))),
    st.tuples(st.sampled_from((4, 6)), st.sampled_from((5, 8, 16))),
)
TEXTS = st.sampled_from(
    ("1x1", "4x1", "2x4", "1x16", "channelx1", "1xchannel", "channelx2", "2xchannel", "2:4", "1:4", "3:8")
)


def weight_of(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pruned_blocks(text: str, weight: Tensor, blocks: list[int], scores: Tensor | None = None) -> Tensor:
    """The mask when just these blocks go."""
    pattern = parse_pattern(text)
    keep = torch.ones(len(pattern.reduce(weight, "sum")), dtype=torch.bool)
    keep[blocks] = False
    return pattern.expand(keep, weight, weight.abs() if scores is None else scores)


@settings(deadline=None, max_examples=80)
@given(SHAPES, TEXTS, st.integers(0, 1000))
def test_blocks_come_back_from_the_mask(shape: tuple[int, ...], text: str, seed: int) -> None:
    weight, pattern = weight_of(shape, seed), parse_pattern(text)
    if not pattern.fits(weight):
        return
    scores = weight.abs()
    blocks = len(pattern.reduce(scores, "mean"))
    keep = torch.rand(blocks, generator=torch.Generator().manual_seed(seed)) > 0.4
    mask = pattern.expand(keep, weight, scores)
    assert mask.shape == weight.shape and mask.dtype == torch.bool and mask.is_contiguous()
    # Exactly what goes with each block, and the blocks are read again from what is left of the weights.
    assert int((~mask).sum()) == int((~keep).sum()) * zeros_per_block(pattern, weight.numel(), blocks)
    assert torch.equal(pattern.reduce(scores * mask, "max") != 0, keep)
    # The score of a block is that of the weights which would go with it.
    gone = [scores[~pruned_blocks(text, weight, [i])] for i in range(min(blocks, 5))]
    for how, function in (("mean", torch.mean), ("sum", torch.sum), ("max", torch.max)):
        expected = torch.stack([function(values) for values in gone])
        torch.testing.assert_close(pattern.reduce(scores, how)[: len(gone)], expected)


def test_columns_run_over_taps_then_input_channels() -> None:
    weight = torch.arange(2 * 3 * 2 * 2.0).reshape(2, 3, 2, 2)
    matrix = to_matrix(weight)
    assert matrix.shape == (2, 12)
    assert torch.equal(matrix[0, :3], weight[0, :, 0, 0]) and torch.equal(matrix[0, 3:6], weight[0, :, 0, 1])
    assert torch.equal(from_matrix(matrix, weight), weight)
    linear = torch.randn(3, 5)
    assert torch.equal(to_matrix(linear), linear) and torch.equal(from_matrix(linear, linear), linear)


@pytest.mark.parametrize(
    ("text", "block", "expected"),
    [
        # (slices of O, I, kh, kw that go) in a weight [8, 4, 3, 3]
        ("1x1", 5, (0, 0, 1, 2)),
        ("4x1", 0, (slice(0, 4), 0, 0, 0)),
        ("4x1", 36 + 5, (slice(4, 8), 1, 0, 1)),
        ("1x2", 3, (0, slice(2, 4), 0, 1)),
        ("channelx1", 6, (slice(None), 2, 0, 1)),
        ("1xchannel", 9 + 4, (1, slice(None), 1, 1)),
        ("channelx4", 2, (slice(None), slice(None), 0, 2)),
        ("2xchannel", 1, (slice(0, 2), slice(None), 0, 1)),
    ],
)
def test_where_a_block_lies(text: str, block: int, expected: tuple[object, ...]) -> None:
    weight = torch.ones(8, 4, 3, 3)
    mask = pruned_blocks(text, weight, [block])
    wanted = torch.ones_like(mask)
    wanted[expected] = False
    assert torch.equal(mask, wanted)


def test_channels_of_grouped_convolutions_are_those_of_one_group() -> None:
    weight = torch.nn.Conv2d(8, 8, 3, groups=4).weight.detach()  # [8, 2, 3, 3]
    assert int((~pruned_blocks("1xchannel", weight, [0])).sum()) == 2
    assert not parse_pattern("2:4").fits(weight) and parse_pattern("1:2").fits(weight)


def test_layers_that_do_not_divide_do_not_fit() -> None:
    assert not parse_pattern("4x1").fits(torch.ones(255, 8, 1, 1))
    assert not parse_pattern("1x16").fits(torch.ones(16, 3, 3, 3)) and parse_pattern("1x9").fits(
        torch.ones(16, 3, 3, 3)
    )
    assert parse_pattern("channelx1").fits(torch.ones(255, 8, 1, 1))
    assert not parse_pattern("2:4").fits(torch.ones(6, 6)) and not parse_pattern("1x1").fits(torch.ones(4))


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(((1, 4), (2, 4), (2, 8), (7, 8), (1, 2))), st.integers(0, 1000), st.booleans())
def test_a_pruned_group_has_exactly_m_minus_n_zeros(numbers: tuple[int, int], seed: int, ties: bool) -> None:
    kept, size = numbers
    pattern = parse_pattern(f"{kept}:{size}")
    assert pattern.limit == (size - kept) / size
    weight = weight_of((6, 8, 3, 3), seed)
    scores = (weight * 2).round().abs() if ties else weight.abs()
    keep = torch.zeros(weight.numel() // size, dtype=torch.bool)
    keep[::3] = True
    mask = to_matrix(pattern.expand(keep, weight, scores)).reshape(-1, size)
    assert torch.equal((~mask).sum(1), torch.where(keep, 0, size - kept))
    groups = to_matrix(scores).reshape(-1, size)
    highest_gone = groups.masked_fill(mask, -1).amax(1)
    lowest_kept = groups.masked_fill(~mask, 9).amin(1)
    assert bool((highest_gone <= lowest_kept)[~keep].all())


def test_equal_scores_lose_the_first_columns() -> None:
    weight = torch.ones(1, 8)
    mask = pruned_blocks("2:4", weight, [0, 1])
    assert mask.tolist() == [[False, False, True, True] * 2]


def test_low_precision_scores_are_reduced_in_fp32() -> None:
    scores = torch.full((4, 256, 3, 3), 1.001, dtype=torch.bfloat16)
    for text in ("1x1", "channelx1", "2:4"):
        assert parse_pattern(text).reduce(scores, "sum").dtype == torch.float32


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0x4", "at least 1"),
        ("4x0", "at least 1"),
        ("5:4", "from 1 to M - 1"),
        ("4:4", "from 1 to M - 1"),
        ("0:4", "from 1 to M - 1"),
        ("abc", "forms: N:M, NxM"),
        ("", "forms: N:M, NxM"),
        ("4x", "forms: N:M, NxM"),
        ("-1x4", "forms: N:M, NxM"),
        ("4x1x1", "forms: N:M, NxM"),
    ],
)
def test_bad_texts_are_refused_in_one_sentence(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        parse_pattern(text)
    assert f"'{text}'" in str(caught.value) and "\n" not in str(caught.value)


def test_unknown_reductions_are_refused() -> None:
    for text in ("4x1", "2:4"):
        with pytest.raises(UserError, match="Use mean, sum or max"):
            parse_pattern(text).reduce(torch.ones(4, 4), "median")


def test_names_read_back() -> None:
    assert set(PATTERNS) >= {"NxM", "N:M"}
    for text in ("1x1", "4x1", "channelx1", "1xchannel", "channelx8", "16xchannel", "2:4", "1:4"):
        assert parse_pattern(text).name == text and parse_pattern(parse_pattern(text).name) == parse_pattern(text)
    assert parse_pattern(" ChannelX1 ").name == "channelx1"
