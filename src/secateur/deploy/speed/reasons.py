"""Explains missing speed-ups: the time that a cut detector takes beyond its share of FLOPs, by cause."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from secateur.deploy.profiling import LayerTime
from secateur.evaluation.cost import LayerWork

SMALLER_NOT_FASTER = 0.8
"""A speed-up below this share of the FLOPs ratio is explained."""
_NARROW = 0.05  # causes with a smaller share of the gap are omitted


@dataclass(frozen=True)
class Machine:
    """Properties of the machine by which layers are judged.

    Attributes:
        block: number of channels that the runtime processes at once.
        balance: FLOPs per byte below which a layer is bound by memory.
        images: batch size.
    """

    block: int
    balance: float
    images: int = 1

    def off_block(self, work: LayerWork) -> bool:
        """Whether a width of the layer is not a multiple of the block. Image channels are ignored because they are
        fixed.
        """
        return work.emits % self.block != 0 or (work.reads % self.block != 0 and work.reads > 4)

    def memory_bound(self, work: LayerWork) -> bool:
        """Whether the layer is bound by memory."""
        return work.intensity(self.images) < self.balance

    def flags(self, work: LayerWork | None) -> str:
        """The layer's inefficiencies as text; "" if there are none."""
        if work is None:
            return ""
        marks = {"off the block": self.off_block(work), "bound by memory": self.memory_bound(work)}
        return ", ".join(word for word, is_so in marks.items() if is_so)


@dataclass(frozen=True)
class Shares:
    """Where a detector spends its FLOPs and its time.

    Attributes:
        off_block, memory: share of its FLOPs in such layers.
        outside: share of its time outside convolutions; None if unknown.
    """

    off_block: float
    memory: float
    outside: float | None = None


def shares(work: Mapping[str, LayerWork], machine: Machine, layers: Sequence[LayerTime] = ()) -> Shares:
    """The shares of one detector, from its layers and from their times if they were measured."""
    total = sum(item.flops for item in work.values()) or 1
    off_block = sum(item.flops for item in work.values() if machine.off_block(item))
    memory = sum(item.flops for item in work.values() if machine.memory_bound(item))
    time = sum(layer.ms for layer in layers)
    outside = sum(layer.ms for layer in layers if layer.work is None) / time if time else None
    return Shares(off_block / total, memory / total, outside)


def excess(dense: Sequence[LayerTime], small: Sequence[LayerTime], machine: Machine) -> dict[str, float]:
    """Milliseconds of the small detector beyond the dense one's time multiplied by the ratio of their FLOPs, by cause.

    The causes add up to the exact total. With f the ratio of all FLOPs, r that of one layer, and t times:

    - "outside": everything except convolutions, t_small - f t_dense.
    - "kept": f is too optimistic because FLOPs were removed where they cost little time, t_dense (r - f) over the
      layers.
    - "block", "memory", "narrow": the layer's own t_small - r t_dense. "block" for layers cut to a width off the block,
      "memory" for other memory-bound layers, "narrow" for all others, which do less work per call and per load.
    """
    whole, cut = _by_name(dense), _by_name(small)
    f = _flops(cut) / _flops(whole)
    found = dict.fromkeys(("outside", "kept", "block", "memory", "narrow"), 0.0)
    found["outside"] = sum(x.ms for x in small if x.work is None) - f * sum(x.ms for x in dense if x.work is None)
    for name in {**whole, **cut}:
        before, after = whole.get(name), cut.get(name)
        expected = 0.0
        if before is not None and before.work is not None:
            own = after.work.flops / before.work.flops if after is not None and after.work is not None else 0.0
            expected = before.ms * own
            found["kept"] += expected - f * before.ms
        if after is not None and after.work is not None:
            found[_cause(after.work, before.work if before is not None else None, machine)] += after.ms - expected
    return found


def alike(dense: Sequence[LayerTime], small: Sequence[LayerTime]) -> bool:
    """Whether one detector can be a cut of the other: most layer names of the small one occur in the dense one."""
    names = _by_name(dense).keys() & _by_name(small).keys()
    return len(names) > 0.5 * len(_by_name(small))


def not_faster(flops_ratio: float | None, speed: float) -> bool:
    """Whether a speed-up is far below the FLOPs ratio."""
    return flops_ratio is not None and flops_ratio > 1.05 and speed < SMALLER_NOT_FASTER * flops_ratio


def sentence(
    title: str,
    flops_ratio: float,
    speed: float,
    machine: Machine,
    part: Shares,
    causes: Mapping[str, float] | None = None,
    by_layers: float | None = None,
) -> str:
    """Describes the expected and actual speed-up of a detector and the reasons for the gap, largest first.

    Args:
        title: the detector and its runtime.
        flops_ratio: FLOPs of the dense detector divided by those of this one.
        speed: measured speed-up.
        machine: properties of the machine.
        part: shares of the detector.
        causes: from `excess`; None if layers were not timed.
        by_layers: speed-up from layer times, which are less affected by background load.
    """
    quiet = "" if by_layers is None else f" ({by_layers:.2f}x by the fastest runs of every layer)"
    gap = f"{title} has {flops_ratio:.2f}x fewer FLOPs and is {speed:.2f}x as fast{quiet}."
    words = {
        "outside": "outside convolutions (decoding, concats, upsampling, calls)",
        "kept": "in layers with few FLOPs per millisecond that were cut less than others (--ms budgets account for "
        "this)",
        "block": f"in layers whose width is not a multiple of {machine.block} (--round-to {machine.block}, or auto)",
        "memory": f"in layers bound by memory (under {machine.balance:.0f} FLOPs a byte)",
        "narrow": "in layers that do less work per call than before",
    }
    if causes is not None:
        lost = {name: ms for name, ms in causes.items() if ms > 0}
        total = sum(lost.values())
        ranked = sorted(lost, key=lambda name: -lost[name])
        told = [f"{lost[name] / total:.0%} {words[name]}" for name in ranked if lost[name] > _NARROW * total]
        gap += f" Causes of the gap: {'; '.join(told)}." if told else ""
    facts = f"{part.off_block:.0%} are in layers off the block of {machine.block} channels"
    facts += f", {part.memory:.0%} in layers bound by memory (under {machine.balance:.0f} FLOPs a byte)"
    outside = "" if part.outside is None else f"; {part.outside:.0%} of its time is outside convolutions"
    return f"{gap} Of its FLOPs {facts}{outside}."


def _cause(after: LayerWork, before: LayerWork | None, machine: Machine) -> str:
    """The cause of one layer's lower efficiency compared with before. Widths that were not cut are not a cause."""
    whole = (before.reads, before.emits) if before is not None else (0, 0)
    cut = [width for width, was in zip((after.reads, after.emits), whole, strict=True) if width != was]
    if any(width % machine.block for width in cut):
        return "block"
    return "memory" if machine.memory_bound(after) else "narrow"


def _by_name(layers: Sequence[LayerTime]) -> dict[str, LayerTime]:
    return {layer.name: layer for layer in layers if layer.work is not None}


def _flops(layers: Mapping[str, LayerTime]) -> int:
    return sum(layer.work.flops for layer in layers.values() if layer.work is not None)
