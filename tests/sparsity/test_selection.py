"""Selection: the target is hit exactly, bounds hold, ties and empty layers do no harm."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from secateur.errors import UserError
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import Topology
from secateur.sparsity.patterns import parse_pattern, to_matrix, zeros_per_block
from secateur.sparsity.selection import check_bounds, check_target, present_sparsity, prunable_layers, select

SHAPES = ((8, 4, 3, 3), (16, 8, 1, 1), (32, 16, 3, 3), (12, 64), (4, 4, 1, 1))


def some_weights(seed: int, *, ties: bool = False, zero_share: float = 0.0) -> dict[str, Tensor]:
    """Layers whose weights differ in size by a hundred, as those of networks do."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for number, shape in enumerate(SHAPES):
        weight = torch.randn(shape, generator=generator) * 10 ** (number % 3 - 1)
        if ties:
            weight = (weight * 2).round()
        weights[f"model.{number}.weight"] = weight * (torch.rand(shape, generator=generator) >= zero_share)
    return weights


def magnitudes(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: weight.abs() for name, weight in weights.items()}


def zeros(masks: dict[str, Tensor]) -> int:
    return sum(int((~mask).sum()) for mask in masks.values())


def block_size(text: str, weights: dict[str, Tensor]) -> list[int]:
    """Zeros of a block of each layer."""
    pattern = parse_pattern(text)
    return [zeros_per_block(pattern, w.numel(), len(pattern.reduce(w, "sum"))) for w in weights.values()]


PATTERN_TEXTS = ("1x1", "4x1", "2x4", "channelx1", "1xchannel", "2:4", "1:4")


@settings(deadline=None, max_examples=80)
@given(
    text=st.sampled_from(PATTERN_TEXTS),
    share=st.floats(0, 1),
    scope=st.sampled_from(("global", "layer", "local")),
    ties=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_the_target_is_hit_up_to_one_block(text: str, share: float, scope: str, ties: bool, seed: int) -> None:
    weights, pattern = some_weights(seed, ties=ties), parse_pattern(text)
    target = share * pattern.limit
    masks = select(magnitudes(weights), weights, pattern, target, scope=scope)
    sizes, total = block_size(text, weights), sum(w.numel() for w in weights.values())
    if scope == "global":
        assert abs(zeros(masks) - target * total) <= max(sizes) / 2 + 1e-3
    else:
        for size, mask in zip(sizes, masks.values(), strict=True):
            assert abs(int((~mask).sum()) - target * mask.numel()) <= size / 2 + 1e-3
    again = select(magnitudes(weights), weights, pattern, target, scope=scope)
    assert all(torch.equal(masks[name], again[name]) for name in masks)


@settings(deadline=None, max_examples=80)
@given(
    text=st.sampled_from(PATTERN_TEXTS),
    numbers=st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)),
    ties=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_bounds_of_every_layer_hold(text: str, numbers: tuple[float, float, float], ties: bool, seed: int) -> None:
    pattern, weights = parse_pattern(text), some_weights(seed, ties=ties)
    minimum, target, maximum = (pattern.limit * x for x in sorted(numbers))
    masks = select(magnitudes(weights), weights, pattern, target, minimum=minimum, maximum=maximum)
    sizes = block_size(text, weights)
    most = least = 0
    for size, mask in zip(sizes, masks.values(), strict=True):
        pruned, n = int((~mask).sum()), mask.numel()
        highest = math.floor(maximum * n / size + 1e-6) * size
        lowest = min(math.ceil(minimum * n / size - 1e-6) * size, highest)
        assert lowest <= pruned <= highest
        most, least = most + highest, least + lowest
    # Exact, too, unless whole blocks within the bounds cannot give the target.
    wanted = min(max(target * sum(w.numel() for w in weights.values()), least), most)
    assert abs(zeros(masks) - wanted) <= max(sizes) + 1e-3


