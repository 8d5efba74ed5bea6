"""Chooses which blocks of weights become zero: lowest scores first, up to a target, within bounds for every layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import reduce

import torch
from torch import Tensor, nn

from secateur.errors import UserError
from secateur.sparsity.patterns import Pattern, zeros_per_block

LAYERS: tuple[type[nn.Module], ...] = (nn.Conv2d, nn.Linear)
_LARGEST = torch.finfo(torch.float32).max
_CHUNK = 1 << 18  # numbers whose intermediate results stay in a CPU's cache
# So that 2/3 written as 0.6667 is the limit of 1:3, not beyond it.
_SLACK = 5e-4
# Of a share of blocks: to a four-thousandth of it.
_BISECTIONS = 12


def prunable_layers(
    detector: nn.Module,
    pattern: Pattern,
    exclude: Iterable[str] = (),
    kinds: tuple[type[nn.Module], ...] = LAYERS,
) -> tuple[list[str], list[str]]:
    """Names of the weights that the pattern covers, and of those that it must leave dense because they do not divide.

    Args:
        detector: any module.
        pattern: see `secateur.sparsity.patterns`.
        exclude: patterns (`*`, `?`) of layers, or of modules around them, that are in neither list ("model.24",
            "*.cv3.*").
        kinds: classes of the layers.

    Returns:
        Names of tensors ("model.0.conv.weight"), in the order of the detector.

    Raises:
        UserError: an exclusion matches no layer, or no layer remains.
    """
    exclude = tuple(exclude)
    weights = {f"{name}.weight": module.get_parameter("weight") for name, module in layers(detector, kinds)}
    for text in exclude:
        if not any(_matches(name, (text,)) for name in weights):
            known = ", ".join(name.removesuffix(".weight") for name in list(weights)[:3])
            raise UserError(f"The exclusion '{text}' matches no layer with weights; names look like {known}.")
    open_to_it = {name: weight for name, weight in weights.items() if not _matches(name, exclude)}
    covered = [name for name, weight in open_to_it.items() if pattern.fits(weight)]
    if not covered:
        raise UserError(
            f"The pruning pattern {pattern.name} fits none of the {len(open_to_it)} layers that are not excluded; "
            "choose one whose numbers divide their channels, such as 1x1, or exclude less."
        )
    return covered, [name for name in open_to_it if name not in set(covered)]


def layers(detector: nn.Module, kinds: tuple[type[nn.Module], ...] = LAYERS) -> list[tuple[str, nn.Module]]:
    """Names and modules of the convolutions and linear layers."""
    return [(name, module) for name, module in detector.named_modules() if isinstance(module, kinds)]


def _matches(tensor_name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a pattern names the layer or a module around it."""
    parts = tensor_name.split(".")
    names = [".".join(parts[: n + 1]) for n in range(len(parts))]
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


def present_sparsity(weights: Iterable[Tensor]) -> float:
    """Share of the weights that are zero already; 0 where there are none."""
    zeros = total = 0
    for weight in weights:
        zeros += weight.numel() - int(weight.count_nonzero())
        total += weight.numel()
    return zeros / max(total, 1)


def check_target(
    present: float,
    target: float,
    option: str = "--target-sparsity",
    remedy: str = "give a higher target or lock the zeros",
) -> None:
    """Refuses a target below the share of zeros that the weights have already.

    Raises:
        UserError: naming both.
    """
    if present > target:
        raise UserError(f"The model already has {100 * present:.1f} % zeros, more than {option} {target:g}; {remedy}.")


def check_bounds(
    pattern: Pattern, target: float, minimum: float = 0.0, maximum: float = 1.0, option: str = "--target-sparsity"
) -> None:
    """Refuses a share of zeros that the pattern, or the bounds of every layer, cannot give.

    Raises:
        UserError: naming the numbers.
    """
    if not 0 <= target <= 1:
        raise UserError(f"{option} is {target:g}; it is a share of the weights and must be between 0 and 1.")
    if not 0 <= minimum <= maximum <= 1:
        raise UserError(
            f"A layer is to have a share of zeros from {minimum:g} (--min-sparsity) to {maximum:g} (--max-sparsity); "
            "both must be between 0 and 1, the minimum under the maximum."
        )
    if target > pattern.limit + _SLACK:
        raise UserError(
            f"{option} {target:g} is out of reach of the pattern {pattern.name}, which leaves at most a share of "
            f"{pattern.limit:.4g} zero; lower it or choose another pattern."
        )
    if target > maximum:
        raise UserError(
            f"{option} {target:g} is more than the {maximum:g} that a layer may have (--max-sparsity); "
            "change one of them."
        )
    if minimum > target:
        raise UserError(
            f"{option} {target:g} is less than the {minimum:g} that every layer is to have (--min-sparsity); "
            "change one of them."
        )


