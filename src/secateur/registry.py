"""Registries of methods by name. Methods are found in the files of a package and in the user's plug-ins."""

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
_KINDS: dict[str, Registry[Any]] = {}  # all registries by home
_PLACE = re.compile(r"\{(secateur[\w.]+)\}")


class Registry(Mapping[str, T]):
    """Methods of one kind by name.

    The modules of `package` are imported on first access, so a new method is one new file. Files or folders named by
    the environment variable `SECATEUR_PLUGINS` are imported too, so a plug-in needs no change of this package. The user
    sets this variable; an input file cannot name code to run. `home` is the module that creates the registry; it is
    needed if several registries share a package.
    """

    def __init__(self, kind: str, package: str, home: str = "") -> None:
        self.kind, self.package, self.home = kind, package, home or package
        self._methods: dict[str, T] = {}
        self._searched = self._searching = False
        _KINDS[self.home] = self

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that registers a method under a name. A plug-in can replace a built-in method, but a built-in
        method never replaces a plug-in.
        """

        def add(method: T) -> T:
            shared = (other for other in _KINDS.values() if other.package == self.package)
            if name in self._methods and any(other._searching for other in shared):
                return method
            self._methods[name] = method
            return method

        return add

    def __getitem__(self, name: str) -> T:
        """Returns the method.

        Raises:
            UserError: the name is unknown; the message lists the known names.
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
        """The names registered so far. Imports nothing."""
        return set(self._methods)

    def _search(self) -> None:
        if self._searched:
            return
        self._searching = True
        try:
            package = importlib.import_module(self.package)
            for module in pkgutil.iter_modules(package.__path__, f"{self.package}."):
                importlib.import_module(module.name)
        finally:
            self._searching = False
        load_plugins()
        self._searched = True


def names_in(home: str) -> list[str]:
    """The names that the registry of a package or module holds, in order.

    Used by the help, which must be fast: the source of the package is parsed and not imported, because its methods
    import PyTorch. The user's plug-ins are imported.
    """
    load_plugins()
    found = _KINDS[home].registered() if home in _KINDS else set()
    folder, variable = _place(home), ""
    if not folder.is_dir():
        package, variable = _made_in(folder.with_suffix(".py"))
        folder = _place(package)
    for file in (*folder.glob("*.py"), *folder.glob("*/__init__.py")):
        found.update(_registered_in(ast.parse(file.read_text(encoding="utf-8")), variable))
    return sorted(found)


def _place(module: str) -> Path:
    return Path(__file__).parent.joinpath(*module.split(".")[1:])


def _made_in(file: Path) -> tuple[str, str]:
    """The package that a module's registry searches, and the variable that holds the registry."""
    for statement in ast.parse(file.read_text(encoding="utf-8")).body:
        match statement:
            case ast.AnnAssign(
                target=ast.Name(name),
                value=ast.Call(func=ast.Name("Registry"), args=[_, ast.Constant(str(package)), _]),
            ):
                return package, name
    raise AssertionError(f"{file} creates no registry")


def with_names(text: str) -> str:
    """Replaces placeholders such as `{secateur.pruning.criteria}` in a help text by the names in that package: "gamma,
    l1 or l2".
    """

    def listed(place: re.Match[str]) -> str:
        *others, last = names_in(place[1])
        return f"{', '.join(others)} or {last}" if others else last

    return _PLACE.sub(listed, text)


def _registered_in(module: ast.Module, variable: str = "") -> Iterator[str]:
    """The names that top-level decorators of a file register, as in `@criterion("l2")`. With `variable`, only those of
    the registry of that name.
    """
    for statement in module.body:
        calls = getattr(statement, "decorator_list", ())
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
            calls = (statement.value.func,)  # EXPORTERS.register("onnx")(Exporter(...))
        for call in calls:
            match call:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(owner), attr="register"), args=[ast.Constant(str(name))]
                ):
                    if variable in ("", owner):
                        yield name
                case ast.Call(func=ast.Name(), args=[ast.Constant(str(name)), *_]) if not variable:
                    yield name


def load_plugins() -> None:
    """Imports the files of `SECATEUR_PLUGINS`, each once.

    Raises:
        UserError: a file is missing or cannot be imported.
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
                raise UserError(f"{PLUGINS} names {file}, which is not a Python file.")
            module = importlib.util.module_from_spec(specification)
            sys.modules[name] = module
            try:
                specification.loader.exec_module(module)
            except Exception as error:  # a plug-in may raise anything
                del sys.modules[name]
                raise UserError(f"Cannot import the plug-in {file}: {type(error).__name__}: {error}.") from error
