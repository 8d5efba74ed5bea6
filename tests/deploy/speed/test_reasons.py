"""Why a smaller detector is not faster: what its time is beyond its FLOPs, by cause, from made-up times."""

from __future__ import annotations

from dataclasses import replace

import pytest

from secateur.deploy.profiling import LayerTime
from secateur.deploy.speed.balance import machine_balance
from secateur.deploy.speed.reasons import Machine, Shares, alike, excess, not_faster, sentence, shares
from secateur.evaluation.cost import LayerWork

MACHINE = Machine(block=16, balance=4.0)
OTHER = LayerTime("(outputs)", "decode", 1.0)


def work(reads: int, emits: int, kernel: int = 3, side: int = 20) -> LayerWork:
    weights = reads * emits * kernel**2
    flops = 2 * weights * side**2
    return LayerWork(f"conv {kernel}x{kernel}", reads, emits, (side, side), flops, (reads + emits) * side**2, weights)


def layer(name: str, ms: float, *widths: int, kernel: int = 3) -> LayerTime:
    return LayerTime(name, f"conv {kernel}x{kernel}", ms, work(*widths, kernel=kernel))


def gap(dense: list[LayerTime], small: list[LayerTime]) -> float:
    """Time beyond the dense one's by the ratio of FLOPs."""
    flops = [sum(x.work.flops for x in layers if x.work) for layers in (dense, small)]
    return sum(x.ms for x in small) - flops[1] / flops[0] * sum(x.ms for x in dense)


def test_times_that_follow_the_flops_leave_nothing_to_explain() -> None:
    dense, small = [layer("a", 4.0, 64, 64), replace(OTHER, ms=2.0)], [layer("a", 1.0, 32, 32), replace(OTHER, ms=0.5)]
    assert excess(dense, small, MACHINE) == pytest.approx(
        dict.fromkeys(("outside", "kept", "block", "memory", "narrow"), 0)
    )


@pytest.mark.parametrize(
    ("cause", "small"),
    [
        ("block", layer("a", 3.0, 64, 24)),
        ("narrow", layer("a", 3.0, 64, 32)),
        ("memory", layer("a", 3.0, 64, 1, kernel=1)),
    ],
)
def test_each_layer_has_one_cause(cause: str, small: LayerTime) -> None:
    machine = replace(MACHINE, block=1) if cause == "memory" else MACHINE
    dense = [layer("a", 4.0, 64, 64, kernel=1 if cause == "memory" else 3)]
    found = excess(dense, [small], machine)
    assert found.pop(cause) == pytest.approx(gap(dense, [small])) and gap(dense, [small]) > 0
    assert set(found.values()) == {0.0}


def test_widths_that_nobody_cut_are_no_cause() -> None:
    dense, small = [layer("a", 4.0, 64, 255)], [layer("a", 3.0, 32, 255)]
    found = excess(dense, small, MACHINE)
    assert found["narrow"] == pytest.approx(1) and found["block"] == 0
    assert MACHINE.flags(small[0].work) == "off the block"


def test_causes_add_up() -> None:
    dense = [
        layer("a", 4.0, 3, 64),
        OTHER,
        layer("b", 3.0, 64, 64),
        layer("gone", 2.0, 64, 64),
        layer("c", 1.0, 64, 255),
    ]
    small = [
        layer("a", 3.5, 3, 40),
        OTHER,
        layer("b", 2.0, 40, 32),
        layer("new", 0.5, 32, 32),
        layer("c", 0.9, 32, 255),
    ]
    found = excess(dense, small, MACHINE)
    assert sum(found.values()) == pytest.approx(gap(dense, small))
    share = sum(x.work.flops for x in small if x.work) / sum(x.work.flops for x in dense if x.work)
    assert found["outside"] == pytest.approx(1 - share)


def test_flops_that_went_where_they_took_little_time() -> None:
    dense = [layer("slow", 9.0, 32, 32), layer("fast", 1.0, 64, 64)]
    small = [layer("slow", 9.0, 32, 32), layer("fast", 0.25, 32, 32)]
    found = excess(dense, small, MACHINE)
    assert found["kept"] == pytest.approx(gap(dense, small)) and found["narrow"] == pytest.approx(0)


def test_shares_of_flops_and_time() -> None:
    layers = [layer("a", 2.0, 3, 16), layer("b", 1.0, 16, 24), replace(layer("c", 4.0, 16, 16, kernel=1)), OTHER]
    by_name = {item.name: item.work for item in layers if item.work}
    total = sum(item.flops for item in by_name.values())
    found = shares(by_name, Machine(16, 10.0), layers)
    assert found.off_block == pytest.approx(by_name["b"].flops / total), "an image's own channels do not count"
    assert found.memory == pytest.approx(by_name["c"].flops / total) and found.outside == pytest.approx(1 / 8)
    assert shares(by_name, MACHINE).outside is None
    assert shares(by_name, Machine(8, 0.0)) == Shares(0, 0)


def test_many_images_are_less_bound_by_memory() -> None:
    wide = work(512, 512, kernel=1, side=1)
    assert replace(MACHINE, images=64).flags(wide) == "" and MACHINE.flags(wide) == "bound by memory"
    assert MACHINE.flags(work(16, 9, kernel=1)) == "off the block, bound by memory" and MACHINE.flags(None) == ""


@pytest.mark.parametrize(
    ("flops", "speed", "told"), [(2.0, 1.5, True), (2.0, 1.7, False), (None, 0.5, False), (1.0, 0.5, False)]
)
def test_when_an_explanation_is_due(flops: float | None, speed: float, told: bool) -> None:
    assert not_faster(flops, speed) is told


def test_the_largest_reason_comes_first() -> None:
    causes = {"outside": 1.0, "kept": -0.2, "block": 3.0, "memory": 0.0, "narrow": 0.1}
    text = sentence("cut.pt on PyTorch", 2.0, 1.2, MACHINE, Shares(0.4, 0.1, 0.25), causes, 1.3)
    assert text.startswith(
        "cut.pt on PyTorch has 2.00x fewer FLOPs and is 1.20x as fast (1.30x by the fastest runs of every layer)."
    )
    assert "Causes of the gap: 73% in layers whose width is not a multiple of 16" in text
    assert "; 24% outside convolutions" in text and "less work per call" not in text and "--ms" not in text
    assert text.endswith("under 4 FLOPs a byte); 25% of its time is outside convolutions.")
    untimed = sentence("cut.pt", 2.0, 1.2, MACHINE, Shares(0.4, 0.1))
    assert untimed.startswith("cut.pt has 2.00x fewer FLOPs and is 1.20x as fast. Of")
    assert "Where" not in untimed and "Of its FLOPs 40% are in layers off the block of 16 channels, 10%" in untimed


def test_a_cut_is_known_by_the_names_of_its_layers() -> None:
    dense = [layer("a", 1.0, 16, 16), layer("b", 1.0, 16, 16), OTHER]
    assert alike(dense, [layer("a", 1.0, 16, 8), OTHER])
    assert not alike(dense, [layer("x", 1.0, 16, 8), layer("a", 1.0, 8, 8), OTHER])


def test_arithmetic_is_faster_than_memory() -> None:
    assert machine_balance(1) > 0.1
