"""The curve: its points and files, what a descent shares, two networks, and that a kill changes nothing."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from killing import Killed, killed_after
from secateur.checkpoints import heal as healing
from secateur.checkpoints.channels import prune
from secateur.distillation.settings import HealSettings
from secateur.families.loading import load_checkpoint
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import Topology
from secateur.networks.checkpoint import Checkpoint, save_checkpoint
from secateur.pruning.rounds import Rounds
from secateur.pruning.settings import Guards, RepairSettings, RoundSettings, ScoreSettings
from secateur.runs.folders import OutputOptions
from secateur.runs.pareto.course import ParetoCourse
from secateur.runs.pareto.curve import pareto
from secateur.runs.pareto.networks import channel_settings, opened
from secateur.runs.pareto.options import ParetoOptions, budgets_of
from secateur.runs.progress import Progress
from tiny_network import TINY


def _by_cost(checkpoints: Mapping[str, Any], *_: Any, **__: Any) -> dict[str, float]:
    """Times that follow the size, in place of those of a busy machine."""
    return {name: sum(t.numel() for t in one.tensors.values()) / 1000 for name, one in checkpoints.items()}


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secateur.deploy.speed.latency.latencies", _by_cost)
    monkeypatch.setattr(healing, "PIECE", 4)


@pytest.fixture(scope="module")
def wider(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of the same classes that is larger, and not trained."""
    folder = tmp_path_factory.mktemp("wider")
    (folder / "wider.yaml").write_text(yaml.safe_dump(TINY | {"width_multiple": 0.25}))
    torch.manual_seed(1)
    detector = Detector(Topology.from_yaml(folder / "wider.yaml", nc=3), {0: "disc", 1: "square", 2: "triangle"})
    save_checkpoint(Checkpoint.of(detector), folder / "wider.safetensors")
    return folder / "wider.safetensors"


def options(root: Path, data: Path, *weights: Path, **changes: Any) -> ParetoOptions:
    settings: dict[str, Any] = {
        "weights": tuple(map(str, weights)), "data": str(data), "budgets": ("0.7", "0.4"), "image_size": 64,
        "batch_size": 8, "workers": 0, "place": OutputOptions(project=str(root)), "guards": Guards(round_to=1),
        "score": ScoreSettings(statistics_images=8), "repair": RepairSettings(correction_images=8),
    }  # fmt: skip
    return dataclasses.replace(ParetoOptions(**settings), **changes)


def essence(summary: dict[str, Any]) -> list[Any]:
    return [[point[name] for name in ("label", "kind", "ms", "accuracy", "gflops")] for point in summary["table"]]


