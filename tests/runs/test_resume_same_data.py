"""A training resumes with the classes, images and labels of its start, at any path, or says what changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import secateur
from commands_run import sentence
from killing import killed_after
from secateur.cli import main
from secateur.data.synthetic import generate
from secateur.errors import UserError
from secateur.families.loading import load_checkpoint
from secateur.training.state import read_state, write_state

pytestmark = pytest.mark.usefixtures("own_folder")
NAMES = "names: [disc, square, triangle]\n"
FAST = ["--img", "64", "--workers", "0", "--amp", "off", "--epochs", "2", "--batch", "8", "--nominal-batch", "8"]


@pytest.fixture
def data(tiny_data: Path, tmp_path: Path) -> Path:
    """The generated data set, the test's own."""
    shutil.copytree(tiny_data.parent, tmp_path / "set")
    renamed(tmp_path / "set" / "data.yaml", NAMES)
    return tmp_path / "set" / "data.yaml"


def renamed(file: Path, names: str) -> None:
    text = file.read_text()
    file.write_text(text[: text.index("names:")] + names)


def swap(file: Path) -> None:
    renamed(file, "names: [square, disc, triangle]\n")


def add(file: Path) -> None:
    renamed(file, "names: [disc, square, triangle, star]\n")
    label = first_label(file, "train")
    label.write_text(label.read_text() + "3 0.5 0.5 0.2 0.2\n")


def first_label(file: Path, split: str) -> Path:
    return min((file.parent / "labels" / split).glob("*.txt"))


def relabel(split: str) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        label = first_label(file, split)
        label.write_text("1 0.5 0.5 0.25 0.25\n")

    return change


def another_image(file: Path) -> None:
    folder = file.parent / "images" / "train"
    shutil.copy(min(folder.iterdir()), folder / "more.jpg")


CHANGES = [
    (swap, "class 0 was 'disc' and is 'square' now"),
    (add, "the data set had 3 classes and now has 4"),
    (relabel("train"), "the train images or labels changed since"),
    (relabel("val"), "the val images or labels changed since"),
    (another_image, "the train images or labels changed since"),
]
IDS = ["names swapped", "class added", "train label", "val label", "image added"]


def begun(weights: Path, data: Path, *words: str) -> None:
    """A training that was killed in its second epoch; each has three steps."""
    with killed_after(4):
        main(["train", "--weights", str(weights), "--data", str(data), *FAST, *words])


def begun_in_python(weights: Path, data: Path) -> object:
    options = {"epochs": 2, "image_size": 64, "batch_size": 8, "nominal_batch": 8, "workers": 0, "amp": "off"}
    return secateur.finetune(load_checkpoint(weights), data, "tuned", **options)


@pytest.mark.parametrize(("change", "words"), CHANGES, ids=IDS)
def test_what_changed_is_noticed_on_the_command_line(
    change: Callable[[Path], None], words: str, tiny_weights: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun(tiny_weights, data)
    change(data)
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--resume", "runs/train/exp"])
    assert stopped.value.code == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert said == [f"error: Cannot resume in runs/train/exp: {words}. Restore that, or start a new training."]


@pytest.mark.parametrize(("change", "words"), CHANGES, ids=IDS)
def test_what_changed_is_noticed_in_python(
    change: Callable[[Path], None], words: str, tiny_weights: Path, data: Path
) -> None:
    with killed_after(4):
        begun_in_python(tiny_weights, data)
    change(data)
    with pytest.raises(UserError, match="3 classes, but .* has 4" if change is add else words):
        begun_in_python(tiny_weights, data)


def test_a_training_that_is_done_is_not_given_out_for_another_one(tiny_weights: Path, data: Path) -> None:
    begun_in_python(tiny_weights, data)
    begun_in_python(tiny_weights, data)
    swap(data)
    with pytest.raises(UserError, match="class 0 was 'disc' and is 'square' now"):
        begun_in_python(tiny_weights, data)


def test_what_is_put_back_is_gone_on_with(tiny_weights: Path, data: Path) -> None:
    label = first_label(data, "train")
    before = label.read_text()
    begun(tiny_weights, data)
    relabel("train")(data)
    label.write_text(before)
    renamed(data, "names: [Disc, square, triangle]\n")  # case alone is no other class
    main(["train", "--resume", "runs/train/exp"])
    assert json.loads(Path("runs/train/exp/summary.json").read_text())["epochs"] == 2


def test_a_data_set_that_has_moved_is_given_with_resume(
    tiny_weights: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun(tiny_weights, data)
    main(["train", "--weights", str(tiny_weights), "--data", str(data), *FAST, "--name", "undisturbed"])
    (tmp_path / "elsewhere").mkdir()
    data.parent.rename(tmp_path / "elsewhere" / "set")
    moved = tmp_path / "elsewhere" / "set" / "data.yaml"
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["train", "--resume", "runs/train/exp"])
    assert "does not exist. Set --data" in capsys.readouterr().err
    with killed_after(1):
        main(["train", "--resume", "runs/train/exp", "--data", str(moved)])
    main(["train", "--resume", "runs/train/exp"])  # where it is now is remembered
    ours, theirs = (
        load_checkpoint(f"runs/train/{name}/weights/last.safetensors").tensors for name in ("exp", "undisturbed")
    )
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())


