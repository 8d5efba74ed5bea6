"""A recipe: a named sequence of steps with their settings, read from YAML."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secateur.errors import UserError, shown
from secateur.files import usable_path
from secateur.steps.step import STEPS
from secateur.yaml_files import read_yaml

FOLDER = Path(__file__).resolve().parents[2] / "recipes"


@dataclass(frozen=True)
class RecipeEntry:
    """One step of a recipe, before command-line options are applied.

    Attributes:
        verb: name of the step.
        settings: settings from the recipe.
        title: title of its table row; "" uses the title of the step.
        round, rounds: position in a repetition, from 1, and its length. Budgets are approached over the rounds.
    """

    verb: str
    settings: Mapping[str, Any]
    title: str = ""
    round: int = 1
    rounds: int = 1


@dataclass(frozen=True)
class Recipe:
    """A named sequence of steps.

    Attributes:
        name: name of the recipe.
        summary: one line.
        source: paper or system on which it is based.
        entries: the steps in order.
        classes: names or ids to which the weights are narrowed first; () keeps all.
    """

    name: str
    summary: str
    source: str
    entries: tuple[RecipeEntry, ...]
    classes: tuple[str | int, ...] = ()


def available() -> list[Recipe]:
    """All built-in recipes, sorted by name."""
    return [load_recipe(file.stem) for file in sorted(FOLDER.glob("*.yaml"))]


def load_recipe(name: str | Path) -> Recipe:
    """Reads a recipe by name, or from a YAML file of the user.

    Raises:
        UserError: the recipe does not exist or is invalid; the message names the file and the key.
    """
    usable_path(name)
    file = FOLDER / f"{name}.yaml"
    if not file.is_file():
        file = Path(name)
        if file.suffix not in {".yaml", ".yml"} or not file.is_file():
            known = ", ".join(sorted(path.stem for path in FOLDER.glob("*.yaml")))
            raise UserError(f"Unknown recipe {shown(name)}; choose one of {known}, or give a recipe YAML file.")
    data = read_yaml(file, "recipe")
    if not isinstance(data, dict) or not isinstance(data.get("stages"), list):
        raise UserError(f"{file} is not a recipe. It needs the keys name, summary, source and a list of stages.")
    return Recipe(
        name=str(data.get("name", file.stem)),
        summary=str(data.get("summary", "")),
        source=str(data.get("source", "")),
        entries=tuple(entry for item in data["stages"] for entry in _entries(file, item)),
        classes=_classes(file, data.get("classes", ())),
    )


def _classes(file: Path, value: Any) -> tuple[str | int, ...]:
    words = value if isinstance(value, list | tuple) else (value,)
    if not all(isinstance(word, str | int) and not isinstance(word, bool) for word in words):
        raise UserError(f"{file}: classes must be a list of names or ids, not {shown(value)}.")
    return tuple(words)


def _entries(file: Path, item: Any) -> list[RecipeEntry]:
    """The steps of an item: one or several, or those of a repetition, round after round."""
    if not isinstance(item, dict) or len(item) != 1:
        raise UserError(
            f"{file}: each stage is one verb with its settings, for example '- prune: {{criterion: gamma}}'."
        )
    verb, settings = next(iter(item.items()))
    if verb != "repeat":
        return _step(file, verb, settings)
    if not isinstance(settings, dict) or set(settings) != {"rounds", "stages"}:
        raise UserError(f"{file}: write a repetition as 'repeat: {{rounds: 3, stages: [...]}}'.")
    rounds = settings["rounds"]
    whole = isinstance(rounds, int) and not isinstance(rounds, bool)
    if not whole or not 1 <= rounds <= 100 or not isinstance(settings["stages"], list):
        raise UserError(f"{file}: repeat needs rounds from 1 to 100 and a list of stages, not {shown(rounds)}.")
    once = [entry for inner in settings["stages"] for entry in _entries(file, inner)]
    if any(entry.rounds > 1 for entry in once):
        raise UserError(f"{file}: a repetition cannot contain another.")
    return [dataclasses.replace(entry, round=i, rounds=rounds) for i in range(1, rounds + 1) for entry in once]


def _step(file: Path, verb: Any, settings: Any) -> list[RecipeEntry]:
    if not isinstance(verb, str) or verb not in STEPS:
        raise UserError(f"{file}: unknown stage {shown(verb)}; choose from {', '.join(STEPS)} and repeat.")
    if not isinstance(settings, dict | None):
        raise UserError(f"{file}, stage {verb}: its settings must be 'name: value' pairs, not {shown(settings)}.")
    if not all(isinstance(name, str) for name in settings or {}):
        raise UserError(f"{file}, stage {verb}: the names of its settings must be words.")
    entries = []
    for name, own in STEPS[verb].expand(settings or {}):
        title = own.pop("title", "")
        if not isinstance(title, str | int | float):
            raise UserError(f"{file}, stage {verb}: its title must be a word, not {shown(title)}.")
        entries.append(RecipeEntry(name, own, str(title)))
    return entries
