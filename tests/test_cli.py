"""Whole commands: what bad input says, what it leaves behind, and what good input writes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from commands_run import pruning, sentence, training
from secateur.cli import main
from secateur.errors import UserError
from secateur.families.loading import load_checkpoint
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import Topology
from secateur.flags import understood
from secateur.networks.checkpoint import Checkpoint, save_checkpoint

pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.fixture
def data_copy(tiny_data: Path, tmp_path: Path) -> Path:
    """A data set that a test may break."""
    shutil.copytree(tiny_data.parent, tmp_path / "set", ignore=shutil.ignore_patterns("*.npz"))
    return tmp_path / "set" / "data.yaml"


def first_label(data: Path) -> Path:
    return sorted((data.parent / "labels" / "train").glob("*.txt"))[0]


@pytest.mark.parametrize(
    ("command", "words", "ours"),
    [
        (
            "train",
            "--imgsz 320 --batch=8 --resume --cos_lr",
            "--image-size 320 --batch-size=8 --resume latest --cos-lr",
        ),
        ("finetune", "--temperature 20 --dist_loss kl", "--distill-temperature 20 --distill kl"),
        ("sparsify", "--bn_sparsity 1e-3", "--rate 1e-3"),
        ("sparsify", "--sparsity_rate 1e-3", "--rate 1e-3"),
        ("export", "--include onnx", "--format onnx"),
        ("prune", "--recalibrate 8 --recalibrate-share=1", "--correction-images 8 --correction-share=1"),
        ("val", "--half --conf-thres 0.1", "--precision fp16 --conf 0.1"),
        ("train", "--noautoanchor --noval --adam", "--no-autoanchor --val-every 0 --optimizer Adam"),
    ],
)
def test_words_of_other_systems(command: str, words: str, ours: str) -> None:
    assert understood(command, words.split()) == ours.split()


def test_a_removed_option_says_what_to_do_instead() -> None:
    with pytest.raises(
        UserError, match=r"^--mask-hard was removed: for a hard mask, set --mask-factor 0. Omit the option\.$"
    ):
        understood("sparsify", ["--mask-hard", "2"])


@pytest.mark.parametrize(
    ("command", "flag", "ours"),
    [
        ("train", "--do_prune", "--target-sparsity"),
        ("train", "--st", "secateur sparsify"),
        ("train", "--ft_pruned_model", "secateur finetune"),
        ("train", "--cache", "remove the flag"),
        ("val", "--exist-ok", "--name"),
        ("prune", "--cfg", "stored in the checkpoint"),
    ],
)
def test_words_without_a_counterpart_are_answered(
    command: str, flag: str, ours: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ours in sentence(capsys, command, flag)


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Unknown command 'fly'" in sentence(capsys, "fly")


def test_missing_data_set(capsys: pytest.CaptureFixture[str], tiny_cfg: Path) -> None:
    assert "nowhere.yaml" in sentence(capsys, *training(Path("nowhere.yaml"), tiny_cfg))


def test_missing_option(capsys: pytest.CaptureFixture[str], tiny_cfg: Path) -> None:
    assert "--data is missing" in sentence(capsys, "train", "--cfg", str(tiny_cfg))


def test_empty_data_set(capsys: pytest.CaptureFixture[str], tiny_cfg: Path, data_copy: Path) -> None:
    for image in (data_copy.parent / "images" / "train").iterdir():
        image.unlink()
    assert "train" in sentence(capsys, *training(data_copy, tiny_cfg))


def test_class_id_out_of_range(capsys: pytest.CaptureFixture[str], tiny_cfg: Path, data_copy: Path) -> None:
    first_label(data_copy).write_text("0 0.5 0.5 0.2 0.2\n7 0.5 0.5 0.2 0.2\n")
    message = sentence(capsys, *training(data_copy, tiny_cfg))
    assert str(first_label(data_copy)) in message
    assert "7" in message


def test_names_shorter_than_ids(capsys: pytest.CaptureFixture[str], tiny_cfg: Path, data_copy: Path) -> None:
    data = yaml.safe_load(data_copy.read_text())
    data["names"] = {0: "disc"}
    data.pop("nc", None)
    data_copy.write_text(yaml.safe_dump(data))
    assert "names" in sentence(capsys, *training(data_copy, tiny_cfg))


def test_label_of_random_bytes(capsys: pytest.CaptureFixture[str], tiny_cfg: Path, data_copy: Path) -> None:
    first_label(data_copy).write_bytes(np.random.default_rng(0).bytes(400))
    assert str(first_label(data_copy)) in sentence(capsys, *training(data_copy, tiny_cfg))


def test_zero_byte_image_is_named_and_left_out(capsys: pytest.CaptureFixture[str], data_copy: Path) -> None:
    image = sorted((data_copy.parent / "images" / "train").iterdir())[0]
    image.write_bytes(b"")
    main(["data", "check", str(data_copy)])
    assert image.name in capsys.readouterr().out


@pytest.mark.parametrize("percent", ["0", "1", "1.5", "-1"])
def test_percent_out_of_range(
    capsys: pytest.CaptureFixture[str], tiny_weights: Path, tiny_data: Path, percent: str
) -> None:
    assert "--percent" in sentence(capsys, *pruning(tiny_weights, tiny_data, "--percent", percent))


def test_budget_out_of_reach_names_the_closest(
    capsys: pytest.CaptureFixture[str], tiny_weights: Path, tiny_data: Path
) -> None:
    message = sentence(capsys, *pruning(tiny_weights, tiny_data, "--params", "0.001"))
    assert "closest reachable" in message


def test_no_budget_and_unknown_criterion(
    capsys: pytest.CaptureFixture[str], tiny_weights: Path, tiny_data: Path
) -> None:
    assert "No budget" in sentence(capsys, *pruning(tiny_weights, tiny_data))
    words = pruning(tiny_weights, tiny_data, "--percent", "0.3", "--criterion", "beauty")
    assert "Unknown criterion 'beauty'" in sentence(capsys, *words)


def test_wrong_cfg_for_the_weights(capsys: pytest.CaptureFixture[str], tiny_weights: Path, tiny_data: Path) -> None:
    words = ["train", "--weights", str(tiny_weights), "--cfg", "yolov5s", "--data", str(tiny_data)]
    assert "--cfg" in sentence(capsys, *words)


def test_weights_of_other_classes(capsys: pytest.CaptureFixture[str], tiny_weights: Path, data_copy: Path) -> None:
    data = yaml.safe_load(data_copy.read_text())
    data["names"] = {i: f"thing {i}" for i in range(5)}
    data.pop("nc", None)
    data_copy.write_text(yaml.safe_dump(data))
    words = ["val", "--weights", str(tiny_weights), "--data", str(data_copy), "--img", "64"]
    assert "has 3 classes" in sentence(capsys, *words)


def test_unwritable_run_folder(capsys: pytest.CaptureFixture[str], tiny_cfg: Path, tiny_data: Path) -> None:
    Path("taken").write_text("a file, not a folder")
    words = [*training(tiny_data, tiny_cfg), "--project", "taken"]
    assert "taken" in sentence(capsys, *words)


def test_full_disk_while_saving(
    capsys: pytest.CaptureFixture[str], tiny_cfg: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert "No space left on device" in sentence(capsys, *training(tiny_data, tiny_cfg))


def test_image_size_is_rounded_with_a_notice(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, tiny_weights: Path, tiny_data: Path
) -> None:
    main(["val", "--weights", str(tiny_weights), "--data", str(tiny_data), "--img", "70", "--workers", "0"])
    assert "70 is not a usable multiple" in caplog.text
    assert "mAP50-95" in capsys.readouterr().out


def test_val_prints_one_json_object(capsys: pytest.CaptureFixture[str], tiny_weights: Path, tiny_data: Path) -> None:
    words = ["val", "--weights", str(tiny_weights), "--data", str(tiny_data), "--img", "64", "--workers", "0"]
    main([*words, "--coco", "--save-json", "--json"])
    summary = json.loads(capsys.readouterr().out)
    assert set(summary["metrics"]) == {"P", "R", "mAP50", "mAP50-95"}
    assert set(summary["model"]) == {"parameters", "gflops", "sparsity", "file_mb"}
    assert len(summary["coco"]) == 12
    folder = Path(summary["folder"])
    assert json.loads((folder / "summary.json").read_text()) == summary
    assert (folder / "predictions.json").exists()


def test_info_reads_any_checkpoint(capsys: pytest.CaptureFixture[str], tiny_weights: Path) -> None:
    main(["info", str(tiny_weights), "--json", "--image-size", "64"])
    assert json.loads(capsys.readouterr().out)["model"]["parameters"] > 10_000
    main(["info", str(tiny_weights), "--layers"])
    assert "Detect" in capsys.readouterr().out


def test_prune_then_prune_again_export_and_bench(
    capsys: pytest.CaptureFixture[str], tiny_weights: Path, tiny_data: Path
) -> None:
    main([*pruning(tiny_weights, tiny_data, "--flops", "0.6", "--criterion", "taylor"), "--rounds", "2", "--json"])
    first = json.loads(capsys.readouterr().out)
    assert first["model"]["gflops"] == pytest.approx(0.6 * first["table"][0]["model"]["gflops"], rel=0.1)
    main([*pruning(Path(first["weights"]), tiny_data, "--percent", "0.2"), "--rounds", "2", "--json"])
    second = json.loads(capsys.readouterr().out)
    assert second["model"]["parameters"] < first["model"]["parameters"]
    main(["export", "--weights", second["weights"], "--img", "64", "--json"])
    assert json.loads(capsys.readouterr().out)["export"]["max_error"] < 1e-3
    main(["bench", str(tiny_weights), second["weights"], "--img", "64", "--rounds", "2", "--json"])
    assert len(json.loads(capsys.readouterr().out)["table"]) == 2


def test_train_resumes_a_finished_run_without_training_again(
    capsys: pytest.CaptureFixture[str], tiny_cfg: Path, tiny_data: Path
) -> None:
    main([*training(tiny_data, tiny_cfg), "--json"])
    before = json.loads(capsys.readouterr().out)
    main(["train", "--resume", "--json"])
    after = json.loads(capsys.readouterr().out)
    assert after["metrics"] == before["metrics"]
    assert after["folder"] == before["folder"]
    assert sorted(path.name for path in Path("runs/train").iterdir()) == ["exp"]


def test_two_processes_share_one_run_folder(tiny_cfg: Path, tiny_data: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone", "-m", "secateur"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    # gloo may abort at interpreter exit under load, after all work is done: the files are judged, not the exit code.
    subprocess.run([*launcher, *training(tiny_data, tiny_cfg)], env=environment, check=False, timeout=300)
    assert [path.name for path in Path("runs/train").iterdir()] == ["exp"]
    assert json.loads(Path("runs/train/exp/summary.json").read_text())["epochs"] == 1
    assert Path("runs/train/exp/weights/best.safetensors").exists()


def test_one_class_training_is_evaluated_as_one_class(
    capsys: pytest.CaptureFixture[str], tiny_cfg: Path, tiny_data: Path
) -> None:
    main([*training(tiny_data, tiny_cfg), "--single-cls", "--json"])
    assert len(json.loads(capsys.readouterr().out)["per_class"]) == 1


def sparse_training(weights: Path, data: Path, *words: str) -> list[str]:
    start = ["train", "--weights", str(weights), "--data", str(data), "--img", "64", "--workers", "0", "--amp", "off"]
    return [*start, "--epochs", "2", "--batch", "8", *words]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--target-sparsity 0.5 --pruning-pattern 4:2", "4:2"),
        ("--target-sparsity 0.5 --pruning-pattern plaid", "is invalid. Supported forms: N:M, NxM"),
        ("--target-sparsity 0.8 --pruning-pattern 2:4", "exceeds the limit of the pattern 2:4"),
        ("--target-sparsity 0.5 --pruning-schedule slowly", "Unknown pruning schedule 'slowly'; choose one of cosine,"),
        ("--target-sparsity 0.5 --pruning-criterion beauty", "Unknown pruning criterion 'beauty'; choose one of"),
        ("--target-sparsity 0.5 --cooldown-epochs 2", "--cooldown-epochs is 2, but the training has 2 epochs"),
        ("--target-sparsity 1.5", "--target-sparsity is 1.5; it must be from 0 to 1"),
        ("--target-sparsity 0.5 --exclude-weights nothing.*", "nothing.*"),
        ("--distill magic", "Unknown distillation 'magic'. Choose one of: bce,"),
        ("--distill bce --teacher nowhere.pt", "nowhere.pt"),
        ("--distill bce", "Set that network with --teacher"),
        ("--teacher nowhere.pt", "--teacher needs --distill"),
        ("--group-lasso 0.1", "Option group_lasso needs weight pruning"),
    ],
)
def test_impossible_methods_of_a_training(
    words: str, expected: str, tiny_weights: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in sentence(capsys, *sparse_training(tiny_weights, tiny_data, *words.split()))


def test_a_target_under_the_present_sparsity(
    tiny_weights: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([*pruning(tiny_weights, tiny_data, "--unstructured", "0.6"), "--project", "zeroed"])
    pruned = Path("zeroed") / "exp" / "pruned.safetensors"
    words = ["--target-sparsity", "0.5", "--pruning-pattern", "1x1"]
    assert "already" in sentence(capsys, *sparse_training(pruned, tiny_data, *words))


def test_a_teacher_of_other_classes(
    tiny_cfg: Path, tiny_weights: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = tmp_path / "teacher.safetensors"
    save_checkpoint(Checkpoint.of(Detector(Topology.from_yaml(tiny_cfg, nc=5))), teacher)
    words = ["--distill", "bce", "--teacher", str(teacher)]
    said = sentence(capsys, *sparse_training(tiny_weights, tiny_data, *words))
    assert "5 classes" in said
    assert "teacher.safetensors" in said


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", "No budget is given"),
        ("--unstructured 1.2", "--unstructured"),
        ("--unstructured 0.3 --percent 0.2", "--unstructured zeroes weights and cuts no channels"),
        ("--unstructured 0.3 --pattern 3x", "is invalid. Supported forms"),
        ("--unstructured 0.3 --layers 1", "Remove --flops, --fps, --ms, --params, --percent, --size, --layers"),
        ("--layers 1 --search eagleeye", "--search needs a budget"),
        ("--percent 0.2 --chains", "Add --layers 1"),
        ("--layers 1 --layer-score charm", "Unknown layer score 'charm'; choose one of contribution,"),
        ("--percent 0.2 --criterion beauty", "Unknown criterion 'beauty'; choose one of fisher,"),
        ("--percent 0.2 --tie loosely", "invalid choice 'loosely' for argument '--tie'"),
        ("--percent 0.2 --search dowsing", "--search dowsing is unknown. Use eagleeye"),
    ],
)
def test_impossible_cuts(
    words: str, expected: str, tiny_weights: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in sentence(capsys, *pruning(tiny_weights, tiny_data, *words.split()))


@pytest.mark.parametrize(("percent", "expected"), [("0.2,much", "much"), ("1.2", "1.2"), ("0.2,0.2", "twice")])
def test_impossible_sweeps(
    percent: str, expected: str, tiny_weights: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--weights", str(tiny_weights), "--data", str(tiny_data), "--img", "64", "--percent", percent]
    assert expected in sentence(capsys, "sweep", *words)


def test_zeros_are_kept_by_finetuning_with_distillation(
    tiny_weights: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([*pruning(tiny_weights, tiny_data, "--unstructured", "0.3"), "--project", "zeroed"])
    pruned = Path("zeroed") / "exp" / "pruned.safetensors"
    words = sparse_training(pruned, tiny_data, "--distill", "bce+features", "--project", "tuned")
    main(["finetune", *words[1:]])
    main(["val", "--weights", "tuned/exp/weights/best.safetensors", "--data", str(tiny_data), "--img", "64"])
    printed = capsys.readouterr().out
    before, after = load_checkpoint(pruned), load_checkpoint("tuned/exp/weights/best.safetensors")
    for name, mask in before.masks.items():
        assert (after.tensors[name][~mask] == 0).all()
    assert "sparsity 29." in printed
    assert printed.count("Average Precision") == 6
    assert printed.count("Average Recall") == 6
    assert "Speed: " in printed


def test_layers_and_channels_in_one_cut(tiny_weights: Path, tiny_data: Path) -> None:
    main([*pruning(tiny_weights, tiny_data, "--layers", "1", "--percent", "0.2"), "--project", "cut"])
    summary = json.loads(Path("cut/exp/summary.json").read_text())
    assert [row["stage"] for row in summary["table"]] == [
        "dense", "layers removed", "cut, no repair", "cut + repair",
    ]  # fmt: skip
    checkpoint = load_checkpoint("cut/exp/pruned.safetensors")
    assert checkpoint.plan is not None
    assert len(checkpoint.plan["removed_blocks"]) == 1
    assert [stage.verb for stage in checkpoint.history] == ["prune", "prune"]


def test_sweep_prints_its_table(tiny_weights: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--weights", str(tiny_weights), "--data", str(tiny_data), "--img", "64", "--workers", "0", "--cut"]
    main(["sweep", *words, "--percent", "0.1,0.3", "--json"])
    summary = json.loads(capsys.readouterr().out)
    assert [row["percent"] for row in summary["table"]] == [0.0, 0.1, 0.3]
    assert Path("runs/sweep/exp/sweep.csv").is_file()


def test_recipes_are_listed_with_their_sources(capsys: pytest.CaptureFixture[str]) -> None:
    main(["recipes"])
    lines = capsys.readouterr().out.splitlines()
    names = [line.split()[0] for line in lines]
    assert {"intel", "two-of-four", "slimming", "slimming-v6.2", "pruned-yolo", "unstructured", "eagleeye"} <= set(
        names
    )
    assert all(line.endswith("]") for line in lines)
