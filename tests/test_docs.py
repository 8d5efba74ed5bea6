"""The pages say what is: the option reference is the code's, links lead somewhere, commands and snippets work."""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import secateur
from secateur.cli import parsed
from secateur.commands import COMMANDS
from secateur.families.yolov5.family import YOLOv5Family
from secateur.registry import PLUGINS
from secateur.runs.recipes.recipe import load_recipe
from secateur.runs.recipes.resolve import resolve
from test_help import flags

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
INLINE = re.compile(r"`([^`]+)`")
COMMAND = re.compile(r"(?:^|\s)secateur (?=[\w-])([^>\n]*)")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def command_lines(page: Path) -> list[str]:
    """What stands behind `secateur` in the blocks of a page and between its backticks."""
    text = page.read_text()
    blocks = [inner.replace("\\\n", " ") for language, inner in BLOCK.findall(text) if language in ("", "sh", "bash")]
    inline = [" ".join(words.split()) for words in INLINE.findall(BLOCK.sub("", text))]
    lines = [line for block in [*blocks, *inline] for line in block.splitlines()]
    return [match[1] for line in lines if (match := COMMAND.search(line))]


# The page on extending adds commands of its own; tests/test_extending.py runs them.
LINES = [
    (page.name, line)
    for page in PAGES
    for line in dict.fromkeys(command_lines(page))
    if page.name != "extending.md" or line.split()[0] in COMMANDS
]


def anchors(page: Path) -> set[str]:
    """The names under which the headings of a page can be linked to."""
    headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", page.read_text()), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_option_reference_is_what_the_options_are() -> None:
    environment = {name: value for name, value in os.environ.items() if name != PLUGINS}
    command = [sys.executable, str(ROOT / "docs" / "make_options.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr


def test_the_option_reference_names_every_flag_that_is_parsed(capsys: pytest.CaptureFixture[str]) -> None:
    sections = re.split(r"^## ", (ROOT / "docs" / "options.md").read_text(), flags=re.M)
    shared = next(section for section in sections if section.startswith("Shared options"))
    for name, command in COMMANDS.items():
        own = next(section for section in sections if section.startswith(f"secateur {name}\n"))
        with pytest.raises(SystemExit):
            parsed(command, ["--help-all"])
        shown = flags(capsys.readouterr().out)
        assert shown > {"--help"} or name in ("completion", "data", "recipes"), name
        missing = {flag for flag in shown if f"`{flag}`" not in own + shared} - {"--help"}
        assert not missing, (name, missing)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(BLOCK.sub("", page.read_text())):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(file), f"{page.name} links to {target}"


@pytest.mark.parametrize(("page", "line"), LINES, ids=lambda value: str(value)[:60])
def test_command_lines_are_understood(page: str, line: str) -> None:
    words = [word for word in shlex.split(line, comments=True) if word != "..."]
    if words[0] == "COMMAND" or words[0].startswith("-"):
        return
    assert words[0] in COMMANDS, f"{page}: secateur {line}"
    if len(words) == 1 or "--help" in words:
        return
    try:
        parsed(COMMANDS[words[0]], words[1:])
    except SystemExit:
        pytest.fail(f"{page}: secateur {line}")


def test_the_recipe_on_the_page_of_formats_is_one(tmp_path: Path) -> None:
    text = next(t for language, t in BLOCK.findall((ROOT / "docs" / "formats.md").read_text()) if language == "yaml")
    (tmp_path / "mine.yaml").write_text(text)
    steps = resolve(load_recipe(tmp_path / "mine.yaml"), {}, {}, trained=True)
    verbs = [planned.step.verb for planned in steps]
    assert verbs == ["sparsify", "prune", "finetune", "prune", "finetune", "export", "measure"]


def test_names_in_python_snippets_exist() -> None:
    for page in PAGES:
        for language, text in BLOCK.findall(page.read_text()):
            if language != "python":
                continue
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("secateur"):
                    module = importlib.import_module(node.module)
                    assert all(hasattr(module, alias.name) for alias in node.names), (page.name, ast.unparse(node))
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "secateur":
                    assert hasattr(secateur, node.attr), (page.name, ast.unparse(node))


def test_paths_that_the_design_names_are_there() -> None:
    """Files and folders of the package, where a page says that something lives."""
    for name in ("docs/design.md", "CONTRIBUTING.md"):
        text = BLOCK.sub("", (ROOT / name).read_text())
        for path in INLINE.findall(text):
            if re.fullmatch(r"(?!tests|docs|benchmarks)[a-z_]+(/[a-z_0-9*.]+)*(/|\.py)", path):
                places = [ROOT / "src" / "secateur", ROOT / "src" / "secateur" / "sparsity", ROOT]
                assert any((place / path).exists() for place in places), path


def test_the_python_page_names_every_public_function() -> None:
    text = (ROOT / "docs" / "python.md").read_text()
    for name in secateur.__all__:
        function = getattr(secateur, name)
        assert f"::: {function.__module__}.{function.__qualname__}\n" in text or f"`secateur.{name}()`" in text, name


def test_the_picture_of_the_readme_is_drawn_from_a_curve(tmp_path: Path) -> None:
    """docs/make_picture.py draws what `secateur pareto` writes, and says in words what it drew."""
    curve: dict[str, Any] = {"runtime": "onnx", "threads": 2, "points": []}
    points = [("n", "dense", 9.0, 0.6), ("n-50", "pruned", 6.0, 0.4), ("n-50-healed", "healed", 6.0, 0.5)]
    for label, kind, ms, value in points:
        curve["points"] += [{"label": label, "network": "n", "kind": kind, "ms": ms, "figures": {"mAP50-95": value}}]
    curve["points"] += [{"label": "m", "network": "m", "kind": "dense", "ms": 20.0, "figures": {"mAP50-95": 0.7}}]
    (tmp_path / "pareto.json").write_text(json.dumps(curve))
    command = [sys.executable, str(ROOT / "docs" / "make_picture.py"), "pareto.json", "images/curve.svg"]
    command += ["--network", "n"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "n-50-healed (healed) 0.500 at 6.0 ms" in done.stdout and "m (dense)" not in done.stdout
    assert "<svg" in (tmp_path / "images" / "curve.svg").read_text()


def test_the_page_on_methods_states_how_a_close_start_is_healed() -> None:
    own = YOLOv5Family.healing
    text = " ".join((ROOT / "docs" / "methods.md").read_text().split())
    assert f"AdamW at {own.lr} " in text
    assert f"held-out loss is below {own.near} is close" in text and f"a rate of {own.near_lr} " in text
