"""Makes options.md from the dataclasses that the command line is made of: python docs/make_options.py [--check]."""

from __future__ import annotations

import dataclasses
import inspect
import os
import re
import sys
import typing
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from secateur.commands.help import field_texts, help_of

PAGE = Path(__file__).resolve().with_name("options.md")
HEAD = """\
# Options

Every option of every command, with its default. `secateur COMMAND --help-all` shows the same, `--help` only what most
users need. Options that several commands share are under [Shared options](#shared-options). In a recipe the same names
are settings, with `_` for `-` ([Recipes](formats.md#recipes)). This page is generated from the code by
`python docs/make_options.py`.
"""


@dataclass(frozen=True)
class Option:
    """A row: the flag, the default in words, the effect."""

    words: str
    default: str
    text: str


@dataclass(frozen=True)
class Group:
    """Options under one heading of the page."""

    title: str
    text: str
    options: tuple[Option, ...]


def main() -> None:
    """Writes the page, or with --check fails if the page is out of date."""
    # The page describes only the package, without plug-ins.
    os.environ.pop("SECATEUR_PLUGINS", None)
    text = page()
    if sys.argv[1:] != ["--check"]:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text:
        raise SystemExit("docs/options.md is out of date: run python docs/make_options.py")


def page() -> str:
    """The page as text."""
    from secateur.commands import COMMANDS
    from secateur.steps.step import STEPS

    commands = sorted(COMMANDS.values(), key=lambda command: command.order)
    found = {command.name: list(_groups(command.options())) for command in commands}
    counts = Counter(group for groups in found.values() for group in dict.fromkeys(groups[1:]))
    shared = [group for group, count in counts.items() if count > 1]
    parts = [HEAD]
    for command in commands:
        parts.append(f"## secateur {command.name}\n\n{_sentence(command.options())}\n")
        own, *groups = found[command.name]
        parts += [_table(own.options)] if own.options else []
        parts += [_section(group) for group in groups if group not in shared]
        links = [f"[{group.title}](#{_anchor(group.title)})" for group in groups if group in shared]
        parts += [f"Also: {'; '.join(links)}.\n"] if links else []
        parts += [_subcommands(command.options(), f"secateur {command.name}")]
    parts.append("## Shared options\n")
    parts += [_section(group) for group in shared]
    parts.append(_steps(STEPS, {group.title for groups in found.values() for group in groups[1:]}))
    parts.append(_other_names())
    return "\n".join(part for part in parts if part).rstrip() + "\n"


def _groups(kind: type[Any]) -> Iterator[Group]:
    """First the options of a dataclass itself, then those of its groups."""
    yield Group("", "", tuple(_options(kind)))
    for entry in dataclasses.fields(kind):
        inner = _default(entry)
        if dataclasses.is_dataclass(inner) and not _marked(kind, entry.name, tyro.conf.Suppress):
            title, text = _heading(type(inner))
            yield Group(title, text, tuple(_options_of_group(type(inner))))


def _options_of_group(kind: type[Any]) -> Iterator[Option]:
    """The options of a group, and of the groups in it."""
    yield from _options(kind)
    for entry in dataclasses.fields(kind):
        inner = _default(entry)
        if dataclasses.is_dataclass(inner) and not _marked(kind, entry.name, tyro.conf.Suppress):
            yield from _options_of_group(type(inner))


def _options(kind: type[Any], *, hidden: bool = False) -> Iterator[Option]:
    """The options of a dataclass itself; with `hidden`, only those that exist only in recipes."""
    texts = field_texts(kind)
    for entry in dataclasses.fields(kind):
        hint = typing.get_type_hints(kind, include_extras=True)[entry.name]
        suppressed = _marked(kind, entry.name, tyro.conf.Suppress)
        if dataclasses.is_dataclass(_default(entry)) or _subcommand_kinds(hint) or suppressed is not hidden:
            continue
        settings = [extra for extra in typing.get_args(hint)[1:] if hasattr(extra, "help_behavior_hint")]
        text = help_of(hint, texts.get(entry.name, ""))
        given = next((extra.help_behavior_hint for extra in settings if extra.help_behavior_hint), "")
        default = given.removeprefix("(default: ").removesuffix(")") if given else _shown(_default(entry))
        aliases = [alias for extra in settings for alias in extra.aliases or ()]
        positional = _marked(kind, entry.name, tyro.conf.Positional)
        yield Option(_words(entry.name, hint, aliases, settings, positional), default, " ".join(text.split()))


def _words(name: str, hint: Any, aliases: list[str], settings: list[Any], positional: bool) -> str:
    """What is typed: `--img`, `--image-size` INT."""
    plain = typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint
    flag = f"--{name.replace('_', '-')}"
    if positional:
        return f"`{name.upper()}{' ...' if typing.get_origin(plain) is tuple else ''}`"
    if plain is bool:
        return f"`{flag}`, `--no-{flag[2:]}`"
    given = next((extra.metavar for extra in settings if extra.metavar), None)
    metavar = given.replace("STR", "WORD") if given else _value(plain)
    return f"{', '.join(f'`{word}`' for word in [*aliases, flag])} {metavar}"


def _value(plain: Any) -> str:
    """The value of an option: INT, WORD, one of several words, several of them."""
    kinds = {int: "INT", float: "FLOAT", str: "WORD"}
    if typing.get_origin(plain) is typing.Literal:
        return "/".join(str(choice) for choice in typing.get_args(plain))
    if typing.get_origin(plain) is tuple:
        return f"{_value(typing.get_args(plain)[0])} ..."
    return kinds.get(plain, "WORD")


