"""Whole commands on data sets whose class names are not those of the weights, or in another order."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from commands_run import pruning, sentence
from secateur.cli import main
from secateur.families.loading import load_checkpoint
from secateur.families.starting import for_classes
from secateur.networks.checkpoint import save_checkpoint

FAST = ["--img", "64", "--workers", "0"]
DIGITS = dict(enumerate("0123456789"))


@pytest.fixture(autouse=True)
def _here(own_folder: None, caplog: pytest.LogCaptureFixture) -> None:
    """Commands write into the test's own folder; what they say is kept."""
    caplog.set_level("INFO", "secateur")


@pytest.fixture
def weights(tiny_weights: Path) -> Path:
    """A detector of the ten digits."""
    file = Path("digits.safetensors")
    save_checkpoint(for_classes(load_checkpoint(tiny_weights), DIGITS), file)
    return file


def named(tiny_data: Path, tmp_path: Path, names: str) -> Path:
    """The generated data set with other names."""
    shutil.copytree(tiny_data.parent, tmp_path / "set", dirs_exist_ok=True)
    text = tiny_data.read_text()
    (tmp_path / "set" / "data.yaml").write_text(text[: text.index("names:")] + names + "\n")
    return Path("set/data.yaml")  # sentences are cut to a length


TURNED = "names: ['1', '2', '3', '4', '5', '6', '7', '8', '9', '0']"
OTHER = "names: [a, b, c, d, e, f, g, h, i, j]"


@pytest.mark.parametrize(("names", "words"), [(TURNED, "in another order"), (OTHER, "has other classes")])
def test_digits_are_names(
    names: str, words: str, weights: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = named(tiny_data, tmp_path, names)
    assert words in sentence(capsys, "val", "--weights", str(weights), "--data", str(data), *FAST)
    assert words in sentence(capsys, *pruning(weights, data, "--params", "0.8"))


def test_a_run_first_trains_a_detector_of_digits_for_other_classes_and_another_order(
    weights: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for names in (OTHER, TURNED):
        assert "train (" in steps_of(weights, named(tiny_data, tmp_path, names), monkeypatch, capsys)


def test_a_run_leaves_the_dense_training_out_for_weights_that_know_the_digits(
    weights: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for names in ("nc: 10", f"names: {list(DIGITS.values())}"):
        assert "train (" not in steps_of(weights, named(tiny_data, tmp_path, names), monkeypatch, capsys)


def steps_of(weights: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What a run says that it will do."""

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("secateur.runs.progress.Progress.step", stop)
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["run", "--weights", str(weights), "--data", str(data), *FAST])
    return next(line for line in capsys.readouterr().out.splitlines() if line.startswith("steps"))


def test_fine_tuning_keeps_a_head_whose_classes_have_another_order(
    tiny_weights: Path, tiny_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = named(tiny_data, tmp_path, "names: [triangle, disc, square]")
    words = ["finetune", "--weights", str(tiny_weights), "--data", str(data), *FAST, "--epochs", "1"]
    main(words)
    assert "the class outputs of the head are reordered" in caplog.text and "New head" not in caplog.text
    start = load_checkpoint("runs/finetune/exp/start.safetensors")
    whole = load_checkpoint(tiny_weights)
    rows = [0, 1, 2, 3, 4, 7, 5, 6]
    for name in ("model.11.m.0.weight", "model.11.m.1.bias"):
        tensor = whole.tensors[name]
        assert torch.equal(start.tensors[name], tensor.view(-1, 8, *tensor.shape[1:])[:, rows].reshape(tensor.shape))
    assert load_checkpoint("runs/finetune/exp/weights/best.safetensors").names == {
        0: "triangle",
        1: "disc",
        2: "square",
    }


def test_healing_refuses_such_a_data_set_and_takes_its_images(
    tiny_weights: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = named(tiny_data, tmp_path, "names: [triangle, disc, square]")
    shutil.copy(tiny_weights, "tiny.safetensors")
    words = ["heal", "--weights", "tiny.safetensors", "--teacher", "tiny.safetensors", *FAST]
    said = sentence(capsys, *words, "--data", str(data))
    # The command shortens the middle of long sentences; tests/checkpoints/test_known_classes.py checks it.
    assert said.startswith("error: tiny.safetensors has the classes of ")
    assert said.endswith("set only its images (--images), because healing reads no labels.")
    main([*words, "--images", str(data), "--heal-steps", "8", "--heal-batch", "8"])
    assert Path("runs/heal/exp/healed.safetensors").is_file()


def test_names_that_differ_in_case_alone_are_two_classes(
    tiny_weights: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = replace(load_checkpoint(tiny_weights), names={0: "Car", 1: "car", 2: "bus"})
    save_checkpoint(checkpoint, "cars.safetensors")
    words = ["val", "--weights", "cars.safetensors", *FAST, "--data"]
    said = sentence(capsys, *words, str(named(tiny_data, tmp_path, "names: [car, Car, bus]")))
    assert "in another order (class 0 is 'Car' in the weights and 'car' in the data set)" in said
    main([*words, str(named(tiny_data, tmp_path, "names: [Car, car, bus]"))])
