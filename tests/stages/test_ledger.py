from __future__ import annotations

from pathlib import Path

from secateur.stages.ledger import Ledger, fingerprint


def test_a_step_is_done_once_across_processes(tmp_path: Path) -> None:
    calls = []
    first = Ledger.open(tmp_path, "exp", "key")
    assert first.step("a", lambda: calls.append(1) or {"x": 1}) == {"x": 1}
    again = Ledger.open(tmp_path, "exp", "key")
    assert again.folder == first.folder
    assert again.step("a", lambda: calls.append(2) or {"x": 2}) == {"x": 1}
    assert calls == [1]


def test_other_settings_and_finished_runs_get_a_new_folder(tmp_path: Path) -> None:
    first = Ledger.open(tmp_path, "exp", "key")
    assert Ledger.open(tmp_path, "exp", "other").folder != first.folder
    first.finish()
    assert Ledger.open(tmp_path, "exp", "key").folder not in {first.folder}


def test_a_damaged_progress_file_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "exp"
    folder.mkdir()
    (folder / "progress.json").write_text("{")
    assert Ledger.open(tmp_path, "exp", "key").folder == tmp_path / "exp2"
    assert (folder / "progress.json").read_text() == "{"


def test_fingerprint_reads_settings_and_files(tmp_path: Path) -> None:
    file = tmp_path / "a.pt"
    file.write_bytes(b"1")
    before = fingerprint({"a": 1, "b": 2}, (file,))
    assert before == fingerprint({"b": 2, "a": 1}, (file,))
    assert before != fingerprint({"a": 1, "b": 3}, (file,))
    file.write_bytes(b"2")
    assert before != fingerprint({"a": 1, "b": 2}, (file,))
