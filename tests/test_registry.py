"""Registries: they find the files of their package and the user's plugins, and say what they know."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from secateur.errors import UserError
from secateur.registry import PLUGINS, Registry, load_plugins

PACKAGE = '"""Methods."""\nfrom secateur.registry import Registry\nMETHODS = Registry("method", "methods_here")\n'
METHOD = 'from methods_here import METHODS\n\n@METHODS.register("{0}")\ndef method():\n    return "{0}"\n'


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "methods_here"
    folder.mkdir()
    (folder / "__init__.py").write_text(PACKAGE)
    (folder / "one.py").write_text(METHOD.format("first"))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder
    for name in [name for name in sys.modules if name.startswith(("methods_here", "secateur_plugin"))]:
        del sys.modules[name]


def registry() -> Registry[object]:
    import methods_here  # type: ignore[import-not-found]

    return methods_here.METHODS  # type: ignore[no-any-return]


def test_a_new_file_is_a_new_method(package: Path) -> None:
    (package / "another.py").write_text(METHOD.format("second"))
    assert list(registry()) == ["first", "second"]
    assert "second" in registry()
    assert registry()["second"]() == "second"  # type: ignore[operator]


def test_plugins_of_the_user(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "mine.py").write_text(METHOD.format("mine"))
    monkeypatch.setenv(PLUGINS, str(own))
    assert list(registry()) == ["first", "mine"]


@pytest.mark.parametrize("before", [False, True])
def test_a_method_of_the_user_takes_the_place_of_the_packages(
    before: bool, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(METHOD.replace('return "{0}"', 'return "mine"').format("first"))
    monkeypatch.setenv(PLUGINS, str(file))
    found = registry()
    if before:
        # Another registry was searched first.
        load_plugins()
    assert found["first"]() == "mine"  # type: ignore[operator]


def test_registries_that_share_a_package(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    second = 'from secateur.registry import Registry\nOTHERS = Registry("other", "methods_here", "others_here")\n'
    (tmp_path / "others_here.py").write_text(second)
    both = METHOD + METHOD.replace("methods_here", "others_here").replace("METHODS", "OTHERS").replace(
        '"{0}"', '"{0}!"'
    )
    (package / "one.py").write_text(both.format("first"))
    file = tmp_path / "mine.py"
    file.write_text(METHOD.replace('return "{0}"', 'return "mine"').format("first"))
    monkeypatch.setenv(PLUGINS, str(file))
    found = registry()
    load_plugins()
    import others_here  # type: ignore[import-not-found]

    # The search of one registry imports what the package registers with the other; the user's method stays.
    assert list(others_here.OTHERS) == ["first!"]
    assert list(found) == ["first"]
    assert found["first"]() == "mine"  # type: ignore[operator]
    del sys.modules["others_here"]


def test_an_unknown_name_lists_the_known_ones(package: Path) -> None:
    with pytest.raises(UserError, match=r"Unknown method 'x'; choose one of first\."):
        registry()["x"]


@pytest.mark.parametrize(("text", "sentence"), [(None, "which is not a Python file"), ("1 / 0", "ZeroDivisionError")])
def test_broken_plugins_are_named(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, sentence: str
) -> None:
    file = tmp_path / "broken.py"
    if text is not None:
        file.write_text(text)
    monkeypatch.setenv(PLUGINS, str(file))
    with pytest.raises(UserError, match=sentence):
        list(registry())