def test_points_files_and_answers_of_two_networks(
    trained: Path, wider: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    others = tmp_path / "others.csv"
    others.write_text("label,ms,mAP\nknown,5,0.3\n")
    given = options(
        tmp_path,
        tiny_data,
        trained,
        wider,
        labels=("small", "large"),
        reference=str(others),
        budgets=("70%", "0.4", "0.01"),
    )
    summary = pareto(given)
    folder = tmp_path / "exp"
    record = json.loads((folder / "pareto.json").read_text())
    labels = ["small", "small-70", "small-40", "large", "large-70", "large-40"]
    assert [point["label"] for point in record["points"]] == [*labels, "known"]
    assert [point["kind"] for point in record["points"]] == ["dense", "pruned", "pruned"] * 2 + ["reference"]
    dense = {point["network"]: point for point in record["points"] if point["kind"] == "dense"}
    for point in record["points"][:-1]:
        assert point["ms"] > 0 and point["mAP50_95"] == point["accuracy"] and point["mb"] > 0
        share = {"40": 0.4, "70": 0.7}.get(point["label"][-2:])
        assert share is None or point["gflops"] <= share * dense[point["network"]]["gflops"] * 1.001
        file = folder / point["file"]  # an absolute path stays what it is
        assert sum(p.numel() for p in load_checkpoint(file).build().parameters()) == point["parameters"]
    cut = load_checkpoint(folder / "points" / "small-40.safetensors")
    assert cut.history[-1].settings["weights"] == str(trained.absolute())  # so that its teacher is found
    assert not (folder / "rounds").exists()
    assert len(record["skipped"]) == 2 and "--budgets 0.01 is skipped" in record["skipped"][0]
    assert record["image_size"] == 64 and record["figure"] == "mAP50-95" and record["runtime"]
    assert record["answers"][1].startswith("Best network at equal milliseconds, by the mAP50-95") and record["answers"][
        2
    ].startswith(("A cut large is more", "No cut large is more"))
    assert summary["table"] == record["points"][:-1] and summary["knee"] == record["knee"]
    rows = list(csv.DictReader((folder / "pareto.csv").open()))
    assert [row["label"] for row in rows] == labels
    printed = capsys.readouterr().out
    assert "Next:  secateur " in printed and (folder / "report.html").is_file()
    assert all(answer in printed for answer in record["answers"])


def test_the_smallest_point_is_what_prune_gives(trained: Path, tiny_data: Path, tmp_path: Path) -> None:
    given = options(tmp_path, tiny_data, trained)
    pareto(given)
    [network] = opened(given, budgets_of(given.budgets, "flops"), Guards(round_to=1))
    points = tmp_path / "exp" / "points"
    small, _ = prune(network.checkpoint, network.context, channel_settings(given, Guards(round_to=1), "0.4"))
    found = load_checkpoint(points / f"{network.label}-40.safetensors")
    assert small.tensors.keys() == found.tensors.keys()
    assert all(torch.equal(tensor, found.tensors[name]) for name, tensor in small.tensors.items())


def test_rounds_are_shared(trained: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    after, taken = Rounds.after, []

    def counted(self: Any, state: Any, count: int) -> Any:
        taken.append(state.round)
        return after(self, state, count)

    monkeypatch.setattr(Rounds, "after", counted)
    pareto(options(tmp_path, tiny_data, trained, budgets=("0.7", "0.5", "0.4"), images=str(tiny_data)))
    # The descent to 0.4 has 18 rounds; the others do their last three.
    assert taken == [*range(18), *range(11, 14), *range(4, 7)]


def test_killed_again_and_again_it_ends_with_the_same_points(
    trained: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(name: str) -> dict[str, Any]:
        heal = HealSettings(heal_steps=4, heal_batch=4)
        return pareto(
            options(tmp_path / name, tiny_data, trained, heal=True, healing=heal, finetune=1, rounds=RoundSettings("2"))
        )

    calm = start("calm")
    kinds = [point["kind"] for point in calm["table"]]
    assert kinds == ["dense", *["pruned", "healed", "finetuned"] * 2]
    times = [point["ms"] for point in calm["table"]]
    assert times[0] > times[1] == times[2] == times[3] > times[4] == times[6]
    history = load_checkpoint(tmp_path / "calm" / "exp" / calm["table"][3]["file"]).history
    assert [entry.verb for entry in history[-3:]] == ["prune", "heal", "finetune"]
    step, done = Progress.step, []

    def killing_after(part: str) -> Any:
        def one(self: Progress, name: str, work: Any) -> Any:
            if name not in self.parts:
                done.append(name)
            result = step(self, name, work)
            if name == part:
                raise Killed
            return result

        return one

    label = calm["table"][0]["label"]
    for part in (f"row {label}", f"prune {label}-40", f"finetune {label}-40", f"prune {label}-70"):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(Progress, "step", killing_after(part))
            start("killed")
    assert len(done) == len(set(done))
    with killed_after(2):
        start("killed")
    assert essence(start("killed")) == essence(calm)
    assert [folder.name for folder in (tmp_path / "killed").iterdir()] == ["exp"]


def test_a_kill_in_the_descent_continues_it(
    trained: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    after, taken = Rounds.after, []

    def killing(self: Any, state: Any, count: int) -> Any:
        if len(taken) == 6:
            taken.append(-1)
            raise Killed
        taken.append(state.round)
        return after(self, state, count)

    monkeypatch.setattr(Rounds, "after", killing)
    given = options(tmp_path, tiny_data, trained, images=str(tiny_data.parent / "images" / "train"))
    with pytest.raises(Killed):
        pareto(given)
    pareto(given)
    assert taken == [*range(6), -1, *range(6, 18), *range(4, 7)]


def test_what_is_left_is_said_with_its_time(
    trained: Path, tiny_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "secateur"):
        pareto(options(tmp_path, tiny_data, trained, rounds=RoundSettings("1")))
    lines = [line for line in caplog.messages if line.startswith("[")]
    assert [line.split("]")[0] for line in lines] == [f"[{n}/6" for n in range(1, 7)]
    assert lines[0].endswith("measure the dense last") and " left)" in lines[3]
    assert "cut last to flops 0.4 (over " in lines[1]


def test_the_parts_know_their_amounts(trained: Path, tiny_data: Path, tmp_path: Path) -> None:
    """A budget that continues a descent is less work than the descent."""
    from secateur.checkpoints.training import Methods
    from secateur.runs.pareto.course import ParetoTask

    given = options(tmp_path, tiny_data, trained)
    networks = opened(given, budgets_of(given.budgets, "flops"), Guards(round_to=1))
    with Progress.open(tmp_path / "runs", "exp", {}) as progress:
        parts = ParetoCourse(ParetoTask(given, networks, Guards(), None, Methods()), progress).parts()
    amounts = {part.name: part.amount / networks[0].gflops for part in parts if part.kind == "prune"}
    assert list(amounts.values()) == pytest.approx([18, 3])
