"""One word for one thing: identifiers, options, help and headings use the words of docs/glossary.md."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from secateur.flags import understood
from secateur.pruning.settings import FORMER_NAMES

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "secateur"
FILES = sorted(SOURCE.rglob("*.py"))
# A word that no identifier has -> the word to use.
IN_IDENTIFIERS = {
    "picture": "image", "pictures": "images", "mend": "repair", "mends": "repairs", "mended": "repaired",
    "mending": "repair", "recalibrate": "correct", "recalibration": "correction", "stock": "upstream",
    "measuring": "the name of what is measured", "asker": "the name of what asks", "contestant": "network",
}  # fmt: skip
# Identifiers that a user's files or programs name, each with its reason.
ALLOWED_IDENTIFIERS: dict[str, str] = {}
IN_HELP = {
    "picture": "image", "pictures": "images", "mend": "repair", "mended": "repaired", "recalibrate": "correct",
    "stock": "upstream", "lies": "is", "stands": "is", "beside": "next to", "told": "given", "nobody": "no one",
    "alone": "only",
}  # fmt: skip
PHRASES = re.compile(r"\bgo(es|ing)? on with\b|\bgone on with\b|\bas far as\b", re.IGNORECASE)
# Classes that may share a name: {name: reason}.
SAME_NAME = {
    "WithStrides": "the same protocol in two rooms that may not import each other",
}
HEADED = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
# The glossary explains the words that are not used; the help has a test of its own.
READ = [ROOT / "SECURITY.md", *(page for page in HEADED if page.name not in ("glossary.md", "options.md"))]
IN_PAGES = {**IN_HELP, "whatever": "regardless of"}
CODE = re.compile(r"^```.*?^```|`[^`]*`", flags=re.DOTALL | re.MULTILINE)


def words_of(identifier: str) -> set[str]:
    """The words of a name in snake case or in camel case, in lower case."""
    parts = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", identifier).lower().split("_")
    return {part for part in parts if part}


def identifiers(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Names that a file gives to functions, classes, arguments, variables, attributes and imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr
        elif isinstance(node, ast.alias) and node.asname:
            yield 0, node.asname


def faults_of(text: str, forbidden: dict[str, str]) -> list[str]:
    found = re.findall(r"[a-z]+", text.lower())
    return [f"{word!r}, say {forbidden[word]!r}" for word in found if word in forbidden]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_identifiers(file: Path) -> None:
    names = [(0, file.stem), *identifiers(ast.parse(file.read_text()))]
    faults = [
        f"line {line}: {name}, say {IN_IDENTIFIERS[word]}"
        for line, name in names
        if name not in ALLOWED_IDENTIFIERS
        for word in sorted(words_of(name) & IN_IDENTIFIERS.keys())
    ]
    assert not faults


def test_folders() -> None:
    folders = {part for file in FILES for part in file.relative_to(SOURCE).parts[:-1]}
    assert not {name for name in folders if words_of(name) & IN_IDENTIFIERS.keys()}


def test_classes_have_names_of_their_own() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for file in FILES:
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(str(file.relative_to(SOURCE)))
    assert {name: where for name, where in places.items() if len(where) > 1 and name not in SAME_NAME} == {}


def test_the_words_of_the_help() -> None:
    # docs/options.md has every help text; test_docs.py compares it with the commands.
    faults = []
    for number, line in enumerate((ROOT / "docs" / "options.md").read_text().splitlines(), 1):
        if line.startswith("## Flags of YOLOv5"):
            break
        faults += [f"options.md, line {number}: {fault}" for fault in faults_of(line, IN_HELP)]
        faults += [f"options.md, line {number}: {match[0]!r}" for match in PHRASES.finditer(line)]
    assert not faults


def test_the_words_of_the_pages() -> None:
    faults = []
    for page in READ:
        text = CODE.sub("", page.read_text())
        faults += [f"{page.relative_to(ROOT)}: {fault}" for fault in faults_of(text, IN_PAGES)]
        faults += [f"{page.relative_to(ROOT)}: {match[0]!r}" for match in PHRASES.finditer(text)]
    assert not faults


@pytest.mark.parametrize("file", HEADED, ids=lambda file: file.name)
def test_headings(file: Path) -> None:
    text = re.sub(r"^```.*?^```", "", file.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = [line for line in text.splitlines() if re.match(r"#{1,6} ", line)]
    assert not [f"{line}: {fault}" for line in headings for fault in faults_of(line, IN_HELP)]


def test_former_options_are_hidden_synonyms() -> None:
    shown = (ROOT / "docs" / "options.md").read_text().partition("## Flags of YOLOv5")[0]
    for former, present in FORMER_NAMES.items():
        old, new = (f"--{name.replace('_', '-')}" for name in (former, present))
        assert understood("prune", [old, "1"]) == [new, "1"]
        assert f"`{old}`" not in shown and f"`{new}`" in shown


def test_the_glossary_names_each_word_once() -> None:
    meanings = (ROOT / "docs" / "glossary.md").read_text().partition("## Words that are not used")[0]
    words = re.findall(r"^\| \*\*([^*]+)\*\* \|", meanings, flags=re.MULTILINE)
    assert len(words) == len(set(words)) and len(words) > 30
    assert not {word for word in words if word in IN_IDENTIFIERS}


def test_a_forbidden_word_is_found() -> None:
    tree = ast.parse("class PictureFile:\n    def run(self, stock_rows):\n        self.mended = stock_rows\n")
    found = {word for _, name in identifiers(tree) for word in words_of(name) & IN_IDENTIFIERS.keys()}
    assert found == {"picture", "stock", "mended"}
    assert faults_of("What lies beside a Picture", IN_HELP) == [
        "'lies', say 'is'", "'beside', say 'next to'", "'picture', say 'image'",
    ]  # fmt: skip
