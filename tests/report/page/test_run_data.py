"""Run folders read as plain data: ended, killed, damaged, and folders that are no runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from run_folders import killed_run, stage_row, whole_run, write

from secateur.errors import UserError
from secateur.report.page.model import read_runs


def test_a_run_that_has_ended(tmp_path: Path) -> None:
    (run,) = read_runs([whole_run(tmp_path / "exp")])
    assert (run.label, run.command, run.ended, run.missing) == ("exp", "run", True, [])
    assert [stage.name for stage in run.stages] == ["dense", "repair", "finetuned"]
    assert run.dense is run.stages[0] and run.final is run.stages[-1]
    assert run.final.score("mAP50") == 0.79 and run.final.milliseconds == 4.0
    assert run.notes["latency"] == {"dense": 8.0, "final": 4.0}


def test_a_killed_run_names_what_is_missing(tmp_path: Path) -> None:
    (run,) = read_runs([killed_run(tmp_path / "exp")])
    assert not run.ended and run.missing == ["finetune (2 epochs)"]
    assert [stage.title for stage in run.stages] == ["dense", "cut + repair"]


def test_a_control_is_no_stage_of_the_run(tmp_path: Path) -> None:
    folder = whole_run(tmp_path / "exp")
    summary = json.loads((folder / "summary.json").read_text())
    control = stage_row("narrow dense (control)", 0.6, 1.0) | {"beside": "control"}
    write(folder / "summary.json", summary | {"table": [*summary["table"], control]})
    progress = json.loads((folder / "progress.json").read_text())
    progress["steps"]["row control"] = control
    write(folder / "progress.json", progress)
    (run,) = read_runs([folder])
    assert run.final is not None and run.final.title == "fine-tuned"
    assert run.stages[-1].compared and run.stages[-1].name == "control"


def test_a_training_is_one_stage(tmp_path: Path) -> None:
    row = stage_row("x", 0.5, 1.0)
    write(tmp_path / "exp" / "summary.json", {"command": "train", "metrics": row["metrics"], "model": row["model"]})
    (run,) = read_runs([tmp_path / "exp"])
    assert [stage.title for stage in run.stages] == ["train"] and run.final is None


def test_the_folder_of_the_evaluation_of_a_stage(tmp_path: Path) -> None:
    folder = whole_run(tmp_path / "exp")
    (folder / "evaluation" / "dense").mkdir(parents=True)
    (run,) = read_runs([folder])
    assert [stage.folder.name for stage in run.stages] == ["dense", "exp", "exp"]


def test_labels_tell_runs_apart(tmp_path: Path) -> None:
    folders = [whole_run(tmp_path / name / "exp") for name in ("a", "b")]
    assert [run.label for run in read_runs(folders)] == ["a/exp", "b/exp"]


def test_a_damaged_file_is_noted(tmp_path: Path) -> None:
    folder = whole_run(tmp_path / "exp")
    (folder / "cliff.json").write_text("{")
    (folder / "progress.json").write_text("[]")
    (run,) = read_runs([folder])
    assert run.json("cliff.json") is None and run.json("cliff.json") is None
    assert sum("cliff.json is not valid JSON" in line for line in run.unreadable) == 1
    assert [stage.title for stage in run.stages] == ["dense", "cut + repair", "fine-tuned"]


def test_folders_that_are_no_runs(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write(tmp_path / "broken" / "summary.json", "{")
    folder = whole_run(tmp_path / "exp")
    for folders, words in (
        ([], "No run is given"),
        ([tmp_path / "none"], "none does not exist. Give the folder of a run"),
        ([tmp_path / "empty"], "does not contain a run: it has no summary.json and no completed part"),
        ([tmp_path / "broken"], "summary.json is not valid JSON"),
        ([folder, folder], "is given twice"),
    ):
        with pytest.raises(UserError, match=words):
            read_runs(folders)
