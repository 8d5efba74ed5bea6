"""Help of commands: --help shows the common options, --help-all shows every option."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import textwrap
import typing
from typing import Annotated, Any

from tyro.conf import Suppress, arg

from secateur.ranges import ADVANCED
from secateur.registry import with_names


def shown(kind: type[Any], *, everything: bool) -> type[Any]:
    """A copy of a command's dataclass for its help: names of methods are inserted and advanced options are hidden.

    Used only to print help. Arguments are parsed into `kind` itself, which accepts every option.
    """
    texts = field_texts(kind)
    annotations: dict[str, Any] = {}
    namespace: dict[str, Any] = {"__annotations__": annotations, "__doc__": kind.__doc__, "__module__": __name__}
    for entry, hint in hinted(kind):
        inner = group_of(entry)
        hidden = has(hint, Suppress) or (has(hint, ADVANCED) and not everything)
        if inner is not None and not hidden:
            hint = shown(type(inner), everything=everything)
            hidden = not options_shown(hint)
            inner = _shown_as(hint, inner)
        elif text := help_of(hint, texts.get(entry.name, "")):
            hint = Annotated[hint, arg(help=text)]
        if inner is not None:
            namespace[entry.name] = dataclasses.field(default_factory=functools.partial(dataclasses.replace, inner))
        annotations[entry.name] = Annotated[hint, Suppress] if hidden else hint
    return dataclasses.dataclass(frozen=True)(type(kind.__name__, (kind,), namespace))


def options_shown(kind: type[Any]) -> int:
    """Number of options of a dataclass that its help shows, including those of its groups."""
    groups = [group_of(entry) for entry, hint in hinted(kind) if not has(hint, Suppress)]
    return sum(1 if group is None else options_shown(type(group)) for group in groups)


def has(hint: Any, marker: Any) -> bool:
    """Whether the type hint of a field has the given marker."""
    return any(extra is marker for extra in getattr(hint, "__metadata__", ()))


def help_of(hint: Any, otherwise: str) -> str:
    """Help text of a field: from its type hint if given there, otherwise from the docstring below the field. Names of
    methods are inserted.
    """
    own = [extra.help for extra in getattr(hint, "__metadata__", ()) if getattr(extra, "help", None)]
    return with_names(own[-1] if own else otherwise)


def field_texts(kind: type[Any]) -> dict[str, str]:
    """The docstring below each field of a class and of its base classes."""
    found: dict[str, str] = {}
    for ancestor in reversed(kind.__mro__[:-1]):
        try:
            body = ast.parse(textwrap.dedent(inspect.getsource(ancestor))).body[0]
        except (OSError, TypeError):  # made by make_dataclass: help is in the annotations
            continue
        assert isinstance(body, ast.ClassDef)
        for field, text in zip(body.body, body.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
                found[field.target.id] = " ".join(str(ast.literal_eval(text.value)).split())
    return found


def _shown_as(kind: type[Any], options: Any) -> Any:
    """Converts options to the dataclass that `shown` created from theirs, including nested groups."""
    values = {entry.name: getattr(options, entry.name) for entry in dataclasses.fields(options)}
    groups = {entry.name: group for entry in dataclasses.fields(kind) if (group := group_of(entry)) is not None}
    inside = {name: _shown_as(type(group), values[name]) for name, group in groups.items()}
    return kind(**{**values, **inside})


def hinted(kind: type[Any]) -> list[tuple[dataclasses.Field[Any], Any]]:
    """The fields of a dataclass with their types and the markers of these."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return [(entry, hints[entry.name]) for entry in dataclasses.fields(kind)]


def group_of(entry: dataclasses.Field[Any]) -> Any:
    """The options of a group with their defaults; None if the field is a single option."""
    factory = entry.default_factory
    default = entry.default if factory is dataclasses.MISSING else factory()
    return default if dataclasses.is_dataclass(default) and not isinstance(default, type) else None
