"""Whole commands: going on after an interruption, what needs no data, and what a checkpoint remembers."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from commands_run import sentence, training
from secateur.cli import main
from secateur.families.loading import load_checkpoint
from secateur.training.session import Session

pytestmark = pytest.mark.usefixtures("own_folder")


def test_options_beside_resume_are_refused_and_not_dropped(capsys: pytest.CaptureFixture[str]) -> None:
    said = sentence(capsys, "train", "--resume", "runs/train/exp", "--epochs", "5", "--img", "320")
    assert "Remove --epochs, --image-size, or start a new run" in said


@pytest.mark.parametrize(
    "words",
    ["--criterion l2 --params 0.7", "--criterion gamma --percent 0.2", "--unstructured 0.3",
     "--layers 1 --layer-score gamma"],
)  # fmt: skip
def test_what_reads_no_images_needs_no_data(words: str, tiny_weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["prune", "--weights", str(tiny_weights), "--img", "64", "--round-to", "1", *words.split(), "--json"])
    summary = json.loads(capsys.readouterr().out)
    assert summary["metrics"] is None
    assert load_checkpoint(summary["weights"]).history[-1].verb == "prune"


@pytest.mark.parametrize("words", ["--params 0.7", "--layers 1", "--criterion l2 --params 0.7 --search eagleeye"])
def test_what_reads_images_says_so(words: str, tiny_weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = sentence(capsys, "prune", "--weights", str(tiny_weights), "--img", "64", "--round-to", "1", *words.split())
    assert ("needs a data set. Set" if "--search" in words else "needs images. Set") in said


def test_an_interrupted_training_says_how_to_go_on(
    tiny_cfg: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(self: Session) -> None:
        if self.run.epoch == 1:
            raise KeyboardInterrupt
        step(self)

    step = Session.step
    words = training(tiny_data, tiny_cfg)
    words[words.index("--epochs") + 1] = "2"
    with monkeypatch.context() as patch:
        patch.setattr(Session, "step", stop)
        with pytest.raises(SystemExit) as stopped:
            main(words)
    assert stopped.value.code == 1
    told = capsys.readouterr().err.strip().splitlines()[-1]
    line = told.partition("Resume with:  ")[2]
    assert line == "secateur train --resume runs/train/exp"
    main(line.split()[1:])
    assert "Resuming at epoch 2 of 2" in Path("runs/train/exp/run.log").read_text()
    main(line.split()[1:])
    assert "already finished" in Path("runs/train/exp/run.log").read_text()


def test_an_interrupted_run_says_how_to_go_on(
    tiny_weights: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("secateur.runs.progress.Progress.step", stop)
    words = ["run", "--weights", str(tiny_weights), "--data", str(tiny_data), "--img", "64", "--workers", "0"]
    with pytest.raises(SystemExit):
        main(words)
    assert capsys.readouterr().err.strip().endswith(shlex.join(["secateur", *words]))


def test_the_image_size_is_remembered(tiny_cfg: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(training(tiny_data, tiny_cfg))
    weights = "runs/train/exp/weights/best.safetensors"
    capsys.readouterr()
    main(["info", weights, "--json"])
    assert json.loads(capsys.readouterr().out)["model"]["image_size"] == 64
    main(["prune", "--weights", weights, "--criterion", "l2", "--percent", "0.2"])
    main(["export", "--weights", "runs/prune/exp/pruned.safetensors", "--json"])
    written = capsys.readouterr().out
    assert json.loads(written[written.index("{") :])["export"]["size"] == [64, 64]
    main(["val", "--weights", "runs/export/exp/pruned.onnx", "--data", str(tiny_data), "--workers", "0"])
    assert "ONNX Runtime" in capsys.readouterr().out


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    # `true` reads nothing, so the pipe is closed at the first line.
    command = f"{sys.executable} -u -m secateur recipes | true"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr
