"""Why a detector of half the FLOPs is not twice as fast: the time that it takes beyond its FLOPs, by cause."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from secateur.deploy.profiling import LayerTime
from secateur.evaluation.cost import LayerWork

SMALLER_NOT_FASTER = 0.8
"""Below this share of the ratio of FLOPs a speed-up wants an explanation."""
_NARROW = 0.05  # a cause of a smaller share of the gap is not named


@dataclass(frozen=True)
class Machine:
    """What layers are judged by.

    Attributes:
        block: channels that a runtime works on at once.
        balance: FLOPs for each byte below which a layer is bound by memory.
        images: of a call.
    """

    block: int
    balance: float
    images: int = 1

    def off_block(self, work: LayerWork) -> bool:
        """Whether a width of the layer is no multiple of the block; an image's own channels nobody chooses."""
        return work.emits % self.block != 0 or (work.reads % self.block != 0 and work.reads > 4)

    def memory_bound(self, work: LayerWork) -> bool:
        """Whether the layer waits for memory."""
        return work.intensity(self.images) < self.balance

    def flags(self, work: LayerWork | None) -> str:
        """What speaks against the layer, in words; "" for nothing."""
        if work is None:
            return ""
        marks = {"off the block": self.off_block(work), "bound by memory": self.memory_bound(work)}
        return ", ".join(word for word, is_so in marks.items() if is_so)


@dataclass(frozen=True)
class Shares:
    """Where the FLOPs and the time of one detector are.

    Attributes:
        off_block, memory: share of its FLOPs in such layers.
        outside: share of its time outside convolutions; None where no runtime tells it.
    """

    off_block: float
    memory: float
    outside: float | None = None


def shares(work: Mapping[str, LayerWork], machine: Machine, layers: Sequence[LayerTime] = ()) -> Shares:
    """The shares of one detector, from its layers and, where they were timed, from their times."""
    total = sum(item.flops for item in work.values()) or 1
    off_block = sum(item.flops for item in work.values() if machine.off_block(item))
    memory = sum(item.flops for item in work.values() if machine.memory_bound(item))
    time = sum(layer.ms for layer in layers)
    outside = sum(layer.ms for layer in layers if layer.work is None) / time if time else None
    return Shares(off_block / total, memory / total, outside)


def excess(dense: Sequence[LayerTime], small: Sequence[LayerTime], machine: Machine) -> dict[str, float]:
    """Milliseconds that the small detector takes beyond the dense one's time by the ratio of their FLOPs, by cause.

    They add up to exactly that. With f for the ratio of all FLOPs, r for that of one layer and t for times:

    - "outside": what is no convolution, t_small - f t_dense.
    - "kept": f says too much, FLOPs went where they took little time, t_dense (r - f) over the layers.
    - "block", "memory", "narrow": the layer's own t_small - r t_dense, of layers that were cut to a width off the
      block, of others that are bound by memory, and of all others, which do less for each call and each load.
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
    """Whether one can be a cut of the other: most layers of the small one have their names in the dense one."""
    names = _by_name(dense).keys() & _by_name(small).keys()
    return len(names) > 0.5 * len(_by_name(small))


def not_faster(flops_ratio: float | None, speed: float) -> bool:
    """Whether a speed-up is far from what the FLOPs promise."""
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
    """Says what a detector promises and gives, and the reasons, the largest first.

    Args:
        title: the detector and what runs it.
        causes: by `excess`; None where layers were not timed.
        by_layers: the speed by the times of the layers, in which a busy machine shows less.
    """
    quiet = "" if by_layers is None else f" ({by_layers:.2f}x by the fastest runs of every layer)"
    gap = f"{title} has {flops_ratio:.2f}x fewer FLOPs and is {speed:.2f}x as fast{quiet}."
    words = {
        "outside": "outside convolutions (decoding, concats, upsampling, calls)",
        "kept": "in layers that were slow for their FLOPs and were cut less than others (--ms prices time)",
        "block": f"in layers whose width is no multiple of {machine.block} (--round-to {machine.block}, or auto)",
        "memory": f"in layers bound by memory (under {machine.balance:.0f} FLOPs a byte)",
        "narrow": "in layers that do less work a call than before",
    }
    if causes is not None:
        lost = {name: ms for name, ms in causes.items() if ms > 0}
        total = sum(lost.values())
        ranked = sorted(lost, key=lambda name: -lost[name])
        told = [f"{lost[name] / total:.0%} {words[name]}" for name in ranked if lost[name] > _NARROW * total]
        gap += f" Where the time is lost: {'; '.join(told)}." if told else ""
    facts = f"{part.off_block:.0%} are in layers off the block of {machine.block} channels"
    facts += f", {part.memory:.0%} in layers bound by memory (under {machine.balance:.0f} FLOPs a byte)"
    outside = "" if part.outside is None else f"; {part.outside:.0%} of its time is outside convolutions"
    return f"{gap} Of its FLOPs {facts}{outside}."


def _cause(after: LayerWork, before: LayerWork | None, machine: Machine) -> str:
    """What keeps one layer from being as fast for its FLOPs as it was; widths that nobody cut are no cause."""
    whole = (before.reads, before.emits) if before is not None else (0, 0)
    cut = [width for width, was in zip((after.reads, after.emits), whole, strict=True) if width != was]
    if any(width % machine.block for width in cut):
        return "block"
    return "memory" if machine.memory_bound(after) else "narrow"


def _by_name(layers: Sequence[LayerTime]) -> dict[str, LayerTime]:
    return {layer.name: layer for layer in layers if layer.work is not None}


def _flops(layers: Mapping[str, LayerTime]) -> int:
    return sum(layer.work.flops for layer in layers.values() if layer.work is not None)
