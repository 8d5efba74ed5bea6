"""Selects the blocks of weights to zero: lowest scores first, up to a target, within bounds for every layer."""

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
_CHUNK = 1 << 18  # elements whose intermediate results fit into the CPU cache
# So that 2/3 written as 0.6667 is treated as the limit of 1:3.
_SLACK = 5e-4
# Precision of the share of blocks: 1/4096.
_BISECTIONS = 12


def prunable_layers(
    detector: nn.Module,
    pattern: Pattern,
    exclude: Iterable[str] = (),
    kinds: tuple[type[nn.Module], ...] = LAYERS,
) -> tuple[list[str], list[str]]:
    """Names of the weights that the pattern fits, and of those that stay dense because it does not.

    Args:
        detector: any module.
        pattern: see `secateur.sparsity.patterns`.
        exclude: patterns (`*`, `?`) of layers, or of modules that contain them, which are in neither list ("model.24",
            "*.cv3.*").
        kinds: classes of the layers.

    Returns:
        Names of tensors ("model.0.conv.weight"), in network order.

    Raises:
        UserError: an exclusion matches no layer, or no layer remains.
    """
    exclude = tuple(exclude)
    weights = {f"{name}.weight": module.get_parameter("weight") for name, module in layers(detector, kinds)}
    for text in exclude:
        if not any(_matches(name, (text,)) for name in weights):
            known = ", ".join(name.removesuffix(".weight") for name in list(weights)[:3])
            raise UserError(
                f"The exclusion '{text}' matches no layer with weights. Layer names look like this: {known}."
            )
    open_to_it = {name: weight for name, weight in weights.items() if not _matches(name, exclude)}
    covered = [name for name, weight in open_to_it.items() if pattern.fits(weight)]
    if not covered:
        raise UserError(
            f"The pruning pattern {pattern.name} fits none of the {len(open_to_it)} layers that are not excluded. "
            "Use a pattern whose numbers divide their channels, such as 1x1, or exclude fewer layers."
        )
    return covered, [name for name in open_to_it if name not in set(covered)]


def layers(detector: nn.Module, kinds: tuple[type[nn.Module], ...] = LAYERS) -> list[tuple[str, nn.Module]]:
    """Names and modules of the convolutions and linear layers."""
    return [(name, module) for name, module in detector.named_modules() if isinstance(module, kinds)]


