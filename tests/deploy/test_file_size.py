"""Tables of file sizes: what they say of cuts is what is written, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from secateur.checkpoints.channels import check_channels, prune, tables_of
from secateur.cli import main
from secateur.deploy import file_size as module
from secateur.deploy.exporters import EXPORTERS, bytes_written, export
from secateur.deploy.file_size import settings_of_file, size_table
from secateur.deploy.settings import ExportSettings
from secateur.errors import UserError
from secateur.families.context import Context
from secateur.families.loading import load_checkpoint
from secateur.families.only_classes import only_classes
from secateur.networks.checkpoint import Checkpoint
from secateur.pruning.allocation import allocate
from secateur.pruning.budget import Budget
from secateur.pruning.costs import COSTS
from secateur.pruning.depth import candidates, remove
from secateur.pruning.graph import trace
from secateur.pruning.options import ChannelSettings, budget_options
from secateur.pruning.settings import CliffSettings, Guards, ScoreSettings
from secateur.pruning.surgery import cut

FORMATS = ["onnx-fp16", "onnx-int8", "torchscript-fp32", "yolov5-fp32"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def tiny(tiny_weights: Path) -> Checkpoint:
    return load_checkpoint(tiny_weights)


def settings(**budgets: str) -> ChannelSettings:
    return ChannelSettings(budget_options()(**budgets), ScoreSettings("l2"), cliff=CliffSettings(cliff=False))


def written(network: nn.Module, kind: str) -> float:
    return bytes_written(network, 64, settings_of_file(kind), {}) / 1e6


@pytest.mark.parametrize("kind", FORMATS)
def test_predicted_sizes_are_those_of_the_files(lively, kind: str) -> None:
    if EXPORTERS[kind.partition("-")[0]].missing():
        pytest.skip(f"{kind} is not installed")
    network = lively("yolov5n")
    table = size_table(network, 64, kind)
    shorter = remove(network, [block.name for block in candidates(network)][:2])
    for whole, share in ((network, 0.5), (shorter, 0.2)):
        graph = dataclasses.replace(trace(whole), sizing=table)
        scores = np.random.default_rng(1).random(graph.units)
        plan = allocate(graph, scores, Budget("params", share), Guards(round_to=1))
        predicted = COSTS["size"].of(graph, None).price(plan.keep(graph))
        assert predicted == pytest.approx(
            written(cut(whole, graph, plan), kind), rel=0.006 if kind.startswith("torchscript") else 0.005
        )


def test_a_table_is_written_once(tiny: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    network = tiny.build()
    first = size_table(network, 64, "yolov5")
    monkeypatch.setattr(module, "bytes_written", lambda *_: pytest.fail("written again"))
    assert size_table(network, 64, "yolov5-fp32") == first
    assert (first.kind, first.stored.channel) == ("yolov5-fp32", 16)


def test_without_blocks_one_stand_in_gives_the_same_size(tiny: Checkpoint) -> None:
    network = tiny.build()
    short, whole = (size_table(network, 64, "yolov5-fp32", blocks=blocks) for blocks in (False, True))
    assert short.layer == 0 < whole.layer
    graph = trace(network)
    plan = allocate(graph, np.random.default_rng(1).random(graph.units), Budget("params", 0.5))
    sizes = [
        COSTS["size"].of(dataclasses.replace(graph, sizing=table), None).price(plan.keep(graph))
        for table in (short, whole)
    ]
    assert sizes[0] == pytest.approx(sizes[1], rel=1e-9)


def test_constants_of_the_decoding_grow_with_the_image(tiny: Checkpoint) -> None:
    pytest.importorskip("onnx")
    small, large = (size_table(tiny.build(), side, "onnx-fp32") for side in (64, 256))
    assert large.fixed > small.fixed + 4 * (256**2 - 64**2) / 16**2
    assert large.layer == pytest.approx(small.layer, rel=0.05)


def test_kinds_of_files() -> None:
    assert settings_of_file() == settings_of_file("onnx-fp16") == settings_of_file("onnx")
    assert settings_of_file("onnx-int8") == ExportSettings(format="onnx", precision="int8")
    assert settings_of_file("yolov5").precision == "fp32"
    for kind in ("tensorrt", "onnx-fp8", "onnx-int8-x", "-"):
        with pytest.raises(UserError, match=rf"does not support {kind}\. Choose one of .*onnx-int8"):
            settings_of_file(kind)


def test_formats_that_are_not_sized_or_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = EXPORTERS["onnx"]
    monkeypatch.setitem(EXPORTERS._methods, "onnx", dataclasses.replace(exporter, stored={}))
    with pytest.raises(UserError, match="size of ONNX files cannot be predicted"):
        settings_of_file("onnx-int8")
    missing = dataclasses.replace(exporter, packages=("no_such_package",))
    monkeypatch.setitem(EXPORTERS._methods, "onnx", missing)
    with pytest.raises(UserError, match=r"needs the package no_such_package: pip install 'secateur\[onnx\]'"):
        settings_of_file()


def test_a_cut_to_a_size(tiny: Checkpoint, tmp_path: Path) -> None:
    dense = written(tiny.build(), "yolov5")
    target = 0.6 * dense
    wanted = settings(size=f"{target * 1000:.3f}KB:yolov5")
    check_channels(tiny, Context(64), wanted)
    smaller, pruned = prune(tiny, Context(64), wanted)
    file = export(smaller.build(), tmp_path / "pruned.pt", 64, ExportSettings(format="yolov5"))
    assert 0.97 * target < file.file_mb <= target
    assert pruned.plan.budget is not None and pruned.plan.budget.file == "yolov5"


def test_shares_and_several_budgets(tiny: Checkpoint) -> None:
    wanted = settings(size="0.5:yolov5", flops="0.7")
    tables = tables_of(tiny, Context(64), wanted)
    assert tables.timing is None and tables.sizing is not None
    smaller, pruned = prune(tiny, Context(64), wanted)
    assert written(smaller.build(), "yolov5") <= 0.505 * written(tiny.build(), "yolov5")
    assert pruned.plan.after.flops <= 0.7 * pruned.plan.before.flops


def test_a_size_that_no_cut_reaches(tiny: Checkpoint) -> None:
    with pytest.raises(
        UserError, match=r"size 0\.001 MB \(yolov5\) cannot be reached: the closest reachable value is "
    ):
        check_channels(tiny, Context(64), settings(size="1KB:yolov5"))


def test_with_classes_the_size_is_that_of_the_narrowed_network(tiny: Checkpoint, tmp_path: Path) -> None:
    fewer = only_classes(tiny, (0,))
    target = 0.6 * written(fewer.build(), "yolov5")
    smaller, _ = prune(fewer, Context(64), settings(size=f"{target:.4f}MB:yolov5"))
    assert 0.96 * target < written(smaller.build(), "yolov5") <= target


def test_the_command_says_the_size_and_how_to_export(
    tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["prune", "--weights", str(tiny_weights), "--img", "64", "--criterion", "l2", "--size", "0.6:yolov5"]
    main([*words, "--project", str(tmp_path), "--name", "sized"])
    said = capsys.readouterr().out
    assert "Its yolov5-fp32 file at 64 px: " in said and "--format yolov5 --precision fp32" in said
    summary = json.loads((tmp_path / "sized" / "summary.json").read_text())
    assert 0 < summary["file_mb"]["yolov5-fp32"] < 1


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (
            "2",
            "--size 2 is ambiguous: without a unit it may be an amount or a share. Write a share .* or a number of MB",
        ),
        ("2MB:", "has no kind of file after the colon"),
        ("2MB:tensorrt", "does not support tensorrt. Choose one of "),
        ("1KB:yolov5", "cannot be reached: the closest reachable value is"),
    ],
)
def test_the_command_refuses(
    size: str, words: str, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--weights", str(tiny_weights), "--img", "64", "--criterion", "l2", "--project", str(tmp_path / "runs")]
    with pytest.raises(SystemExit, match="2"):
        main(["prune", *options, "--size", size])
    error = capsys.readouterr().err
    assert re.search(words, " ".join(error.split())), error
    assert not (tmp_path / "runs").exists()
