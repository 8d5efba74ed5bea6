"""Paths that no system has, places that cannot be written, and what killed processes leave behind."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from commands_run import sentence
from secateur.data.config import load_data_config, unlabelled_images
from secateur.errors import UserError
from secateur.families.loading import load_checkpoint
from secateur.files import OLD, atomic_folder, fresh_run, usable_path, write_text

pytestmark = pytest.mark.usefixtures("own_folder")

LONG = "a" * 300
DEEP = "/".join(["b" * 200] * 30)


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("~nosuchuser/x", "Cannot expand the home folder in ~nosuchuser/x. Write the complete path."),
        (LONG, "The path aaaaaaaaaaaaaaaaaaaaaaaa... is longer than the system allows. Shorten it."),
        (DEEP, "The path bbbbbbbbbbbbbbbbbbbbbbbb... is longer than the system allows. Shorten it."),
        ("a\0b", "The path a\\0b contains a NUL character. Correct it."),
        ("a\ud800b", "The path 'a\\ud800b' contains characters that are not allowed in file names. Correct it."),
    ],
    ids=["user", "long", "deep", "nul", "surrogate"],
)
def test_paths_that_cannot_be_are_told(path: str, told: str) -> None:
    with pytest.raises(UserError) as error:
        usable_path(path, expand=True)
    assert str(error.value) == told


@pytest.mark.parametrize("bad", ["~nosuchuser/x", LONG, DEEP, "a\0b"], ids=["user", "long", "deep", "nul"])
def test_every_word_of_a_command_that_is_a_path(
    bad: str, tiny_weights: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, data = str(tiny_weights), str(tiny_data)
    for words in (
        ["info", bad],
        ["val", "--weights", bad, "--data", data],
        ["val", "--weights", weights, "--data", bad],
        ["val", "--weights", weights, "--data", data, "--project", bad],
        ["val", "--weights", weights, "--data", data, "--name", bad],
        ["prune", "--weights", weights, "--images", bad, "--flops", "0.5"],
        ["prune", "--weights", weights, "--flops", "0.5", "--project", bad],
        ["train", "--cfg", bad, "--data", data],
        ["train", "--weights", weights, "--data", data, "--hyp", bad],
        ["train", "--resume", bad],
        ["run", "--weights", weights, "--data", data, "--recipe", bad],
        ["heal", "--weights", weights, "--images", str(tiny_data.parent / "images"), "--teacher", bad],
        ["predict", "--weights", weights, bad],
        ["latency", "--weights", weights, "--out", f"{bad}.json"] if bad[0] != "~" else ["info", bad],
        ["demo", "--project", bad],
    ):
        assert len(sentence(capsys, *words).removeprefix("error: ")) <= 300, words
        assert list(Path().iterdir()) in ([], [Path("cache")]), words


@pytest.mark.parametrize("name", ["../../esc", "/tmp/esc", "a/b", "..", ""])
def test_a_name_does_not_lead_out_of_its_project(
    name: str, tiny_weights: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = ["--weights", str(tiny_weights), "--data", str(tiny_data)]
    for words in (["val", *both], ["train", *both], ["run", *both], ["prune", *both, "--flops", "0.5"], ["demo"]):
        assert "is not a plain folder name" in sentence(capsys, *words, "--name", name)
        assert not Path("runs").exists()


@pytest.mark.parametrize("key", ["path", "train"])
@pytest.mark.parametrize("bad", ["~nosuchuser/x", LONG, "a\\0b"])
def test_paths_inside_a_data_file(key: str, bad: str, tmp_path: Path) -> None:
    file = tmp_path / "data.yaml"
    values = {"path": ".", "train": "images", "names": "[a]"} | {key: f'"{bad}"'}
    file.write_text("".join(f"{name}: {value}\n" for name, value in values.items()))
    from secateur.data.index import scan

    with pytest.raises(UserError, match=r"The path |Cannot expand"):
        scan(load_data_config(file), "train")
    with pytest.raises(UserError):
        scan(unlabelled_images(file, {0: "a"}), "train")
    with pytest.raises(UserError, match=r"The path |Cannot expand"):
        load_checkpoint(LONG)


@contextmanager
def full_disk() -> Iterator[None]:
    """No file can grow beyond some bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


COMMANDS = [
    ["val", "--data", "{data}"],
    ["train", "--data", "{data}", "--epochs", "1"],
    ["prune", "--flops", "0.8", "--criterion", "l1"],
    ["run", "--data", "{data}", "--recipe", "quick"],
    ["sweep", "--data", "{data}", "--criterion", "l1"],
    ["export", "--format", "torchscript"],
    ["predict", "{images}"],
]


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_a_full_disk_leaves_no_run_folder(
    words: list[str], tiny_weights: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = _said(words, tiny_data)
    with full_disk():
        told = sentence(capsys, *said, "--weights", str(tiny_weights), "--img", "64")
    assert "Cannot write" in told or "cannot be written" in told
    assert not Path("runs").exists()


def _said(words: list[str], data: Path) -> list[str]:
    return [word.format(data=data, images=data.parent / "images" / "val") for word in words]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc takes no folders from anybody, root among them")
@pytest.mark.parametrize("words", [words for words in COMMANDS if words[0] != "export"], ids=lambda words: words[0])
def test_a_folder_in_which_nothing_can_be_made_is_named(
    words: list[str], tiny_weights: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = [*_said(words, tiny_data), "--weights", str(tiny_weights), "--img", "64", "--project", "/proc/no/runs"]
    assert "Cannot create the run folder /proc/no/runs/exp" in sentence(capsys, *said)
    assert not Path("runs").exists()


def test_a_folder_that_could_not_be_used_goes_with_those_around_it(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match="no"), fresh_run(tmp_path / "mine" / "new" / "runs"):
        raise UserError("no")
    assert list((tmp_path / "mine").iterdir()) == []
    with pytest.raises(UserError, match="no"), fresh_run(tmp_path / "mine", "exp", lambda: True) as folder:
        (folder / "kept.txt").touch()
        raise UserError("no")
    assert folder.is_dir()


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    long_ago = time.time() - OLD - 60
    mine = [tmp_path / f".secateur-{ended.pid}-labels-a1.png", tmp_path / f".secateur-{ended.pid}-b2-model"]
    mine[0].touch()
    mine[1].mkdir()
    (mine[1] / "part.bin").touch()
    theirs = [tmp_path / name for name in (".labels-a1.png", ".secateur-mine", "labels.png", ".secateur-notes-1")]
    running = tmp_path / f".secateur-{os.getppid()}-labels-c3.png"
    for file in [*theirs, running]:
        file.touch()
    for file in [*mine, *theirs, running]:
        os.utime(file, (long_ago, long_ago))
    young = tmp_path / f".secateur-{ended.pid}-labels-d4.png"
    young.touch()
    write_text(tmp_path / "new.txt", "new")
    left = {path.name for path in tmp_path.iterdir()} - {"cache"}
    assert left == {file.name for file in [*theirs, running, young]} | {"new.txt"}


def test_what_is_half_written_has_the_name_that_is_swept(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "model") as folder:
        assert folder.name.startswith(f".secateur-{os.getpid()}-") and folder.name.endswith("-model")