def _matches(tensor_name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a pattern matches the layer or a module that contains it."""
    parts = tensor_name.split(".")
    names = [".".join(parts[: n + 1]) for n in range(len(parts))]
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


def present_sparsity(weights: Iterable[Tensor]) -> float:
    """Share of zeros among weights of any shape; 0 if there are none."""
    zeros = total = 0
    for weight in weights:
        zeros += weight.numel() - int(weight.count_nonzero())
        total += weight.numel()
    return zeros / max(total, 1)


def check_target(
    present: float,
    target: float,
    option: str = "--target-sparsity",
    remedy: str = "set a higher target or lock the zeros",
) -> None:
    """Checks that the target is not below the current share of zeros.

    Raises:
        UserError: it is; the message names both.
    """
    if present > target:
        raise UserError(
            f"The model already has {100 * present:.1f} % zeros, more than {option} {target:g}. To continue, {remedy}."
        )


def check_bounds(
    pattern: Pattern, target: float, minimum: float = 0.0, maximum: float = 1.0, option: str = "--target-sparsity"
) -> None:
    """Checks that the pattern and the bounds of layers allow a share of zeros.

    Raises:
        UserError: they do not; the message names the numbers.
    """
    if not 0 <= target <= 1:
        raise UserError(f"{option} is {target:g}, but as a share of the weights it must be between 0 and 1.")
    if not 0 <= minimum <= maximum <= 1:
        raise UserError(
            f"The share of zeros per layer is limited to {minimum:g} (--min-sparsity) to {maximum:g} (--max-sparsity). "
            "Both must be between 0 and 1, and the minimum must not exceed the maximum."
        )
    if target > pattern.limit + _SLACK:
        raise UserError(
            f"{option} {target:g} exceeds the limit of the pattern {pattern.name}, which can zero at most a share of "
            f"{pattern.limit:.4g}. Lower it, or use another pattern."
        )
    if target > maximum:
        raise UserError(
            f"{option} {target:g} is more than the {maximum:g} allowed per layer (--max-sparsity). Change one of them."
        )
    if minimum > target:
        raise UserError(
            f"{option} {target:g} is less than the {minimum:g} required per layer (--min-sparsity). Change one of them."
        )


def beside(
    held: Mapping[str, Tensor], wanted: float, choose: Callable[[float], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """Masks with the share `wanted` of zeros, including the zeros of `held`, which are not changed.

    Zeros of an earlier pruning with another pattern count wherever they are, so fewer blocks are needed. The number is
    found by bisection.

    Args:
        held: masks by weight, bool with the shape of the weight (True: keep); weights without a mask have no held
            zeros.
        choose: maps a share of zeros in blocks to masks of all weights.
    """

    def joined(blocks: float) -> dict[str, Tensor]:
        return {name: mask & held[name] if name in held else mask for name, mask in choose(blocks).items()}

    def zeros(masks: dict[str, Tensor]) -> float:
        return present_sparsity(masks.values())

    masks, low, high = joined(wanted), 0.0, wanted
    # Without held zeros there is nothing to correct: `choose` is exact to one block.
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
    """Masks with which the share `target` of the weights of all layers is zero, exact to one block.

    Blocks that are already zero are chosen first, then those with the lowest scores; on a tie, the earlier ones. So the
    same input gives the same masks in every process. Weights are counted instead of blocks, because block sizes can
    differ between layers.

    Args:
        scores: name -> importance of each weight, with the shape of the weight; any sign, but no NaN.
        weights: name -> weight, of layers that the pattern fits; the order of names resolves ties between layers.
        pattern: which weights are zeroed together.
        target: share of zeros, 0 to 1.
        scope: "global": one threshold for all layers; "layer" (or "local"): every layer has the target.
        minimum: minimum share of zeros of each layer (rounded up to whole blocks); limited to the target.
        maximum: maximum share of zeros of each layer, never exceeded.

    Returns:
        name -> bool mask with the shape of the weight, on its device; True: keep.

    Raises:
        UserError: the target is impossible, the scope is unknown, or scores are NaN.
    """
    if scope not in ("global", "layer", "local"):
        raise UserError(f"Unknown pruning scope '{scope}'. Use global or layer.")
    minimum = min(minimum, target)
    check_bounds(pattern, target, minimum, maximum)
    target = min(target, pattern.limit)
    split = [
        _split(name, scores[name].detach(), weights[name].detach(), pattern, (minimum, maximum)) for name in weights
    ]
    pruned = _over_all(split, target) if scope == "global" else [_within(layer, target) for layer in split]
    masks = {}
    for (name, weight), gone in zip(weights.items(), pruned, strict=True):
        # Zeros are also chosen first within a block: a group that was pruned before keeps the same weights.
        order = scores[name].detach().masked_fill(weight.detach() == 0, -math.inf)
        masks[name] = pattern.expand(~gone, weight.detach(), order)
    return masks


@dataclass(frozen=True)
class _Split:
    """The blocks of one layer.

    Attributes:
        scores: float32 [blocks], finite, lowest for blocks that are already zero.
        zeros: number of weights that a pruned block loses.
        weights: number of weights of the layer.
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
        raise UserError(f"The importance scores of {name} are NaN: the training has diverged. Lower the learning rate.")
    gone = pattern.reduce(weight.abs(), "max") == 0
    blocks = blocks.clamp(-_LARGEST / 2, _LARGEST).masked_fill_(gone, -_LARGEST)  # infinity is reserved for bounds
    count = blocks.numel()
    zeros = zeros_per_block(pattern, weight.numel(), count)
    # The small constants compensate for rounding of products such as 0.98 * 100.
    most = min(math.floor(bounds[1] * weight.numel() / zeros + 1e-6), count)
    least = min(math.ceil(bounds[0] * weight.numel() / zeros - 1e-6), most)
    return _Split(blocks, zeros, weight.numel(), least, most)


def _within(layer: _Split, target: float) -> Tensor:
    """Pruned blocks (bool) of a layer that must reach the target by itself."""
    count = round(target * layer.weights / layer.zeros)
    return _lowest(layer.scores, min(max(count, layer.least), layer.most))


def _over_all(split: Sequence[_Split], target: float) -> list[Tensor]:
    """Pruned blocks (bool) of every layer, with one threshold and the bounds of the layers."""
    scores = [layer.scores for layer in split]
    bounded: set[int] = set()
    while True:
        pruned = _lowest_of_sizes(scores, split, target)
        counts = torch.stack([gone.count_nonzero() for gone in pruned]).tolist()
        outside = {i for i, layer in enumerate(split) if not layer.least <= counts[i] <= layer.most} - bounded
        if not outside:
            return pruned
        # Bounds are built into the scores only for layers that need them, because that takes time. A choice that is
        # optimal for some of the bounds and satisfies all of them is optimal for all.
        for i in outside:
            scores[i] = _bounded(split[i])
        bounded |= outside


def _bounded(layer: _Split) -> Tensor:
    """Scores such that the `least` lowest blocks come before all others and those past the `most` lowest are never
    chosen."""
    scores = layer.scores.masked_fill(~_lowest(layer.scores, layer.most), math.inf)
    return scores.masked_fill_(_lowest(layer.scores, layer.least), -math.inf)


def _lowest_of_sizes(scores: Sequence[Tensor], split: Sequence[_Split], target: float) -> list[Tensor]:
    """The lowest blocks of all layers that contain the target share of the weights, exact to one block."""
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
        # One more block, if that is closer to the target.
        before = int(total[count - 1]) if count else 0
        count += int(int(total[count]) - wanted < wanted - before)
    return list(torch.zeros_like(flat, dtype=torch.bool).index_fill_(0, order[:count], True).split(lengths))


def _lowest(scores: Tensor, count: int) -> Tensor:
    """Marks (bool) the `count` lowest of 1-D float32 scores; on a tie, the first ones. Much faster than sorting."""
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
    """The `count`-th lowest value (from 1) of float32 scores: counts their upper 16 bits, then the lower ones."""
    parts = scores.split(_CHUNK)
    digit, rank = _digit(((_keys(part) >> 16).add_(0x8000) for part in parts), count)
    inside = torch.cat([part[_keys(part) >> 16 == digit - 0x8000] for part in parts])
    digit, _ = _digit((_keys(part).bitwise_and_(0xFFFF) for part in inside.split(_CHUNK)), rank)
    return inside[_keys(inside).bitwise_and_(0xFFFF) == digit][0]


def _keys(scores: Tensor) -> Tensor:
    """int32 numbers with the same order as the float32 scores, including negative ones."""
    bits = scores.view(torch.int32)
    return (bits >> 31).bitwise_and_(0x7FFFFFFF).bitwise_xor_(bits)


def _digit(digits: Iterable[Tensor], count: int) -> tuple[int, int]:
    """The 16-bit digit of the `count`-th value, and its index among values with this digit."""
    upto = reduce(torch.add, (torch.bincount(part, minlength=0x10000) for part in digits)).cumsum(0)
    digit = int((upto < count).count_nonzero())
    return digit, count - (int(upto[digit - 1]) if digit else 0)
