"""Commands on data sets whose labels are missing or elsewhere: refused, warned of, or told in `data check`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import secateur
from commands_run import pruning, sentence, training
from secateur.cli import main
from secateur.errors import UserError

pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.fixture
def data(tiny_data: Path, tmp_path: Path) -> Path:
    """A data set that a test may break."""
    shutil.copytree(tiny_data.parent, tmp_path / "set", ignore=shutil.ignore_patterns("*.npz"))
    return tmp_path / "set" / "data.yaml"


def unlabelled(data: Path, split: str) -> str:
    """Takes the labels of a split away; gives the beginning of the sentence that says so."""
    labels, images = data.parent / "labels" / split, data.parent / "images" / split
    shutil.rmtree(labels)
    count = len(list(images.iterdir()))
    return (
        f"No image of split {split} (data.yaml) has an object. Labels were searched in {labels} and next to the "
        f"images ({count} without label file). Put them there, or correct the paths"
    )


def test_val_refuses_a_split_without_objects(
    data: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = unlabelled(data, "val")
    assert f"{said}." in sentence(capsys, "val", "--weights", str(tiny_weights), "--data", str(data))
    assert not Path("runs").exists()
    with pytest.raises(UserError, match="No image of split val"):
        secateur.evaluate(secateur.load(tiny_weights), data)


def test_val_says_that_label_files_are_empty(
    data: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in (data.parent / "labels/val").iterdir():
        file.write_text("")
    message = sentence(capsys, "val", "--weights", str(tiny_weights), "--data", str(data))
    assert f"searched in {data.parent / 'labels/val'} (8 with a label file without boxes)." in message


@pytest.mark.parametrize("split", ["train", "val"])
def test_train_refuses_a_split_without_objects(
    data: Path, tiny_cfg: Path, split: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = unlabelled(data, split)
    assert f"{said}." in sentence(capsys, *training(data, tiny_cfg))
    assert not Path("runs").exists()


@pytest.mark.parametrize("split", ["train", "val"])
def test_prune_with_labels_refuses_a_split_without_objects(
    data: Path, tiny_weights: Path, split: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = unlabelled(data, split)
    message = sentence(capsys, *pruning(tiny_weights, data, "--params", "0.8"))
    assert f"{said}, or set --images and omit --data." in message
    assert not Path("runs").exists()


def test_prune_in_python_refuses_training_images_without_objects(data: Path, tiny_weights: Path) -> None:
    unlabelled(data, "train")
    with pytest.raises(UserError, match=r"No image of split train .*or set --images"):
        secateur.prune(secateur.load(tiny_weights), data, params=0.8, image_size=64)


def test_images_need_no_labels(data: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unlabelled(data, "train")
    words = ["--weights", str(tiny_weights), "--images", str(data.parent / "images/train"), "--params", "0.8"]
    main(["prune", *words, "--criterion", "l2", "--img", "64", "--device", "cpu", "--no-reconstruct"])
    assert Path("runs/prune/exp/pruned.safetensors").is_file()
    assert "has an object" not in capsys.readouterr().err


def test_few_labels_are_a_warning(data: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(8):
        shutil.copy(data.parent / f"images/val/{number:05d}.jpg", data.parent / f"images/val/more{number}.jpg")
    for file in sorted((data.parent / "labels/val").iterdir())[1:]:
        file.unlink()
    main(["val", "--weights", str(tiny_weights), "--data", str(data), "--img", "64", "--device", "cpu", "--no-plots"])
    assert "Warning: of 16 images only 1 has an object (15 without label file)." in capsys.readouterr().err


def test_data_check_prints_tables_and_each_remark_once(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = data.parent / "labels"
    (labels / "train/00000.txt").write_text("0 0.5 0.5 0.5 0.5\n" * 2)
    (labels / "train/spare.txt").write_text("")
    unlabelled(data, "test")
    for _ in range(2):  # the second time from the cache
        main(["data", "check", str(data)])
        out, err = capsys.readouterr()
        assert not err
        lines = out.splitlines()
        assert f"train: labels of 24 images in {labels / 'train'}" in lines
        assert f"train: 1 label file in {labels / 'train'} without an image: spare.txt" in lines
        assert lines.count(f"train: {labels / 'train/00000.txt'}: 1 duplicate rows removed") == 1
        assert sum("Warning: No image of split test" in line for line in lines) == 1
        assert [line.split()[:2] for line in lines if line.split()[:1] in (["test"], ["val"])][:2] == [
            ["val", "8"],
            ["test", "8"],
        ]
        for name in ("0 disc", "1 square", "2 triangle"):
            assert sum(line.strip().startswith(name) for line in lines) == 1
        assert "Counts(" not in out
