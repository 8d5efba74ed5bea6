"""Measuring latency tables, with a clock that follows a formula: grids, the fit, the cache, what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from latency_subjects import FAKE, OFFSET, SLOPE, Clock, table_of
from secateur.checkpoints.channels import check_channels, prune, tables_of
from secateur.cli import main
from secateur.deploy.speed import latency_table as module
from secateur.deploy.speed.latency_table import latency_table, line, measure
from secateur.deploy.timing import MOST_TURNS, STOPWATCHES, Stopwatch, settle
from secateur.errors import UserError
from secateur.families.context import Context
from secateur.families.loading import load_checkpoint
from secateur.networks.checkpoint import Checkpoint
from secateur.pruning.costs import COSTS
from secateur.pruning.graph import trace
from secateur.pruning.latency import LatencyTable, Signature
from secateur.pruning.options import ChannelSettings, LatencySettings, budget_options
from secateur.pruning.settings import CliffSettings, ScoreSettings


@pytest.fixture
def tiny(tiny_weights: Path) -> Checkpoint:
    return load_checkpoint(tiny_weights)


@pytest.fixture(autouse=True)
def formula(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Signature]:
    """Puts the formula in the place of ONNX Runtime, and an empty folder in that of the cache; notes what is timed.

    A formula has no noise, so a line through fewer networks is as good.
    """
    monkeypatch.setattr(module, "CUTS", 3)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "simd_channels", lambda: 8)
    timed: list[Signature] = []

    def layers(signature: Signature, reads: int, emits: Any, threads: int) -> Clock:
        timed.append(signature)
        return FAKE.layers(signature, reads, emits, threads)  # type: ignore[return-value]

    len(STOPWATCHES)  # finds those of the package, which would not replace this one
    monkeypatch.setitem(STOPWATCHES._methods, "onnx", dataclasses.replace(FAKE, layers=layers))
    return timed


def settings(**latency: Any) -> ChannelSettings:
    return ChannelSettings(
        budget_options()(ms="0.8"),
        ScoreSettings("l2"),
        cliff=CliffSettings(cliff=False),
        latency=LatencySettings(**latency),
    )


def test_a_measured_table_prices_networks_as_they_are(tiny: Checkpoint) -> None:
    detector = tiny.build()
    graph = trace(detector)
    table = measure(detector, graph, 64, FAKE, 2)
    assert (table.slope, table.offset, table.r2) == pytest.approx((SLOPE, OFFSET, 1), rel=0.02)
    assert (table.runtime, table.threads, table.image_size, table.block) == ("A Runtime 1.0", 2, 64, 8)
    cost = COSTS["ms"].of(dataclasses.replace(graph, timing=table), 64)
    exact = COSTS["ms"].of(dataclasses.replace(graph, timing=table_of(graph)), 64)
    everything = graph.everything()
    assert cost.price(everything) == pytest.approx(table.dense, rel=0.01)
    assert cost.price(everything) == pytest.approx(exact.price(everything), rel=0.01)


def test_a_table_at_height_and_width(tiny: Checkpoint, formula: list[Signature], tmp_path: Path) -> None:
    detector, shapes = tiny.build(), []

    def network(model: Any, shape: tuple[int, ...], threads: int) -> Any:
        shapes.append(shape)
        return FAKE.network(model, shape, threads)

    len(STOPWATCHES)
    stopwatch = dataclasses.replace(FAKE, network=network)
    table = measure(detector, trace(detector), (64, 96), stopwatch, 2)
    assert table.image_size == (64, 96) and set(shapes) == {(1, 3, 64, 96)}
    exact = COSTS["ms"].of(dataclasses.replace(trace(detector), timing=table_of(trace(detector), (64, 96))), (64, 96))
    assert table.dense == pytest.approx(exact.price(trace(detector).everything()), rel=0.01)
    assert latency_table(detector, (64, 96)).image_size == (64, 96)
    assert latency_table(detector, (64, 64)) == latency_table(detector, 64), "a square has one table"
    names = sorted(file.name for file in (tmp_path / "cache" / "secateur" / "latency").iterdir())
    assert len(names) == 2 and "-64-x-96px-" in names[0] and "-64px-" in names[1]


def test_a_table_for_height_and_width_decides_a_cut_scored_on_squares(
    tiny: Checkpoint, formula: list[Signature], tmp_path: Path
) -> None:
    graph, file = trace(tiny.build()), tmp_path / "camera.json"
    table_of(graph, (64, 96)).save(file)
    _, pruned = prune(tiny, Context(96), settings(latency_table=str(file)))
    cost = COSTS["ms"].of(dataclasses.replace(graph, timing=table_of(graph, (64, 96))), None)
    before, after = cost.price(graph.everything()), cost.price(pruned.plan.keep(graph))
    assert 0.7 * before < after <= 0.8 * before and not formula
    assert pruned.plan.image_size == 96
    with pytest.raises(UserError, match="measured at 64 x 96 px, not at 64 x 64 px"):
        prune(tiny, Context(64), settings(latency_table=str(file)))


@pytest.mark.usefixtures("own_folder")
def test_the_command_names_the_size_that_a_cut_then_takes(
    tiny_weights: Path, formula: list[Signature], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["latency", "--weights", str(tiny_weights), "--img", "64", "96", "--out", "camera.json"])
    told = capsys.readouterr().out
    assert "batch 1, 64 x 96 px" in told
    assert f"prune --weights {tiny_weights} --img 96 --ms 0.5 --latency-table camera.json" in told
    assert LatencyTable.load("camera.json").image_size == (64, 96)


def test_grids_end_at_the_widest_layer(tiny: Checkpoint) -> None:
    graph = trace(tiny.build())
    table = measure(tiny.build(), graph, 64, FAKE, 2)
    first = next(entry for entry in table.entries if entry.signature.kernel == (6, 6))
    assert (first.reads, first.emits) == ((3,), (8,)), "what an image has is no multiple of a block"
    widest = max(len(operation.emits) for operation in graph.operations)
    assert max(entry.emits[-1] for entry in table.entries) == widest
    assert all(len(entry.ms) == len(entry.reads) for entry in table.entries)


def test_it_is_measured_once(tiny: Checkpoint, formula: list[Signature], tmp_path: Path) -> None:
    detector = tiny.build()
    first = latency_table(detector, 64, LatencySettings(threads=2))
    count = len(formula)
    assert latency_table(detector, 64, LatencySettings(threads=2)) == first and len(formula) == count
    latency_table(detector, 64, LatencySettings(threads=1))
    latency_table(detector, 64, LatencySettings(threads=2), refresh=True)
    assert len(formula) == 3 * count
    files = sorted((tmp_path / "cache" / "secateur" / "latency").iterdir())
    assert len(files) == 2 and files[0].name.startswith("a-runtime-1-0-64px-")
    files[0].write_text("{}")
    files[1].write_text("no JSON")
    latency_table(detector, 64, LatencySettings(threads=2))
    assert len(formula) == 4 * count, "a broken file in the cache is measured again"


def test_a_cache_that_cannot_be_written_is_no_error(
    tiny: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert latency_table(tiny.build(), 64, LatencySettings()).r2 > 0.95


def test_a_file_from_elsewhere(tiny: Checkpoint, formula: list[Signature], tmp_path: Path) -> None:
    graph = trace(tiny.build())
    file = tmp_path / "phone.json"
    table_of(graph, 64).save(file)
    told = settings(latency_table=str(file))
    assert tables_of(tiny, Context(64), told).timing == table_of(graph, 64) and not formula
    with pytest.raises(UserError, match="measured at 64 px, not at 96 x 96 px"):
        tables_of(tiny, Context(96), told)
    cut_down = json.loads(file.read_text())
    cut_down["entries"] = cut_down["entries"][1:]
    file.write_text(json.dumps(cut_down))
    with pytest.raises(UserError, match="for another network or image size"):
        tables_of(tiny, Context(64), told)


def test_only_budgets_in_milliseconds_need_a_table(tiny: Checkpoint, formula: list[Signature]) -> None:
    flops = dataclasses.replace(settings(), budget=budget_options()(flops="0.8"))
    assert tables_of(tiny, Context(64), flops).timing is None and not formula


def test_a_cut_meets_its_milliseconds(tiny: Checkpoint) -> None:
    context = Context(64)
    check_channels(tiny, context, settings())
    _, pruned = prune(tiny, context, settings())
    cost = COSTS["ms"].of(pruned.graph, 64)
    dense = cost.price(pruned.graph.everything())
    assert 0.6 * dense < cost.price(pruned.plan.keep(pruned.graph)) <= 0.8 * dense
    impossible = dataclasses.replace(settings(), budget=budget_options()(ms="0.001"))
    with pytest.raises(UserError, match=r"The budget ms 0\.001 cannot be reached: the closest .* ms"):
        check_channels(tiny, context, impossible)


def test_a_poor_fit_is_refused(tiny: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CUTS", 10)
    random = np.random.default_rng(0)
    noise: Stopwatch = dataclasses.replace(FAKE, network=lambda *_: Clock([float(random.uniform(1, 9))]))
    with pytest.raises(UserError, match=r"explains only \d+% of the variance .* when the machine is less busy"):
        measure(tiny.build(), trace(tiny.build()), 64, noise, 2)


def test_a_line_through_networks() -> None:
    sums = np.array([1.0, 2.0, 3.0, 4.0])
    assert line(sums, 2 * sums + 0.5) == pytest.approx((2, 0.5, 1))
    assert line(sums, np.array([2.0, 2.0, 2.0, 2.0]))[2] == 0


class Falling(Clock):
    """A time that falls by a tenth with every turn, down to a floor."""

    def turn(self) -> None:
        super().turn()
        self.times = [max(0.9 * self.times[0], 1.0)]


def test_times_are_taken_until_they_no_longer_fall() -> None:
    steady, falling, endless = Clock([5.0]), Falling([1.2]), Falling([1e9])
    done: list[int] = []
    assert settle([steady, falling], 2, done.append) == [[5.0], [1.0]]
    assert (steady.turns, falling.turns) == (3, 4) and sum(done) == 2 * MOST_TURNS
    settle([endless])
    assert endless.turns == MOST_TURNS


def test_settings_that_cannot_be_meant(tiny: Checkpoint) -> None:
    with pytest.raises(UserError, match="--threads is -1"):
        LatencySettings(threads=-1)
    with pytest.raises(UserError, match="Unknown runtime 'tflite'; choose one of onnx, torch"):
        latency_table(tiny.build(), 64, LatencySettings(runtime="tflite"))


def test_a_runtime_that_is_not_installed(tiny: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise ImportError

    monkeypatch.setitem(STOPWATCHES._methods, "onnx", dataclasses.replace(FAKE, extra="onnx", version=missing))
    with pytest.raises(UserError, match=r"not installed\. Run pip install 'secateur\[onnx\]'"):
        latency_table(tiny.build(), 64, LatencySettings(runtime="onnx"))


def test_a_plain_network(formula: list[Signature]) -> None:
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 32, 3, 2), torch.nn.ReLU(), torch.nn.Conv2d(32, 32, 3), torch.nn.Conv2d(32, 4, 1)]
    table = latency_table(torch.nn.Sequential(*layers), 64, LatencySettings(threads=2))
    assert {entry.signature.activation for entry in table.entries} == {"relu", ""} and formula
