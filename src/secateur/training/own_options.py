"""Training options of a single family, declared in the file `train_options.py` in its folder.

These files are loaded separately: families need PyTorch, and the command line lists options without it.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import make_dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from secateur.registry import load_plugins

FILE = "train_options"


class OwnOptions(Protocol):
    """A frozen dataclass whose fields are options.

    Attributes:
        flags: flags of other programs, and the equivalent options.
    """

    flags: Mapping[str, str]

    @staticmethod
    def under_present_names(options: Mapping[str, Any]) -> dict[str, Any]:
        """Converts options saved by earlier versions to their current names."""


Kind = TypeVar("Kind", bound=type[Any])
_DECLARED: dict[str, type[OwnOptions]] = {}


def own_options_of(family: str) -> Callable[[Kind], Kind]:
    """Decorator that adds the fields of a frozen dataclass to the options of every training; one family reads them."""

    def declare(kind: Kind) -> Kind:
        _DECLARED.setdefault(family, kind)
        return kind

    return declare


@functools.cache
def declared() -> tuple[type[OwnOptions], ...]:
    """The options declared by families and plug-ins."""
    families = importlib.util.find_spec("secateur.families")
    assert families is not None and families.submodule_search_locations is not None
    for folder in families.submodule_search_locations:
        for file in sorted(Path(folder).glob(f"*/{FILE}.py")):
            _load(f"{families.name}.{file.parent.name}.{FILE}", file)
    load_plugins()
    return tuple(_DECLARED.values())


@functools.cache
def all_own_options() -> type[Any]:
    """A frozen dataclass with the options of all families, created on first use."""
    made = make_dataclass("OwnTrainOptions", [], bases=declared(), frozen=True)
    made.__doc__ = "Options for trainings of a single family."
    return made


def no_own_options() -> Any:
    """All options of families at their defaults."""
    return all_own_options()()


def _load(name: str, file: Path) -> None:
    if name in sys.modules:
        return
    specification = importlib.util.spec_from_file_location(name, file)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    specification.loader.exec_module(module)
