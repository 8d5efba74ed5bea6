"""A detector that was trained with --single-cls has one class, and every later command knows what that means."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from commands_run import pruning, sentence, training
from secateur.cli import main
from secateur.families.loading import load_checkpoint
from secateur.networks.checkpoint import save_checkpoint

FAST = ["--img", "64", "--workers", "0"]


@pytest.fixture(scope="module")
def trained(tiny_cfg: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One epoch with --single-cls on a data set of three classes."""
    project = tmp_path_factory.mktemp("single")
    main([*training(tiny_data, tiny_cfg), "--single-cls", "--project", str(project)])
    return project / "exp" / "weights" / "best.safetensors"


@pytest.fixture(autouse=True)
def _here(own_folder: None, caplog: pytest.LogCaptureFixture) -> None:
    """Commands write into the test's own folder; what they say is kept."""
    caplog.set_level("INFO", "secateur")


def summary_of(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, object]:
    capsys.readouterr()
    main([*words, "--json"])
    said = capsys.readouterr().out
    result: dict[str, object] = json.loads(said[said.index("{") :])
    return result


def classes_of(summary: dict[str, object]) -> list[str]:
    rows = summary["per_class"]
    assert isinstance(rows, list)
    return [row["name"] for row in rows]


def test_its_head_and_its_names_have_one_class(trained: Path) -> None:
    checkpoint = load_checkpoint(trained)
    assert checkpoint.names == {0: "object"} and checkpoint.nc == 1 and checkpoint.single_cls
    assert checkpoint.build().head.m[0].out_channels == 3 * 6
    assert json.loads((trained.parents[1] / "summary.json").read_text())["per_class"][0]["name"] == "object"


def test_weights_of_many_classes_get_a_head_of_one(
    tiny_weights: Path, tiny_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = ["train", "--weights", str(tiny_weights), "--data", str(tiny_data), *FAST, "--epochs", "1", "--single-cls"]
    main(words)
    assert "New head for 1 class (the weights have 3 classes)" in caplog.text
    assert load_checkpoint("runs/train/exp/weights/last.safetensors").names == {0: "object"}


def test_a_single_class_keeps_its_name(tiny_cfg: Path, tiny_data: Path, tmp_path: Path) -> None:
    text = tiny_data.read_text()
    file = tmp_path / "one.yaml"
    file.write_text(f"{text[: text.index('names:')].replace('path: .', '')}path: {tiny_data.parent}\nnames: [thing]\n")
    main([*training(file, tiny_cfg), "--single-cls"])
    assert load_checkpoint("runs/train/exp/weights/best.safetensors").names == {0: "thing"}


def test_val_counts_all_objects_as_one_class(
    trained: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    words = ["val", "--weights", str(trained), "--data", str(tiny_data), *FAST]
    assert classes_of(summary_of(capsys, *words)) == ["object"]
    assert (
        f"{trained} was trained with --single-cls: all objects of {tiny_data} are treated as one class" in caplog.text
    )


@pytest.mark.parametrize("format", ["onnx", "torchscript"])
def test_exported_files_say_it_too(
    format: str, trained: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnx")
    main(["export", "--weights", str(trained), "--img", "64", "--format", format])
    file = next(Path("runs/export/exp").glob("best.*"))
    summary = summary_of(capsys, "val", "--weights", str(file), "--data", str(tiny_data), *FAST)
    assert classes_of(summary) == ["object"]


def test_pruning_sweeping_and_healing_know_it(trained: Path, tiny_data: Path, caplog: pytest.LogCaptureFixture) -> None:
    main([*pruning(trained, tiny_data, "--params", "0.8"), "--rounds", "1", "--statistics-images", "8"])
    pruned = Path("runs/prune/exp/pruned.safetensors")
    assert load_checkpoint(pruned).single_cls
    assert json.loads(Path("runs/prune/exp/summary.json").read_text())["metrics"]["mAP50"] >= 0
    main(["heal", "--weights", str(pruned), "--data", str(tiny_data), *FAST, "--heal-steps", "8", "--heal-batch", "8"])
    assert load_checkpoint("runs/heal/exp/healed.safetensors").single_cls
    sweep = ["sweep", "--weights", str(pruned), "--data", str(tiny_data), *FAST, "--percent", "0.1", "--round-to", "1"]
    main([*sweep, "--criterion", "l2"])
    assert caplog.text.count("all objects of") == 3  # each command says it once


def test_fine_tuning_goes_on_with_one_class(trained: Path, tiny_data: Path, caplog: pytest.LogCaptureFixture) -> None:
    main(["finetune", "--weights", str(trained), "--data", str(tiny_data), *FAST, "--epochs", "1"])
    said = caplog.text
    assert said.count("all objects of") == 1 and "New head" not in said
    tuned = load_checkpoint("runs/finetune/exp/weights/best.safetensors")
    assert tuned.single_cls and tuned.names == {0: "object"}
    assert tuned.history[-1].settings["single_cls"] is True
    main(["finetune", "--resume", "runs/finetune/exp"])


def test_a_run_goes_on_with_one_class_and_without_a_dense_training(trained: Path, tiny_data: Path) -> None:
    words = ["run", "--recipe", "slimming", "--weights", str(trained), "--data", str(tiny_data), *FAST, "--batch", "8"]
    main([*words, "--sparse-epochs", "1", "--finetune-epochs", "1", "--percent", "0.2"])
    final = load_checkpoint("runs/run/exp/final.safetensors")
    assert final.single_cls and [stage.verb for stage in final.history] == ["train", "sparsify", "prune", "finetune"]


def test_a_training_without_it_takes_the_classes_of_the_data_set(
    trained: Path, tiny_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    main(["train", "--weights", str(trained), "--data", str(tiny_data), *FAST, "--epochs", "1"])
    assert "New head for 3 classes (the weights have 1 class)" in caplog.text
    checkpoint = load_checkpoint("runs/train/exp/weights/best.safetensors")
    assert checkpoint.names == {0: "disc", 1: "square", 2: "triangle"} and not checkpoint.single_cls


def test_a_detector_of_one_class_that_was_not_trained_so_is_refused(
    trained: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_checkpoint(replace(load_checkpoint(trained), history=(), training={}), tmp_path / "other.safetensors")
    said = sentence(capsys, "val", "--weights", str(tmp_path / "other.safetensors"), "--data", str(tiny_data), *FAST)
    assert "other.safetensors has 1 classes, but" in said
