"""Plain English: turns of phrase that no message, help text, docstring, recipe or page has, each with a replacement."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "secateur"
# Pattern of a banned turn, with word borders -> what to write instead.
BANNED = {
    r"(?:is|are|was|were|be|been) told": "is given, is set, or an active verb",
    r"tells? (?:it|them|the user|no|nothing|how|what|which|where|whether|more|apart)": "states, reports, distinguishes",
    r"l(?:ie|ies|ying)": "is",
    r"stands?(?! out|-)": "is, represents, means",
    r"beside": "next to, with, against",
    r"(?:go|goes|going|gone|went) on": "continue, resume",
    r"(?:no|some|any)body": "no one, the user",
    r"what(?:so)?ever|whoever": "any, all, the user",
    r"(?:as|so) far as": "if, as much as",
    r"alone": "only, separately",
    r"leav(?:e|es|ing) (?:\w+ )?out|left out": "skip, omit, remove",
    r"(?:leave|leaves|left) alone": "does not change",
    r"says (?:so|no|nothing|that|what|which|how|where|whether|it)": "states, reports",
    r"(?:it|file|checkpoint|network|detector|model|weights|machine) (?:knows?|wants?|likes|sees?|thinks?)":
        "contains, needs, uses",
    r"(?:this|the|a) (?:network|detector|model)(?:'s)? answers?": "outputs",
    r"meanwhile": "during this time, in the meantime",
    r"(?:there|where)(?:by|in|of|upon)": "a plain sentence",
    r"nought": "zero",
    r"and the like": "and similar",
    r"in turns": "interleaved, alternately",
    r"anew": "again",
    r"mend(?:s|ed|ing)?": "correct, repair",
    r"passed over": "skipped",
    r"remember(?:s|ed|ing)?": "store, record",
    r"in the mean(?! )": "on average",
    r"g(?:ive|ives|ave|iven) back": "return",
    r"(?:is|are) none of": "is not one of",
    r"(?<!there )(?:is|are) no (?:file|network|number|image|text|table|list|size|share|checkpoint|detector|page|run)":
        "is not a",
    r"ha(?:s|ve) to be": "must be",
    r"on the way(?! to)": "during, in between",
    r"c(?:ome|omes|ame) out (?:as|of it|the)": "result",
    r"makes? up for": "compensates for",
    r"how sure": "confidence",
    r"speaks? (?:of|for|against)": "concerns, indicates",
    r"something to look at": "images",
    r"(?:a|one) (?:line|row|figure|bar|table|entry|file) an? (?=\w)": "one ... per ...",
    r"(?:ms|milliseconds|seconds|times|images) an? (?:image|call|second|step|round|epoch)": "... per ...",
    r"of (?:ours|theirs)": "own, or a name",
    r"so many": "this number of, as many",
    r"(?:all|what) else": "everything else, other work",
    r"begun": "started",
    r"slip of the keys": "typing error",
    r"without a word": "without a message",
    r"way by way|one after the other": "in order, by method",
    r"by halves|for ever": "a plain word",
    r"as can be": "as possible",
    r"where it was (?:before|left)": "resume",
    r"as (?:it|they) (?:was|were) before": "unchanged",
}  # fmt: skip
TURNS = {re.compile(rf"(?<![\w-]){turn}(?![\w-])", re.IGNORECASE): instead for turn, instead in BANNED.items()}
ANY = re.compile(rf"(?<![\w-])(?:{'|'.join(BANNED)})(?![\w-])", re.IGNORECASE)  # one pass over texts without a fault
# Technical uses, removed from a text before it is searched.
ALLOWED = re.compile(r"stand-?alone|stand-ins?|`[^`\n]*`", re.IGNORECASE)
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FILES = sorted(SOURCE.rglob("*.py"))
RECIPES = sorted((SOURCE / "recipes").glob("*.yaml"))


def texts(source: str) -> Iterator[tuple[int, str]]:
    """Docstrings and string literals with a space, each on one line; of f-strings the parts between values."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, " ".join(node.value.split())


def faults_in(text: str) -> list[str]:
    """The banned turns of a text, each with its replacement."""
    plain = ALLOWED.sub("x", text)
    if not ANY.search(plain):
        return []
    return [f"{match[0]!r}, write: {instead}" for turn, instead in TURNS.items() for match in turn.finditer(plain)]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_no_banned_turn_in_strings_and_docstrings(file: Path) -> None:
    assert not [f"line {line}: {fault}" for line, text in texts(file.read_text()) for fault in faults_in(text)]


@pytest.mark.parametrize("file", PAGES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_banned_turn_in_pages(file: Path) -> None:
    text = file.read_text().partition("## Words that are not used")[0]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    assert not [fault for paragraph in prose.split("\n\n") for fault in faults_in(" ".join(paragraph.split()))]


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.name)
def test_no_banned_turn_in_recipes(file: Path) -> None:
    assert not faults_in(" ".join(file.read_text().replace("#", " ").split()))


def test_banned_turns_are_found() -> None:
    assert len(BANNED) >= 25
    assert faults_in("The file that lies beside it goes on with nobody") == [
        "'lies', write: is",
        "'beside', write: next to, with, against",
        "'goes on', write: continue, resume",
        "'nobody', write: no one, the user",
    ]
    assert not faults_in("A stand-in, a standalone file and `beside` are allowed.")
    assert list(texts('def f():\n    """Two\n    words."""\n    return f"{x} is told {y}"\n')) == [
        (2, "Two words."), (4, "is told"),
    ]  # fmt: skip
