"""Help: the usual options by --help, every one by --help-all, with the names of all methods, those of plugins too."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from secateur.cli import parsed
from secateur.commands import COMMANDS
from secateur.deploy.exporters import EXPORTERS
from secateur.deploy.timing import STOPWATCHES
from secateur.families.yolov5.distillation import DISTILLATIONS
from secateur.pruning.importance import CRITERIA
from secateur.pruning.layer_scores import LAYER_SCORES
from secateur.registry import PLUGINS, Registry, names_in, with_names
from secateur.sparsity.criteria import WEIGHT_CRITERIA
from secateur.sparsity.patterns import PATTERNS
from secateur.sparsity.rates import RATES
from secateur.sparsity.schedules import SPARSITY_SCHEDULES

SOURCE = Path(__file__).resolve().parents[1] / "src" / "secateur"
LISTED: list[Registry[object]] = [
    CRITERIA, LAYER_SCORES, DISTILLATIONS, EXPORTERS, STOPWATCHES, WEIGHT_CRITERIA, PATTERNS, RATES, SPARSITY_SCHEDULES
]  # type: ignore[list-item]  # fmt: skip


def help_of(command: str, word: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as end:
        parsed(COMMANDS[command], [word])
    assert end.value.code == 0
    return capsys.readouterr().out


def flags(text: str) -> set[str]:
    """The words at the beginning of the lines of a help, in its boxes or without them."""
    heads = [line[2:].split("  ")[0] for line in text.splitlines() if re.match(r"[│ ] --?\w", line)]
    return {flag for head in heads for flag in re.findall(r"--\w[\w-]*", head)}


def test_the_help_of_prune_is_half_as_long_as_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    short, long = (help_of("prune", word, capsys) for word in ("--help", "--help-all"))
    assert len(short.splitlines()) <= 104
    assert len(short.splitlines()) <= len(long.splitlines()) / 2
    assert {"--flops", "--criterion", "--rounds", "--heal", "--layers"} < flags(short)
    assert {"--absorb", "--tolerance", "--cliff-images", "--min-share"} < flags(long) - flags(short)


@pytest.mark.parametrize("command", ["train", "sparsify", "finetune", "run", "detect"])
def test_long_helps_are_shorter(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    short, long = (help_of(command, word, capsys) for word in ("--help", "--help-all"))
    assert len(short.splitlines()) < 0.75 * len(long.splitlines())
    assert flags(short) < flags(long)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_the_last_line_counts_what_is_hidden(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    if command == "data":  # it has subcommands
        return
    short, long = (help_of(command, word, capsys) for word in ("-h", "--help-all"))
    last = short.splitlines()[-1]
    match = re.fullmatch(rf"(\d+) more options?: secateur {command} --help-all", last)
    hidden = {flag for flag in flags(long) - flags(short) if not flag.startswith("--no-")}
    yes_or_no = {flag for flag in hidden if f"--no-{flag[2:]}" in flags(long)}
    aliases = {"--imgsz", "--img", "--batch"}
    assert (int(match[1]) if match else 0) == len(hidden - aliases), (hidden, yes_or_no)
    assert "more option" not in long


def test_hidden_options_are_still_taken() -> None:
    options = parsed(COMMANDS["prune"], ["--no-absorb", "--tie", "max", "--candidates", "7", "--seed", "3"])
    assert (options.repair.absorb, options.score.tie, options.search.candidates, options.seed) == (False, "max", 7, 3)


@pytest.mark.parametrize("registry", LISTED, ids=lambda registry: registry.home)
def test_help_lists_what_the_registry_has(registry: Registry[object]) -> None:
    assert names_in(registry.home) == sorted(registry)


def test_every_place_for_names_in_a_help_is_filled(capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMANDS:
        assert "{secateur" not in help_of(command, "--help-all", capsys)
    assert with_names("One of {secateur.sparsity.criteria}.") == "One of gradient, magnitude, snip or snip_momentum."


def test_a_method_of_a_plugin_is_in_the_help_and_help_stays_light(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from secateur.sparsity.criteria import weight_criterion\n\n\n"
        "@weight_criterion('fairness')\n"
        "def fairness(scores, weight, gradient):\n    return scores\n"
    )
    code = "from secateur.cli import main; main(['finetune', '--help-all'])"
    shown = python(code, {PLUGINS: str(tmp_path / "mine.py")})
    assert "fairness, gradient, magnitude, snip or snip_momentum" in " ".join(shown.replace("│", " ").split())
    listed = python("import secateur; print(secateur.list_weight_criteria())", {PLUGINS: str(tmp_path)})
    assert listed == "['fairness', 'gradient', 'magnitude', 'snip', 'snip_momentum']\n"
    code = (
        "import sys\nfrom secateur.cli import main\ntry:\n    main(['run', '--help'])\n"
        "except SystemExit:\n    print('torch' in sys.modules)"
    )
    assert python(code, {}).endswith("False\n")


def python(code: str, environment: dict[str, str]) -> str:
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | environment, check=False
    )
    assert process.returncode == 0, process.stderr[-2000:]
    return process.stdout