@settings(deadline=None, max_examples=60)
@given(st.floats(0.05, 0.95), st.floats(0, 0.5), st.integers(0, 1000))
def test_bounded_choice_is_the_cheapest(target: float, slack: float, seed: int) -> None:
    """No weight that stays could change places with one that goes, at less loss and within the bounds."""
    weights = some_weights(seed)
    maximum, minimum = min(1.0, target + slack / 2), target * slack
    scores = magnitudes(weights)
    masks = select(scores, weights, parse_pattern("1x1"), target, minimum=minimum, maximum=maximum)
    can_gain, can_lose = [], []
    for name, mask in masks.items():
        pruned, n = int((~mask).sum()), mask.numel()
        gone, kept = scores[name][~mask], scores[name][mask]
        if pruned and pruned < n:
            assert gone.max() <= kept.min()
        if pruned < math.floor(maximum * n + 1e-6):
            can_gain.append(kept.min())
        if pruned > math.ceil(minimum * n - 1e-6):
            can_lose.append(gone.max())
    if can_gain and can_lose:
        assert max(can_lose) <= min(can_gain)


def test_one_threshold_serves_all_layers() -> None:
    weights = some_weights(1)
    scores = magnitudes(weights)
    masks = select(scores, weights, parse_pattern("1x1"), 0.6)
    gone = torch.cat([scores[name][~mask] for name, mask in masks.items()])
    kept = torch.cat([scores[name][mask] for name, mask in masks.items()])
    assert gone.max() <= kept.min()
    small, large = (float((~masks[name]).float().mean()) for name in ("model.0.weight", "model.2.weight"))
    assert small > large + 0.2  # a layer of smaller weights loses more of them


@pytest.mark.parametrize("sign", [1, -1])
def test_scores_of_any_sign_and_size_are_sorted(sign: int) -> None:
    weights = {"a.weight": torch.ones(1, 12)}
    values = torch.tensor([[0.0, -0.0, 1e-40, -1e-40, 5, -5, 1e38, -1e38, math.inf, -math.inf, 3, 2.5]]) * sign
    for count in range(13):
        masks = select({"a.weight": values}, weights, parse_pattern("1x1"), count / 12)
        gone = values[~masks["a.weight"]]
        assert torch.equal(gone.sort().values, values.flatten().sort().values[:count])


@pytest.mark.parametrize("text", ["1x1", "4x1", "channelx1", "2:4"])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_zero_scores_everywhere_prune_no_more_than_asked(text: str, scope: str) -> None:
    weights = some_weights(0)
    scores = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    masks = select(scores, weights, parse_pattern(text), 0.25, scope=scope, maximum=0.98)
    assert zeros(masks) == pytest.approx(0.25 * sum(w.numel() for w in weights.values()), abs=32)
    # A dead layer among living ones loses no more than its bound.
    scores = magnitudes(weights) | {"model.0.weight": torch.zeros(SHAPES[0])}
    masks = select(scores, weights, parse_pattern(text), 0.25, scope="global", maximum=0.4)
    assert 0.35 < float((~masks["model.0.weight"]).float().mean()) <= 0.4


@pytest.mark.parametrize("text", PATTERN_TEXTS)
def test_what_is_zero_already_goes_first_whatever_its_score(text: str) -> None:
    weights, pattern = some_weights(3), parse_pattern(text)
    before = select(magnitudes(weights), weights, pattern, 0.3)
    pruned = {name: weight * before[name] for name, weight in weights.items()}
    generator = torch.Generator().manual_seed(5)
    scores = {name: torch.rand(w.shape, generator=generator) for name, w in weights.items()}  # as gradients may be
    after = select(scores, pruned, pattern, 0.45)
    assert zeros(after) > zeros(before)
    assert all(bool((~after[name])[~before[name]].all()) for name in after)


@pytest.mark.parametrize("text", ["1:4", "2:4", "2:8", "1:2"])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_at_its_limit_n_of_m_converts_every_group(text: str, scope: str) -> None:
    pattern, weights = parse_pattern(text), some_weights(2, ties=True, zero_share=0.5)
    kept, size = (int(x) for x in text.split(":"))
    masks = select(magnitudes(weights), weights, pattern, pattern.limit, scope=scope)
    for name, mask in masks.items():
        assert bool(((~to_matrix(mask)).reshape(-1, size).sum(1) == size - kept).all())
        # A weight that is not zero goes only where there are too few zeros.
        groups, stay = to_matrix(weights[name]).reshape(-1, size), to_matrix(mask).reshape(-1, size)
        enough = (groups == 0).sum(1) >= size - kept
        assert not bool((groups[enough] * ~stay[enough]).any())


