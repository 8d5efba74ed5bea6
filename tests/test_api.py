"""The Python API: every word has an example, and the examples run."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import secateur
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import Topology
from secateur.networks.checkpoint import Checkpoint


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Examples write into the current folder."""
    monkeypatch.chdir(tmp_path)


def test_every_word_is_documented_with_a_runnable_example() -> None:
    for name in secateur.__all__:
        assert ">>>" in (getattr(secateur, name).__doc__ or ""), name
    attempted = 0
    for name in (
        "api.models",
        "api.listing",
        "api.cutting",
        "api.forecasting",
        "api.removing",
        "api.tables",
        "api.using",
        "pruning.evidence",
    ):
        module = importlib.import_module(f"secateur.{name}")
        names = {word: getattr(secateur, word) for word in secateur.__all__} | {"Checkpoint": Checkpoint}
        result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE, extraglobs=names)
        assert result.failed == 0
        attempted += result.attempted
    assert attempted >= 40


def test_lists_are_those_of_the_registries() -> None:
    assert secateur.list_criteria() == ["fisher", "gamma", "gamma_kernel", "l1", "l2", "random", "taylor"]
    assert secateur.list_costs() == ["flops", "fps", "ms", "params", "percent", "size"]
    assert secateur.list_patterns() == ["N:M", "NxM"]
    assert {"onnx", "yolov5"} < set(secateur.list_formats())
    assert {"best", "intel"} < set(secateur.list_recipes())
    for name in (name for name in secateur.__all__ if name.startswith("list_")):
        assert getattr(secateur, name).__name__ == name and getattr(secateur, name)(), name


def test_plan_and_history_survive_saving() -> None:
    checkpoint = Checkpoint.of(Detector(Topology.from_yaml("yolov5n", nc=3)))
    graph = secateur.trace(checkpoint)
    plan = secateur.allocate(graph, secateur.score(checkpoint, graph, "l2"), params=0.5)
    secateur.save(secateur.cut(checkpoint, graph, plan), "smaller.safetensors")
    again = secateur.load("smaller.safetensors")
    assert [stage.verb for stage in again.history] == ["prune"]
    assert again.plan["after"]["parameters"] == plan.after.parameters


def test_what_is_printed_is_a_few_lines() -> None:
    checkpoint = Checkpoint.of(Detector(Topology.from_yaml("yolov5n", nc=3)))
    graph = secateur.trace(checkpoint)
    plan = secateur.allocate(graph, secateur.score(checkpoint, graph, "l2"), params=0.5)
    for thing in (checkpoint, plan, graph):
        assert len(str(thing).splitlines()) <= 8
        assert len(repr(thing)) < 1000


def test_the_version_is_that_of_the_package() -> None:
    assert secateur.__version__.count(".") == 2
