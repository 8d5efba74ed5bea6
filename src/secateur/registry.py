"""Named methods that are found by themselves: the files of a method's package, and those of the user's plugins."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from secateur.errors import UserError, shown

PLUGINS = "SECATEUR_PLUGINS"

T = TypeVar("T")
_KINDS: dict[str, Registry[Any]] = {}  # every registry by its package
_PLACE = re.compile(r"\{(secateur[\w.]+)\}")


class Registry(Mapping[str, T]):
    """Methods of one kind by name.

    The modules of `package` are imported at the first look, so a new method is one new file there. Files (or folders of
    files) named by the environment variable `SECATEUR_PLUGINS` are imported too: a method of one's own needs no change
    of this package. The variable is set by whoever runs the program; no input file can name code to run.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind, self.package = kind, package
        self._methods: dict[str, T] = {}
        self._searched = self._from_package = False
        _KINDS[package] = self

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that gives a method its name. A user's method takes the place of one of the package, never the
        other way round."""

        def add(method: T) -> T:
            if self._from_package and name in self._methods:
                return method
            self._methods[name] = method
            return method

        return add

    def __getitem__(self, name: str) -> T:
        """The method.

        Raises:
            UserError: unknown name; it lists the known ones.
        """
        self._search()
        if name not in self._methods:
            raise UserError(f"Unknown {self.kind} {shown(name)}; choose one of {', '.join(sorted(self._methods))}.")
        return self._methods[name]

    def __iter__(self) -> Iterator[str]:
        self._search()
        return iter(sorted(self._methods))

    def __len__(self) -> int:
        self._search()
        return len(self._methods)

    def __contains__(self, name: object) -> bool:
        self._search()
        return name in self._methods

    def registered(self) -> set[str]:
        """The names that are registered so far; nothing is imported."""
        return set(self._methods)

    def _search(self) -> None:
        if self._searched:
            return
        self._from_package = True
        try:
            package = importlib.import_module(self.package)
            for module in pkgutil.iter_modules(package.__path__, f"{self.package}."):
                importlib.import_module(module.name)
        finally:
            self._from_package = False
        load_plugins()
        self._searched = True


def names_in(package: str) -> list[str]:
    """The names that the registry of a package has, in order.

    Help asks for them, and help must be fast: the package is read and not imported (its methods import PyTorch). The
    user's plugins are imported.
    """
    load_plugins()
    found = _KINDS[package].registered() if package in _KINDS else set()
    folder = Path(__file__).parent.joinpath(*package.split(".")[1:])
    assert folder.is_dir(), package
    for file in folder.glob("*.py"):
        found.update(_registered_in(ast.parse(file.read_text(encoding="utf-8"))))
    return sorted(found)


def with_names(text: str) -> str:
    """A text of help in which `{secateur.pruning.criteria}` becomes the names of that package: "gamma, l1 or l2"."""

    def listed(place: re.Match[str]) -> str:
        *others, last = names_in(place[1])
        return f"{', '.join(others)} or {last}" if others else last

    return _PLACE.sub(listed, text)


def _registered_in(module: ast.Module) -> Iterator[str]:
    """The names that the decorators at the top of a file register, as in `@criterion("l2")`."""
    for statement in module.body:
        calls = getattr(statement, "decorator_list", ())
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
            calls = (statement.value.func,)  # EXPORTERS.register("onnx")(Exporter(...))
        for call in calls:
            match call:
                case ast.Call(func=ast.Name() | ast.Attribute(attr="register"), args=[ast.Constant(str(name)), *_]):
                    yield name


def load_plugins() -> None:
    """Imports the files of `SECATEUR_PLUGINS`, each once.

    Raises:
        UserError: a file is not there, or fails to import.
    """
    for entry in filter(None, os.environ.get(PLUGINS, "").split(os.pathsep)):
        path = Path(entry).expanduser().resolve()
        files = sorted(path.glob("*.py")) if path.is_dir() else [path]
        for file in files:
            name = f"secateur_plugin_{file.stem}_{abs(hash(str(file)))}"
            if name in sys.modules:
                continue
            specification = importlib.util.spec_from_file_location(name, file)
            if specification is None or specification.loader is None or not file.is_file():
                raise UserError(f"{PLUGINS} names {file}, which is no Python file.")
            module = importlib.util.module_from_spec(specification)
            sys.modules[name] = module
            try:
                specification.loader.exec_module(module)
            except Exception as error:  # whatever the user's file raises
                del sys.modules[name]
                raise UserError(f"The plugin {file} cannot be imported: {type(error).__name__}: {error}.") from error
