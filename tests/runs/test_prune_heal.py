"""`secateur prune --images --heal` and `secateur heal`: images and nothing else, gone on with after a kill."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from commands_run import sentence
from killing import Killed, killed_after
from law_subjects import enliven
from secateur.checkpoints import heal as healing
from secateur.cli import main
from secateur.errors import UserError
from secateur.evaluation.record import DetectionRecord
from secateur.families.loading import load_checkpoint
from secateur.families.yolov5.model import Detector
from secateur.files import read_json
from secateur.networks.checkpoint import Checkpoint, save_checkpoint
from secateur.pruning.rounds import Rounds

pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.fixture
def weights(tiny_weights: Path, tmp_path: Path) -> Path:
    """Of a detector that sees something everywhere."""
    checkpoint = load_checkpoint(tiny_weights)
    detector = checkpoint.build()
    assert isinstance(detector, Detector)
    enliven(detector)
    with torch.no_grad():
        for last in detector.head.m:
            last.bias.view(detector.na, -1)[:, 4] += 3  # type: ignore[union-attr, operator]
    save_checkpoint(Checkpoint.of(detector, like=checkpoint), tmp_path / "whole.safetensors")
    return tmp_path / "whole.safetensors"


@pytest.fixture(autouse=True)
def short_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(healing, "PIECE", 4)


def command(weights: Path, images: Path, *more: str, steps: str = "8") -> list[str]:
    start = ["prune", "--weights", str(weights), "--images", str(images), "--img", "64", "--workers", "0"]
    few = ["--statistics-images", "8", "--correction-images", "8", "--rounds", "2"]
    few += ["--heal-batch", "8", "--heal-steps", steps]
    return [*start, "--flops", "0.8", "--round-to", "1", *few, *more]


def test_pictures_are_enough(weights: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = weights.read_bytes()
    main(command(weights, tiny_data.parent / "images" / "train", "--heal"))
    folder = Path("runs/prune/exp")
    small = load_checkpoint(folder / "pruned.safetensors")
    assert [stage.verb for stage in small.history] == ["prune", "heal"]
    assert small.history[0].settings["weights"] == str(weights.absolute())
    assert small.plan is not None and small.plan["after"]["flops"] <= 0.8 * small.plan["before"]["flops"]
    out = capsys.readouterr().out
    images = tiny_data.parent / "images" / "train"
    assert "healed" in out and f"Next:  secateur predict --weights {folder}/pruned.safetensors --source {images}" in out
    assert not (folder / "rounds.json").exists() and weights.read_bytes() == before
    rows = json.loads((folder / "summary.json").read_text())["table"]
    assert [row["stage"] for row in rows] == ["dense", "cut, no repair", "cut + repair", "healed"]
    assert all(row["metrics"] is None for row in rows)
    found = json.loads((folder / "summary.json").read_text())["agreement"]
    assert 0 < found["values"]["mAP50"] <= 1 and found["images"] == 24 and "agreement, mAP50 " in out
    assert "errors of the dense network count as correct" in out


def test_with_a_data_set_every_stage_is_measured(
    weights: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(command(weights, tiny_data, "--heal", "--data", str(tiny_data), "--no-cliff"))
    summary = json.loads(Path("runs/prune/exp/summary.json").read_text())
    rows, difference = summary["table"], summary["difference"]
    assert (difference["of"], difference["against"], difference["images"]) == ("healed", "dense", 8)
    for figure in ("mAP50", "mAP50-95"):
        found = difference[figure]
        assert found["reference"] == pytest.approx(rows[0]["metrics"][figure], abs=1e-12)
        assert found["value"] == pytest.approx(rows[-1]["metrics"][figure], abs=1e-12)
        assert found["low"] <= found["high"] and found["resamples"] == 1000
    assert "healed against dense: mAP50 " in capsys.readouterr().out
    assert len(rows) == 4 and all(row["metrics"] for row in rows)
    records = [DetectionRecord.load(f"runs/prune/exp/evaluation/{row['name']}/detections.npz") for row in rows]
    assert [record.ap_by_size for record in records] == [row["ap_by_size"] for row in rows]
    assert len({record.signature for record in records}) == 1


def test_a_killed_command_goes_on(weights: Path, tiny_data: Path) -> None:
    words = command(weights, tiny_data, "--heal")
    main([*words, "--project", "calm"])
    for steps in (3, 2):
        with killed_after(steps):
            main([*words, "--project", "killed"])
    main([*words, "--project", "killed"])
    calm, killed = (load_checkpoint(f"{name}/exp/pruned.safetensors") for name in ("calm", "killed"))
    assert all(torch.equal(tensor, killed.tensors[name]) for name, tensor in calm.tensors.items())
    assert [folder.name for folder in Path("killed").iterdir()] == ["exp"]


def test_two_processes_cut_once_and_heal_together(weights: Path, tiny_data: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone", "-m", "secateur"]
    words = command(weights, tiny_data, "--heal", "--data", str(tiny_data), "--no-cliff", "--device", "cpu")
    # gloo may abort at interpreter exit under load, after all work is done: the files are judged, not the exit code.
    done = subprocess.run(
        [*launcher, *words], env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False, timeout=400, capture_output=True
    )
    assert [folder.name for folder in Path("runs/prune").iterdir()] == ["exp"], done.stderr[-3000:]
    folder = Path("runs/prune/exp")
    rows = json.loads((folder / "summary.json").read_text())["table"]
    assert [row["stage"] for row in rows] == ["dense", "cut, no repair", "cut + repair", "healed"]
    assert [entry.verb for entry in load_checkpoint(folder / "pruned.safetensors").history] == ["prune", "heal"]
    assert read_json(folder / "heal" / "healing.json")["steps"] == 8
    assert done.stdout.decode().count("Next:  secateur") == 1
    assert (folder / "run.log").read_text().count("[2/2] heal") == 1


def test_rounds_that_an_error_ends_keep_what_they_have(
    weights: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Rounds.after

    def after(self: Any, state: Any, count: int) -> Any:
        if state.round:
            raise OSError("no space left on device")
        return original(self, state, count)

    with monkeypatch.context() as broken:
        broken.setattr(Rounds, "after", after)
        with pytest.raises((OSError, SystemExit)):
            main(command(weights, tiny_data))
    assert Path("runs/prune/exp/rounds.json").is_file()
    main(command(weights, tiny_data))
    assert [folder.name for folder in Path("runs/prune").iterdir()] == ["exp"]
    assert Path("runs/prune/exp/pruned.safetensors").is_file()


def test_a_kill_after_the_decision_does_not_repeat_it(
    weights: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from secateur.pruning import prune

    def die(*_: Any, **__: Any) -> None:
        raise Killed

    words = command(weights, tiny_data, "--data", str(tiny_data))
    main([*words, "--project", "calm"])
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(prune, "cut_and_repaired", die)
        main([*words, "--project", "killed"])
    with monkeypatch.context() as patch:
        patch.setattr(prune, "decide", die)
        main([*words, "--project", "killed"])
    calm, killed = (Path(name) / "exp" for name in ("calm", "killed"))
    assert sorted(file.name for file in killed.iterdir()) == sorted(file.name for file in calm.iterdir())
    tables = [json.loads((folder / "summary.json").read_text())["table"] for folder in (calm, killed)]
    rows = [[(row["stage"], row["metrics"], row["model"]) for row in table] for table in tables]
    assert rows[0] == rows[1]
    notes = [json.loads((folder / "progress.json").read_text())["steps"]["prune"]["notes"] for folder in (calm, killed)]
    assert notes[0] == notes[1] and notes[0]["plan"]["flops"] > 0


def test_a_failure_before_anything_is_made_leaves_nothing(
    weights: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from secateur.pruning import prune

    def fail(*_: Any, **__: Any) -> None:
        raise UserError("Nothing can be decided.")

    monkeypatch.setattr(prune, "decide", fail)
    assert "Nothing can be decided" in sentence(capsys, *command(weights, tiny_data, "--data", str(tiny_data)))
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--weights is missing"),
        (["--weights", "none.pt"], "The file none.pt does not exist"),
        (["--weights", "whole.safetensors", "--data", "none.yaml"], "none.yaml"),
        (["--weights", "whole.safetensors", "--images", "nowhere"], "nowhere does not exist"),
    ],
)
def test_missing_files_are_said_before_the_machine_is_timed(
    words: list[str], said: str, weights: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def timed(*_: Any) -> int:
        raise AssertionError("the machine is timed")

    monkeypatch.setattr("secateur.deploy.speed.rounding.auto_round_to", timed)
    auto = ["--flops", "0.5", "--round-to", "auto"]
    assert said in sentence(capsys, "prune", *words, *auto)
    with pytest.raises(AssertionError, match="is timed"):
        main(["prune", "--weights", str(weights), "--criterion", "l2", *auto])


def test_heal_finds_the_teacher_that_the_cut_noted(
    weights: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(command(weights, tiny_data))
    cut = "runs/prune/exp/pruned.safetensors"
    few = ["--img", "64", "--workers", "0", "--heal-steps", "8", "--heal-batch", "8"]
    main(["heal", "--weights", cut, "--images", str(tiny_data), *few])
    healed = load_checkpoint("runs/heal/exp/healed.safetensors")
    assert [stage.verb for stage in healed.history] == ["prune", "heal"]
    assert healed.history[0].settings["weights"] == str(weights.absolute())
    weights.unlink()
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["heal", "--weights", cut, "--images", str(tiny_data), *few])
    assert "no longer exists. Set it with --teacher" in capsys.readouterr().err


def test_auto_says_what_it_expects_and_what_it_did(weights: Path, tiny_data: Path) -> None:
    main(command(weights, tiny_data, "--heal", "--heal-minutes", "0.05", steps="auto"))
    said = Path("runs/prune/exp/run.log").read_text()
    assert "[2/2] heal (up to 0.05 min)" in said
    assert "Healing: a step takes" in said and "Healing took" in said and "stopped because" in said
    noted = json.loads(Path("runs/prune/exp/summary.json").read_text())["healing"]
    assert noted == read_json(Path("runs/prune/exp/heal/healing.json"))
    assert noted["reason"] in {"minutes", "flattened"} and noted["after"] <= noted["before"]


def test_what_cannot_be_meant_is_one_sentence(
    weights: Path, tiny_weights: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert "images" in sentence(capsys, *command(weights, tmp_path / "empty"))
    assert "does not exist" in sentence(capsys, *command(weights, tmp_path / "nowhere"))
    assert "finds nothing" in sentence(capsys, *command(tiny_weights, tiny_data))
    assert "Healing needs images" in sentence(
        capsys, "prune", "--weights", str(weights), "--criterion", "l2", "--flops", "0.5", "--heal"
    )
    assert "needs images" in sentence(capsys, "prune", "--weights", str(weights), "--flops", "0.5")
    assert "--heal" in sentence(capsys, "prune", "--weights", str(weights), "--unstructured", "0.3", "--heal")
    assert "cannot be reached" in sentence(capsys, *command(weights, tiny_data, "--flops", "0.01"))
    assert "Set auto or" in sentence(capsys, *command(weights, tiny_data, "--rounds", "some"))