def _default(entry: dataclasses.Field[Any]) -> Any:
    return entry.default_factory() if entry.default_factory is not dataclasses.MISSING else entry.default


def _shown(value: Any) -> str:
    if value is dataclasses.MISSING:
        return "required"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return " ".join(str(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _marked(kind: type[Any], name: str, marker: Any) -> bool:
    hint = typing.get_type_hints(kind, include_extras=True)[name]
    return any(extra is marker for extra in typing.get_args(hint)[1:])


def _sentence(kind: type[Any]) -> str:
    """The first paragraph of a docstring."""
    return " ".join(inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0].split())


def _heading(kind: type[Any]) -> tuple[str, str]:
    """The first words of a docstring as a heading, and its first paragraph where it says more."""
    text = _sentence(kind)
    title = re.split(r"[.:;(]", text)[0].strip()
    rest = text.removeprefix(f"{title}. ")
    return title, "" if text.rstrip(".:") == title else f"{rest}\n\n"


def _anchor(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def _section(group: Group) -> str:
    return f"### {group.title}\n\n{group.text}{_table(group.options)}"


def _table(options: tuple[Option, ...], first: str = "option") -> str:
    rows = [f"| {o.words} | {_cell(o.default)} | {_cell(o.text)} |" for o in options]
    return "\n".join([f"| {first} | default | what it does |", "|---|---|---|", *rows, ""])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _subcommand_kinds(hint: Any) -> dict[str, type[Any]]:
    """The dataclasses of a field of subcommands, by their names."""
    found: dict[str, type[Any]] = {}
    for argument in typing.get_args(hint):
        extras = typing.get_args(argument)[1:]
        name = next((extra.name for extra in extras if type(extra).__name__ == "_SubcommandConfig"), None)
        if name:
            found[name] = typing.get_args(argument)[0]
        else:
            found |= _subcommand_kinds(argument)
    return found


def _subcommands(kind: type[Any], line: str) -> str:
    """Tables of the subcommands, and of theirs."""
    parts = []
    hints = typing.get_type_hints(kind, include_extras=True)
    for name, inner in [item for hint in hints.values() for item in _subcommand_kinds(hint).items()]:
        options = tuple(_options(inner))
        if options:
            parts.append(f"### {line} {name}\n\n{_sentence(inner)}\n\n{_table(options)}")
        parts.append(_subcommands(inner, f"{line} {name}"))
    return "\n".join(part for part in parts if part)


def _steps(steps: Mapping[str, type[Any]], known: set[str]) -> str:
    """The verbs of recipes with their settings: links to the groups that commands have too, tables of the rest."""
    parts = [
        "## Steps of recipes\n\nThe settings of a step are those of its table and the options behind the links, with "
        "`_` for `-`. Every step also takes\n`title`, the name of its row. `secateur run` replaces some of them by its "
        "own options.\n"
    ]
    for verb, kind in steps.items():
        groups = [type(_default(entry)) for entry in dataclasses.fields(kind)]
        inner = [group for group in groups if dataclasses.is_dataclass(group)]
        # A group may consist of groups itself, as the settings of a cut do.
        parts_of = [type(_default(e)) for g in inner for e in dataclasses.fields(g)]
        inner = [g for g in [*inner, *parts_of] if dataclasses.is_dataclass(g) and _heading(g)[0] in known]
        own = [*_options(kind), *_options(kind, hidden=True), *(o for g in inner for o in _options(g, hidden=True))]
        parts.append(f"### {verb}\n\n{_sentence(kind)}\n")
        own = [dataclasses.replace(option, words=_as_setting(option.words)) for option in own]
        parts += [_table(tuple(own), "setting")] if own else []
        links = dict.fromkeys(f"[{_heading(g)[0]}](#{_anchor(_heading(g)[0])})" for g in inner)
        parts += [f"Options: {'; '.join(links)}.\n"] if links else []
    return "\n".join(parts)


def _as_setting(words: str) -> str:
    """`--round-to` INT -> `round_to` INT."""
    flag, _, value = words.partition(" ")
    return f"{flag.replace('--', '').replace('-', '_')} {value}"


def _other_names() -> str:
    """The flags of YOLOv5 and of pruning systems, from the tables that the command line reads."""
    from secateur.flags import ANSWERS, GONE, OF_COMMAND, SPELT_OUT, SPELT_OUT_IN, renamed

    rows = [f"| `{there}` | `{here}` |" for there, here in renamed().items()]
    rows += [f"| `{there}` | `{' '.join(here)}` |" for there, here in SPELT_OUT.items()]
    rows += [f"| `{there}` | {_cell(text)} |" for there, text in ANSWERS.items()]
    rows += [f"| `{there}` (removed) | {_cell(text)} |" for there, text in GONE.items()]
    several: dict[tuple[str, str], list[str]] = {}
    for command, words in SPELT_OUT_IN.items():
        for there, here in words.items():
            several.setdefault((there, f"`{' '.join(here)}`"), []).append(command)
    for command, answers in OF_COMMAND.items():
        for there, text in answers.items():
            several.setdefault((there, text), []).append(command)
    rows += [f"| `{there}` ({', '.join(names)}) | {_cell(text)} |" for (there, text), names in several.items()]
    return "\n".join(
        [
            "## Flags of YOLOv5 and of pruning systems\n",
            "`_` and `-` are equivalent in all of them. A flag without a counterpart stops with this message.\n",
            "| there | here |",
            "|---|---|",
            *rows,
        ]
    )


if __name__ == "__main__":
    main()
