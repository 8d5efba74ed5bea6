"""What a run remembers: parts done once, a key that says what changed, a lock that keeps a second process out."""

from __future__ import annotations

import logging
import multiprocessing
from pathlib import Path

import pytest

from secateur.errors import UserError
from secateur.runs.progress import Progress, key_of, run_lock

KEY = {"--flops": "0.5", "the recipe": "abc"}


def test_a_part_is_done_once(tmp_path: Path) -> None:
    calls: list[int] = []

    def work(number: int) -> dict[str, int]:
        calls.append(number)
        return {"x": number}

    with Progress.open(tmp_path, "exp", KEY) as first:
        assert first.step("a", lambda: work(1)) == {"x": 1}
    with Progress.open(tmp_path, "exp", KEY) as again:
        assert again.folder == first.folder
        assert again.step("a", lambda: work(2)) == {"x": 1}
    assert calls == [1]
    assert sorted(file.name for file in first.folder.iterdir()) == ["progress.json"]


def test_another_key_gets_a_new_folder_and_says_why(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "secateur")
    with Progress.open(tmp_path, "exp", KEY) as first:
        pass
    with Progress.open(tmp_path, "exp", KEY | {"--flops": "0.6"}) as other:
        assert other.folder != first.folder
    assert "exp is unfinished, but --flops changed since" in caplog.text


@pytest.mark.parametrize("key", ['"0123"', '{"--flops": "0.5", "the recipe": "abc", "format": "2"}'])
def test_a_run_of_another_version_is_not_gone_on_with(
    key: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "secateur")
    (tmp_path / "exp").mkdir()
    (tmp_path / "exp" / "progress.json").write_text(f'{{"key": {key}, "finished": false, "steps": {{"dense": 1}}}}')
    with Progress.open(tmp_path, "exp", KEY) as progress:
        assert progress.folder == tmp_path / "exp2"
    assert "it was started by another version" in caplog.text


def test_a_finished_run_stays_as_it_is(tmp_path: Path) -> None:
    with Progress.open(tmp_path, "exp", KEY) as first:
        first.finish({})
    with Progress.open(tmp_path, "exp", KEY) as second:
        assert second.folder != first.folder


@pytest.mark.parametrize(("part", "kept"), [("row dense", False), ("train", True)])
def test_a_failure_keeps_a_folder_in_which_something_was_made(part: str, kept: bool, tmp_path: Path) -> None:
    with pytest.raises(UserError), Progress.open(tmp_path / "runs", "exp", KEY) as progress:
        logging.getLogger("secateur").warning("at work")
        progress.step(part, lambda: 1)
        raise UserError("It cannot be done.")
    assert (tmp_path / "runs" / "exp" / "progress.json").exists() == (tmp_path / "runs").exists() == kept


@pytest.mark.parametrize("name", ["train/state.pt", "rounds.json", "cliff-2/plan.json", "search.json"])
def test_a_failure_keeps_the_state_of_a_long_step(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError), Progress.open(tmp_path, "exp", KEY) as progress:
        file = progress.folder / name
        file.parent.mkdir(exist_ok=True)
        file.touch()
        raise UserError("It cannot be done.")
    assert file.exists()


def test_a_damaged_progress_file_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "exp"
    folder.mkdir()
    (folder / "progress.json").write_text("{")
    with Progress.open(tmp_path, "exp", KEY) as progress:
        assert progress.folder == tmp_path / "exp2"
    assert (folder / "progress.json").read_text() == "{"


def _open(root: Path, answers: multiprocessing.Queue[str]) -> None:
    try:
        with Progress.open(root, "exp", KEY):
            answers.put("opened")
    except UserError as error:
        answers.put(str(error))


def test_a_second_process_is_kept_out_and_nothing_is_lost(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    answers: multiprocessing.Queue[str] = context.Queue()
    with Progress.open(tmp_path, "exp", KEY) as first:
        first.step("a", lambda: 1)
        other = context.Process(target=_open, args=(tmp_path, answers))
        other.start()
        other.join()
        assert f"Another process is using {first.folder}" in answers.get()
        first.step("b", lambda: 2)
    with Progress.open(tmp_path, "exp", KEY) as again:
        assert again.parts == {"a": 1, "b": 2}
    assert [folder.name for folder in tmp_path.iterdir()] == ["exp"]


def test_a_training_folder_is_locked_too(tmp_path: Path) -> None:
    with run_lock(tmp_path), pytest.raises(UserError, match="Another process is using"), run_lock(tmp_path):
        pass
    with run_lock(tmp_path):
        pass


def test_the_key_names_what_a_user_gave(tmp_path: Path) -> None:
    file = tmp_path / "best.pt"
    file.write_bytes(b"1")
    first, other = ({"batch_size": size, "workers": size, "seed": 0} for size in (8, 16))
    before, same = (key_of(options, {"the train images or labels": "a"}, [str(file), ""]) for options in (first, first))
    assert before == same
    file.write_bytes(b"2")
    after = key_of(other, {"the train images or labels": "b"}, [str(file), ""])
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"--batch-size", f"the file {file}", "the train images or labels"}
    assert before.keys() == after.keys()