def test_under_its_limit_n_of_m_converts_the_cheapest_groups() -> None:
    weights = {"a.weight": torch.tensor([[1.0, 9, 9, 2, 5, 1, 1, 9, 4, 4, 4, 4]])}
    masks = select(magnitudes(weights), weights, parse_pattern("2:4"), 2 / 12)
    assert masks["a.weight"].int().tolist() == [[1, 1, 1, 1, 1, 0, 0, 1, 1, 1, 1, 1]]
    masks = select(magnitudes(weights), weights, parse_pattern("2:4"), 4 / 12)
    assert masks["a.weight"].int().tolist() == [[0, 1, 1, 0, 1, 0, 0, 1, 1, 1, 1, 1]]
    third = {"a.weight": torch.rand(4, 9)}
    assert zeros(select(third, third, parse_pattern("1:3"), 0.6667)) == 24  # 2/3 as people write it


def test_impossible_targets_are_refused() -> None:
    weights = some_weights(0)
    scores = magnitudes(weights)
    with pytest.raises(UserError, match=r"--target-sparsity 0.8 .* 2:4, which can zero at most a share of 0.5"):
        select(scores, weights, parse_pattern("2:4"), 0.8)
    with pytest.raises(UserError, match=r"0.99 is more than the 0.98"):
        select(scores, weights, parse_pattern("4x1"), 0.99, maximum=0.98)
    with pytest.raises(UserError, match=r"1.2, .* between 0 and 1"):
        select(scores, weights, parse_pattern("1x1"), 1.2)
    with pytest.raises(UserError, match="scope 'both'"):
        select(scores, weights, parse_pattern("1x1"), 0.5, scope="both")
    with pytest.raises(UserError, match=r"model\.1\.weight are NaN"):
        select(scores | {"model.1.weight": scores["model.1.weight"] * math.nan}, weights, parse_pattern("1x1"), 0.5)
    with pytest.raises(UserError, match=r"--unstructured 0.3 is less than the 0.4"):
        check_bounds(parse_pattern("1x1"), 0.3, 0.4, 0.9, option="--unstructured")
    with pytest.raises(UserError, match="the minimum must not exceed the maximum"):
        check_bounds(parse_pattern("1x1"), 0.3, 0.9, 0.4)


def test_on_the_way_to_the_target_the_minimum_waits() -> None:
    weights = some_weights(0)
    masks = select(magnitudes(weights), weights, parse_pattern("1x1"), 0.1, minimum=0.5)
    assert all(float((~mask).float().mean()) == pytest.approx(0.1, abs=0.05) for mask in masks.values())


def test_a_target_under_the_present_sparsity_is_refused() -> None:
    check_target(0.5, 0.5)
    with pytest.raises(
        UserError, match=r"already has 62\.1 % zeros, more than --target-sparsity 0\.5. To continue, set a higher"
    ):
        check_target(0.6211, 0.5)
    assert present_sparsity([torch.tensor([0.0, 1, 2, 0]), torch.tensor([3.0, 0, 4, 5])]) == 3 / 8
    assert present_sparsity([]) == 0


def test_layers_are_found_by_kind_pattern_and_exclusion() -> None:
    detector = Detector(Topology.from_yaml("yolov5n", nc=80))
    names, dense = prunable_layers(detector, parse_pattern("4x1"))
    assert dense == [f"model.24.m.{i}.weight" for i in range(3)] and len(names) == 57
    assert names[0] == "model.0.conv.weight" and all(detector.get_parameter(name).ndim == 4 for name in names)
    names, dense = prunable_layers(detector, parse_pattern("4x1"), ("model.24", "model.?.cv3.conv", "*.m.0.*"))
    assert not dense and "model.2.cv3.conv.weight" not in names and "model.13.cv3.conv.weight" in names
    assert not any(".m.0." in name for name in names)
    mixed = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Linear(8, 8), nn.ConvTranspose2d(8, 8, 2), nn.BatchNorm2d(8))
    assert prunable_layers(mixed, parse_pattern("2:4")) == (["1.weight"], ["0.weight"])
    assert prunable_layers(mixed, parse_pattern("1x1"), (), (nn.Conv2d,)) == (["0.weight"], [])
    with pytest.raises(UserError, match=r"'model.99' matches no layer.*model\.0\.conv"):
        prunable_layers(detector, parse_pattern("1x1"), ("model.99",))
    with pytest.raises(UserError, match="7x5 fits none of the 60 layers"):
        prunable_layers(detector, parse_pattern("7x5"))
