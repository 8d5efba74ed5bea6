"""Completion in shells: what the script of each offers, in the shell itself where it is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from secateur.cli import main, parsed
from secateur.commands import COMMANDS
from secateur.commands.completing.words import completed
from test_help import flags

SHELLS = ("bash", "zsh", "fish")
# What each shell is asked: what can stand behind these words, the last of which is not finished.
ASKED = {
    "bash": "source {script}; COMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _secateur; "
    'echo "${{COMPREPLY[*]}}"',
    "fish": "source {script}; complete -C '{line}'",
}


def script_of(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    main(["completion", shell])
    return capsys.readouterr().out


@pytest.mark.parametrize("command", ["train", "prune", "info", "data"])
def test_the_words_are_those_of_the_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    [entry] = [entry for entry in completed() if entry.name == command]
    with pytest.raises(SystemExit):
        parsed(COMMANDS[command], ["--help-all"])
    offered = {word for word in entry.words if word.startswith("--")}
    shown = flags(capsys.readouterr().out) | {"--help-all"}
    # The help of `data` names its subcommands, and theirs the options.
    assert shown <= offered if command == "data" else shown == offered
    assert ({"check", "convert", "coco", "voc", "generate"} <= set(entry.words)) == (command == "data")


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_offers_every_command_and_option(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    script = script_of(shell, capsys)
    for entry in completed():
        assert entry.name in script
        assert all((f"-l {word[2:]}" if shell == "fish" and word[0] == "-" else word) in script for word in entry.words)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_can_read_its_script(shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    file = tmp_path / "script"
    file.write_text(script_of(shell, capsys))
    subprocess.run([shell, "-n", str(file)], check=True)


@pytest.mark.parametrize("shell", ASKED)
@pytest.mark.parametrize(
    ("line", "offered"),
    [("secateur pru", "prune"), ("secateur prune --heal-st", "--heal-steps"), ("secateur info no", "notes.txt")],
)
def test_a_shell_completes(
    shell: str, line: str, offered: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "notes.txt").touch()
    (tmp_path / "script").write_text(script_of(shell, capsys))
    asked = ASKED[shell].format(script=tmp_path / "script", line=line)
    done = subprocess.run([shell, "-c", asked], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.split("\t")[0].split() == [offered]
