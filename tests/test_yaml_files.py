"""The reader of YAML files: plain data, or one sentence that names the file and the line."""

from __future__ import annotations

import datetime
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from hostile_yaml import BOMB, HOSTILE, check_sentence
from secateur.errors import UserError, shown
from secateur.limits import MAX_YAML_DEPTH
from secateur.yaml_files import parse_yaml, read_yaml

SOURCE = Path(__file__).parents[1] / "src"


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_bytes(HOSTILE[name])
    with pytest.raises(UserError) as caught:
        read_yaml(file, "recipe")
    check_sentence(caught.value, "recipe", "x.yaml")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb:\n  - 2024-99-99", 3),
        ("a: 1\nb: [", 2),
        ("a: 1\n\n? [x]\n: 1", 3),
        ("a: 1\nb: !!python/name:os.system", 2),
        ("a: 1\nb: " + "1" * 500, 2),
        ("a: 1\nb: 2\na: 3", 3),
        ("a: {b: 1,\n  c: 2,\n  b: 3}", 3),
        ("- 1: a\n  01: b", 2),
        ("a: 1\n!!map b: 1", 2),
    ],
)
def test_the_line_is_named(text: str, line: int) -> None:
    with pytest.raises(UserError, match=f"The recipe x, line {line} "):
        parse_yaml(text, "The recipe x")


def test_plain_data_comes_out() -> None:
    text = "\ufeffa: &a [1, 2.5, yes, ~, 2024-01-02]\nb: *a\n1: {<<: {x: 1}, y: 'é'}\n"
    value = [1, 2.5, True, None, datetime.date(2024, 1, 2)]
    assert parse_yaml(text.encode(), "x") == {"a": value, "b": value, 1: {"x": 1, "y": "é"}}
    assert parse_yaml("", "x") is None
    deep = "[" * (MAX_YAML_DEPTH - 1) + "]" * (MAX_YAML_DEPTH - 1)
    assert isinstance(parse_yaml(deep, "x"), list)


def test_a_key_that_is_given_twice_is_refused_with_both_lines() -> None:
    with pytest.raises(UserError, match="line 5 cannot be used: the key 'lr0' is given twice, first in line 2"):
        parse_yaml("a: 1\nlr0: 1\n\n\nlr0: 2", "The file x")
    # What a merge brings may be given again, and so may a key of another mapping.
    text = "a: &a {k: 1, m: 1}\nb: {<<: *a, k: 2}\nc: {k: 3, <<: [*a, {n: 5}]}\nd: {<<: *a}"
    merged = {"a": {"k": 1, "m": 1}, "b": {"k": 2, "m": 1}, "c": {"k": 3, "m": 1, "n": 5}, "d": {"k": 1, "m": 1}}
    assert parse_yaml(text, "x") == merged


def test_texts_are_as_written_and_the_rest_is_not() -> None:
    text = "names: &n [no, 01, &x 12:30, ~, {1: yes}]\npath: 01\nval: [~, no, 1.10]\nother: *n\none: *x"
    read = parse_yaml(text, "x", texts=("names",), paths=("path", "val"))
    assert read == {
        "names": ["no", "01", "12:30", "~", {"1": "yes"}],
        "path": "01",
        "val": [None, False, "1.10"],
        "other": [False, 1, 750, None, {1: True}],
        "one": 750,
    }
    assert parse_yaml("names:", "x", texts=("names",)) == {"names": None}


@pytest.mark.parametrize("file", sorted(SOURCE.rglob("*.yaml")), ids=lambda file: file.name)
def test_own_files_are_read(file: Path) -> None:
    assert read_yaml(file)


def test_a_folder_and_a_missing_file_are_told(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.yaml", Path("a\0b.yaml")):
        with pytest.raises(UserError, match="Cannot read the recipe"):
            read_yaml(path, "recipe")


def test_an_alias_bomb_takes_no_memory(tmp_path: Path) -> None:
    (tmp_path / "bomb.yaml").write_text(BOMB)
    code = f"""
        import resource
        from secateur.yaml_files import read_yaml
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            read_yaml({str(tmp_path / "bomb.yaml")!r})
        except Exception as error:
            print(type(error).__name__, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    output = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    kind, kilobytes = output.stdout.split()
    assert kind == "UserError"
    assert int(kilobytes) < 20_000


def test_too_many_values_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secateur.yaml_files.MAX_YAML_VALUES", 1000)
    assert len(parse_yaml("[" + "1," * 900 + "1]", "x")) == 901
    with pytest.raises(UserError, match="more than 1,000 values"):
        parse_yaml("[" + "1," * 1100 + "1]", "x")


def test_values_are_shown_short_and_on_one_line() -> None:
    nested: list[object] = ["x"]
    for _ in range(60):
        nested = [nested] * 10
    for value in ("x" * 10_000, "a\nb" * 100, list(range(10_000)), {i: i for i in range(999)}, 10**5000, nested):
        text = shown(value)
        assert len(text) <= 60
        assert "\n" not in text
    assert (shown(3), shown("two"), shown([1, "a"])) == ("3", "'two'", "[1, 'a']")