def test_images_that_have_moved_alone_bring_the_option_to_mind(
    tiny_weights: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun(tiny_weights, data)
    (data.parent / "images").rename(data.parent / "elsewhere")
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["train", "--resume", "runs/train/exp"])
    assert "If the data set has moved, repeat the command with its data.yaml as --data." in capsys.readouterr().err


def test_another_data_set_is_refused(
    tiny_weights: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun(tiny_weights, data)
    other = generate(tmp_path / "other", images=(24, 8, 8), size=64, classes=3, seed=5)
    options = Path("runs/train/exp/options.json").read_text()
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["train", "--resume", "runs/train/exp", "--data", str(other)])
    said = capsys.readouterr().err
    assert "the train images or labels and the val images or labels changed since" in said
    assert Path("runs/train/exp/options.json").read_text() == options


def test_other_options_are_still_refused_with_resume(capsys: pytest.CaptureFixture[str]) -> None:
    said = sentence(capsys, "train", "--resume", "runs/train/exp", "--data", "data.yaml", "--epochs", "5")
    assert "Remove --epochs, or start a new run" in said


def test_states_of_earlier_versions_go_on(tiny_weights: Path, data: Path, caplog: pytest.LogCaptureFixture) -> None:
    begun(tiny_weights, data)
    folder = Path("runs/train/exp")
    state = read_state(folder)
    assert state.pop("subject")["names"] == {0: "disc", 1: "square", 2: "triangle"}
    write_state(folder, state)
    caplog.set_level("INFO", "secateur")
    main(["train", "--resume", str(folder), "--data", str(data)])
    assert "so --data cannot be compared with its data set" in caplog.text
    assert json.loads((folder / "summary.json").read_text())["epochs"] == 2


def test_classes_are_compared_with_states_of_earlier_versions_too(tiny_weights: Path, data: Path) -> None:
    with killed_after(4):
        begun_in_python(tiny_weights, data)
    state = read_state(Path("tuned"))
    del state["subject"]
    write_state(Path("tuned"), state)
    swap(data)
    with pytest.raises(UserError, match="class 0 was 'disc' and is 'square' now"):
        begun_in_python(tiny_weights, data)


def test_a_head_that_was_put_into_another_order_goes_on(tiny_weights: Path, data: Path) -> None:
    swap(data)
    with killed_after(4):
        begun_in_python(tiny_weights, data)
    tuned = begun_in_python(tiny_weights, data)
    assert isinstance(tuned, secateur.networks.checkpoint.Checkpoint)
    assert tuned.names == {0: "square", 1: "disc", 2: "triangle"}


def test_a_healing_notices_other_images(tiny_weights: Path, data: Path) -> None:
    checkpoint = load_checkpoint(tiny_weights)

    def heal() -> object:
        images = data.parent / "images" / "train"
        return secateur.heal(
            checkpoint, checkpoint, images, folder="healed", image_size=64, heal_steps=40, heal_batch=8
        )

    with killed_after(24):
        heal()
    another_image(data)
    with pytest.raises(UserError, match="the images changed since"):
        heal()
