"""The sweep: masked and cut rows agree, the table and its files, that a kill changes nothing, bad input."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from killing import Killed, killed_after
from secateur.cli import parsed
from secateur.commands import COMMANDS
from secateur.errors import UserError
from secateur.pruning.settings import Guards, ScoreSettings
from secateur.report.sweep import cliff_row
from secateur.runs.folders import OutputOptions
from secateur.runs.progress import Progress
from secateur.runs.sweep import sweep
from secateur.runs.sweep_options import SweepOptions, ratios_of
from secateur.scores import Scores


def options(weights: Path, data: Path, root: Path, **changes: Any) -> SweepOptions:
    settings: dict[str, Any] = {
        "weights": str(weights), "data": str(data), "percent": "0.1,0.3,0.6", "image_size": 64, "batch_size": 8,
        "workers": 0, "place": OutputOptions(project=str(root)), "guards": Guards(round_to=1),
        "score": ScoreSettings(criterion="gamma"),
    }  # fmt: skip
    return dataclasses.replace(SweepOptions(**settings), **changes)


def test_table_files_and_equality_of_masked_and_cut(
    trained: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = sweep(options(trained, tiny_data, tmp_path, cut=True))
    rows, folder = summary["table"], tmp_path / "exp"
    assert [row["percent"] for row in rows] == [0.0, 0.1, 0.3, 0.6]
    assert rows[0]["mAP50"] > 0.1  # else the comparison below would say nothing
    assert any(row["mAP50"] > 0 for row in rows[1:])
    for row in rows[1:]:
        assert row["cut_mAP50"] == pytest.approx(row["mAP50"], abs=0.001)
        assert row["cut_mAP50-95"] == pytest.approx(row["mAP50-95"], abs=0.001)
        assert row["removed"] == pytest.approx(row["percent"], abs=0.01)
    assert [row["parameters"] for row in rows] == sorted((row["parameters"] for row in rows), reverse=True)
    with (folder / "sweep.csv").open() as file:
        read = list(csv.DictReader(file))
    names = ["percent", "removed", "mAP50", "mAP50-95", "parameters", "gflops", "cut_mAP50", "cut_mAP50-95"]
    assert list(read[0]) == names and read[0]["cut_mAP50"] == ""
    assert float(read[2]["mAP50"]) == rows[2]["mAP50"]
    assert json.loads((folder / "sweep.json").read_text())["rows"] == rows
    assert json.loads((folder / "summary.json").read_text()) == summary
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == ["percent", "mAP50", "change", "mAP50-95", "params", "(M)", "GFLOPs", "cut", "mAP50"]
    assert [line.split()[0] for line in printed[1:5]] == ["dense", "10.0%", "30.0%", "60.0%"]
    assert any(line.startswith("The cut detectors equal the masked ones") for line in printed)
    assert sum("<- cliff" in line for line in printed) == (summary["cliff"] is not None)


def table_of(summary: dict[str, Any]) -> tuple[Any, ...]:
    return summary["table"], summary["knee"], summary["model"], summary["metrics"]


def test_killed_again_and_again_it_ends_with_the_same_table(
    trained: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(root: Path) -> dict[str, Any]:
        return sweep(
            options(trained, tiny_data, root, percent="0.2,0.5", repair=True, finetune_epochs=2, score=ScoreSettings())
        )

    undisturbed = start(tmp_path / "undisturbed")
    assert set(undisturbed["table"][1]) >= {"cut_mAP50", "tuned_mAP50", "tuned_mAP50-95"}
    original, done = Progress.step, []

    def kill_after(name: str) -> Any:
        def step(self: Progress, step: str, work: Any, **more: Any) -> Any:
            if step not in self.parts:
                done.append(step)
            result = original(self, step, work, **more)
            if step == name:
                raise Killed
            return result

        return step

    root = tmp_path / "killed"
    for name in ("plans", "cut-20", "finetune-20", "masked-50"):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(Progress, "step", kill_after(name))
            start(root)
    assert len(done) == len(set(done)) == 8  # model, dense, plans, three of 20 %, and so on: nothing is done twice
    with killed_after(1):
        start(root)
    assert table_of(start(root)) == table_of(undisturbed)
    assert [folder.name for folder in root.iterdir()] == ["exp"]


def test_an_unfinished_sweep_of_version_0_2_goes_on(
    trained: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = sweep(options(trained, tiny_data, tmp_path / "undisturbed", percent="0.2,0.5"))
    assert undisturbed["metrics"].keys() == {"P", "R", "mAP50", "mAP50-95"}
    step, old = Progress.step, options(trained, tiny_data, tmp_path / "old", percent="0.2,0.5")

    def killed(self: Progress, name: str, work: Any) -> Any:
        result = step(self, name, work)
        if name == "masked-20":
            raise Killed
        return result

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Progress, "step", killed)
        # That version remembered the values alone.
        patch.setattr(Scores, "record", Scores.to_dict)
        sweep(old)
    assert table_of(sweep(old)) == table_of(undisturbed)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"percent": "0.1,1.2"}, "--percent 1.2 is not a share"),
        ({"percent": "0,0.5"}, "--percent 0 is not a share"),
        ({"percent": "some"}, "--percent some is not a share"),
        ({"percent": "0.1,0.1"}, "contains 0.1 twice"),
        ({"percent": " "}, "--percent is empty"),
        ({"score": ScoreSettings(criterion="beauty")}, "beauty"),
        ({"guards": Guards(exclude=("nothing.*",))}, "--exclude nothing"),
        ({"finetune_epochs": -1}, "--finetune-epochs is -1"),
        ({"hyp": "no-such-hyp"}, "no-such-hyp"),
        ({"weights": ""}, "--weights is missing"),
        ({"weights": "no-such.pt"}, "no-such.pt"),
        ({"data": ""}, "--data is missing"),
        ({"batch_size": 0}, "--batch-size is 0"),
        ({"seed": -1}, "seed"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(
    tiny_weights: Path, tiny_data: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        sweep(dataclasses.replace(options(tiny_weights, tiny_data, tmp_path / "runs"), **changes))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("given", "ratios"),
    [
        ("0.1,0.2,0.3", (0.1, 0.2, 0.3)),
        ("0.3, 0.1", (0.1, 0.3)),
        ("10%,34.5%", (0.1, 0.345)),
        ((0.5, 0.25), (0.25, 0.5)),
        (0.4, (0.4,)),
    ],
)
def test_reading_percent(given: Any, ratios: tuple[float, ...]) -> None:
    assert ratios_of(given) == pytest.approx(ratios)


def test_the_command_line_reads_the_list() -> None:
    words = ["--percent", "0.1,0.2,0.3", "--cut", "--finetune-epochs", "3", "--exclude", "model.0.*", "model.1.*"]
    chosen = parsed(COMMANDS["sweep"], words)
    assert ratios_of(chosen.percent) == (0.1, 0.2, 0.3)
    assert chosen.cut and chosen.finetune_epochs == 3 and chosen.guards.exclude == ("model.0.*", "model.1.*")


def test_the_cliff_is_marked_only_where_something_falls_after_it() -> None:
    rows = [{"removed": share} for share in (0.0, 0.1, 0.3, 0.3)]
    assert cliff_row(rows, 0.1) == 1
    assert cliff_row(rows, 0.3) is None
    assert cliff_row(rows, None) is None