def beside(
    held: Mapping[str, Tensor], wanted: float, choose: Callable[[float], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """Masks with the share `wanted` of zeros of which some, those of `held`, lie as they lie.

    Zeros of an earlier pruning in another pattern count wherever they are, so fewer blocks make up the rest: how many
    is found by bisection.

    Args:
        held: masks (True: stays) by weight; weights without one hold nothing.
        choose: a share of zeros in blocks -> masks of all weights.
    """

    def joined(blocks: float) -> dict[str, Tensor]:
        return {name: mask & held[name] if name in held else mask for name, mask in choose(blocks).items()}

    def zeros(masks: dict[str, Tensor]) -> float:
        return present_sparsity(masks.values())

    masks, low, high = joined(wanted), 0.0, wanted
    # Nothing held, nothing to make up for: `choose` alone is exact to a block, over or under.
    if not held or zeros(masks) <= wanted:
        return masks
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if zeros(joined(middle)) > wanted else (middle, high)
    return joined(low)


def select(
    scores: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    pattern: Pattern,
    target: float,
    *,
    scope: str = "global",
    minimum: float = 0.0,
    maximum: float = 1.0,
) -> dict[str, Tensor]:
    """Masks under which the share `target` of the weights of all layers together is zero, up to one block.

    Blocks that are zero already go first, then those of the lowest score, of equal scores the earlier one; so the same
    input gives the same masks in every process. Weights are counted, not blocks: layers may have blocks of different
    sizes.

    Args:
        scores: name -> importance of each weight, in the weight's shape; any sign, but no NaN.
        weights: name -> weight, of layers that the pattern fits; the order of names breaks ties between layers.
        pattern: what goes together.
        target: share of zeros, 0 to 1.
        scope: "global": one threshold for all layers; "layer" (or "local"): every layer has the target.
        minimum: least share of zeros of each layer (to the next whole block); where it is above the target, the target.
        maximum: highest share of zeros of each layer, never exceeded.

    Returns:
        name -> bool mask of the weight's shape, on its device; True: the weight stays.

    Raises:
        UserError: an impossible target, an unknown scope, scores that are NaN.
    """
    if scope not in ("global", "layer", "local"):
        raise UserError(f"Unknown pruning scope '{scope}'; choose global or layer.")
    minimum = min(minimum, target)
    check_bounds(pattern, target, minimum, maximum)
    target = min(target, pattern.limit)
    split = [
        _split(name, scores[name].detach(), weights[name].detach(), pattern, (minimum, maximum)) for name in weights
    ]
    pruned = _over_all(split, target) if scope == "global" else [_within(layer, target) for layer in split]
    masks = {}
    for (name, weight), gone in zip(weights.items(), pruned, strict=True):
        # Inside a block, too, zeros go first: a group that was pruned before keeps the weights that it kept.
        order = scores[name].detach().masked_fill(weight.detach() == 0, -math.inf)
        masks[name] = pattern.expand(~gone, weight.detach(), order)
    return masks


@dataclass(frozen=True)
class _Split:
    """The blocks of one layer.

    Attributes:
        scores: float32 [blocks], finite, lowest for those that are zero already.
        zeros: weights that a pruned block loses.
        weights: weights of the layer.
        least, most: bounds of the number of pruned blocks.
    """

    scores: Tensor
    zeros: int
    weights: int
    least: int
    most: int


def _split(name: str, scores: Tensor, weight: Tensor, pattern: Pattern, bounds: tuple[float, float]) -> _Split:
    blocks = pattern.reduce(scores, "mean")
    if blocks.isnan().any():
        raise UserError(f"The importance scores of {name} are not numbers (NaN): the training has diverged.")
    gone = pattern.reduce(weight.abs(), "max") == 0
    blocks = blocks.clamp(-_LARGEST / 2, _LARGEST).masked_fill_(gone, -_LARGEST)  # infinities are for bounds
    count = blocks.numel()
    zeros = zeros_per_block(pattern, weight.numel(), count)
    # The little that is added or taken undoes the rounding of products such as 0.98 * 100.
    most = min(math.floor(bounds[1] * weight.numel() / zeros + 1e-6), count)
    least = min(math.ceil(bounds[0] * weight.numel() / zeros - 1e-6), most)
    return _Split(blocks, zeros, weight.numel(), least, most)


def _within(layer: _Split, target: float) -> Tensor:
    """Pruned blocks (bool) of a layer that has to reach the target by itself."""
    count = round(target * layer.weights / layer.zeros)
    return _lowest(layer.scores, min(max(count, layer.least), layer.most))


def _over_all(split: Sequence[_Split], target: float) -> list[Tensor]:
    """Pruned blocks (bool) of every layer, under one threshold and the layers' bounds."""
    scores = [layer.scores for layer in split]
    bounded: set[int] = set()
    while True:
        pruned = _lowest_of_sizes(scores, split, target)
        counts = torch.stack([gone.count_nonzero() for gone in pruned]).tolist()
        outside = {i for i, layer in enumerate(split) if not layer.least <= counts[i] <= layer.most} - bounded
        if not outside:
            return pruned
        # Bounds are built into the scores only of layers that need them, for that costs time. A choice that is the best
        # under some of the bounds and keeps all of them is the best under all.
        for i in outside:
            scores[i] = _bounded(split[i])
        bounded |= outside


def _bounded(layer: _Split) -> Tensor:
    """Scores such that the `least` lowest blocks go before all others and those past the `most` lowest never."""
    scores = layer.scores.masked_fill(~_lowest(layer.scores, layer.most), math.inf)
    return scores.masked_fill_(_lowest(layer.scores, layer.least), -math.inf)


def _lowest_of_sizes(scores: Sequence[Tensor], split: Sequence[_Split], target: float) -> list[Tensor]:
    """The lowest blocks of all layers together that hold the target share of the weights, up to one block."""
    lengths = [layer.numel() for layer in scores]
    sizes = {layer.zeros for layer in split}
    wanted = target * sum(layer.weights for layer in split)
    wanted = min(max(wanted, sum(x.least * x.zeros for x in split)), sum(x.most * x.zeros for x in split))
    flat = torch.cat(list(scores))
    if len(sizes) == 1:
        return list(_lowest(flat, round(wanted / sizes.pop())).split(lengths))
    order = flat.sort(stable=True).indices
    size = torch.cat([torch.full((len(x),), y.zeros, device=x.device) for x, y in zip(scores, split, strict=True)])
    total = size[order].cumsum(0)
    count = int((total <= wanted).count_nonzero())
    if count < len(flat) and flat[order[count]] < math.inf:
        # One block more if that comes closer to the target.
        before = int(total[count - 1]) if count else 0
        count += int(int(total[count]) - wanted < wanted - before)
    return list(torch.zeros_like(flat, dtype=torch.bool).index_fill_(0, order[:count], True).split(lengths))


def _lowest(scores: Tensor, count: int) -> Tensor:
    """Marks (bool) the `count` lowest of 1-D float32 scores, of equal ones the first; much faster than sorting."""
    if count <= 0 or count >= scores.numel():
        return torch.full_like(scores, count > 0, dtype=torch.bool)
    threshold = _kth_lowest(scores, count)
    chosen = scores <= threshold
    excess = int(chosen.count_nonzero()) - count
    if excess:
        ties = (scores == threshold).nonzero().squeeze(1)
        chosen[ties[len(ties) - excess :]] = False
    return chosen


def _kth_lowest(scores: Tensor, count: int) -> Tensor:
    """The value that comes `count`-th (from 1) in float32 scores: counts their upper 16 bits, then the lower ones."""
    parts = scores.split(_CHUNK)
    digit, rank = _digit(((_keys(part) >> 16).add_(0x8000) for part in parts), count)
    inside = torch.cat([part[_keys(part) >> 16 == digit - 0x8000] for part in parts])
    digit, _ = _digit((_keys(part).bitwise_and_(0xFFFF) for part in inside.split(_CHUNK)), rank)
    return inside[_keys(inside).bitwise_and_(0xFFFF) == digit][0]


def _keys(scores: Tensor) -> Tensor:
    """int32 numbers that sort as the float32 scores do, below zero too."""
    bits = scores.view(torch.int32)
    return (bits >> 31).bitwise_and_(0x7FFFFFFF).bitwise_xor_(bits)


def _digit(digits: Iterable[Tensor], count: int) -> tuple[int, int]:
    """The 16-bit digit that comes `count`-th, and which one it is among those equal to it."""
    upto = reduce(torch.add, (torch.bincount(part, minlength=0x10000) for part in digits)).cumsum(0)
    digit = int((upto < count).count_nonzero())
    return digit, count - (int(upto[digit - 1]) if digit else 0)
