"""A recipe: a named sequence of stages with their settings, read from YAML and checked before anything runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from secateur.errors import UserError

FOLDER = Path(__file__).resolve().parent.parent / "recipes"
WHEN = ("always", "classes-differ")
VERBS = ("train", "sparsify", "prune", "finetune", "export")

T = TypeVar("T")


@dataclass(frozen=True)
class StageSpec:
    """One stage: a verb and its settings.

    Attributes:
        verb: train, sparsify, prune, finetune or export.
        settings: fields of the settings that the verb takes.
        when: "classes-differ": only if the weights know other classes than the data set.
        title: name of its row in the table; "" takes the usual one.
        round, rounds: where it stands in a repetition, from 1. Budgets are approached over the rounds.
    """

    verb: str
    settings: Mapping[str, Any]
    when: str = "always"
    title: str = ""
    round: int = 1
    rounds: int = 1


@dataclass(frozen=True)
class Recipe:
    """A named sequence of stages; `summary` is one line, `source` the paper or system that it follows."""

    name: str
    summary: str
    source: str
    stages: tuple[StageSpec, ...]


def available() -> list[Recipe]:
    """All recipes that come with the package, by name."""
    return [load_recipe(file.stem) for file in sorted(FOLDER.glob("*.yaml"))]


def load_recipe(name: str | Path) -> Recipe:
    """Reads a recipe by name, or from a user's own YAML file.

    Raises:
        UserError: no such recipe, or a file that is not one; names the file and the key.
    """
    file = FOLDER / f"{name}.yaml"
    if not file.is_file():
        file = Path(name)
        if file.suffix not in {".yaml", ".yml"} or not file.is_file():
            known = ", ".join(sorted(path.stem for path in FOLDER.glob("*.yaml")))
            raise UserError(f"Unknown recipe '{name}'; choose one of {known}, or give a recipe YAML file.")
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"Cannot read the recipe {file}: {error}.") from error
    if not isinstance(data, dict) or not isinstance(data.get("stages"), list):
        raise UserError(f"{file} is not a recipe: it needs the keys name, summary, source and a list of stages.")
    return Recipe(
        name=str(data.get("name", file.stem)),
        summary=str(data.get("summary", "")),
        source=str(data.get("source", "")),
        stages=tuple(stage for entry in data["stages"] for stage in _stages(file, entry)),
    )


def _stages(file: Path, entry: Any) -> list[StageSpec]:
    """The stages that an entry stands for: one, or those of a repetition, round after round."""
    if not isinstance(entry, dict) or len(entry) != 1:
        raise UserError(f"{file}: each stage is one verb with its settings, such as '- prune: {{criterion: gamma}}'.")
    verb, settings = next(iter(entry.items()))
    if verb != "repeat":
        return [_stage(file, verb, settings)]
    if not isinstance(settings, dict) or set(settings) != {"rounds", "stages"}:
        raise UserError(f"{file}: a repetition is written 'repeat: {{rounds: 3, stages: [...]}}'.")
    rounds = settings["rounds"]
    if not isinstance(rounds, int) or not 1 <= rounds <= 100 or not isinstance(settings["stages"], list):
        raise UserError(f"{file}: repeat needs rounds from 1 to 100 and a list of stages, not {rounds!r}.")
    once = [stage for inner in settings["stages"] for stage in _stages(file, inner)]
    if any(stage.rounds > 1 for stage in once):
        raise UserError(f"{file}: a repetition cannot stand inside another.")
    return [dataclasses.replace(stage, round=i, rounds=rounds) for i in range(1, rounds + 1) for stage in once]


def _stage(file: Path, verb: str, settings: Any) -> StageSpec:
    if verb not in VERBS:
        raise UserError(f"{file}: unknown stage '{verb}'; choose from {', '.join(VERBS)} and repeat.")
    if not isinstance(settings, dict | None):
        raise UserError(f"{file}, stage {verb}: its settings must be 'name: value' pairs, not {settings!r}.")
    settings = dict(settings or {})
    when, title = settings.pop("when", "always"), str(settings.pop("title", ""))
    if when not in WHEN:
        raise UserError(f"{file}, stage {verb}: unknown condition 'when: {when}'; choose from {', '.join(WHEN)}.")
    return StageSpec(verb, settings, when, title)


def configured(base: T, settings: Mapping[str, Any], where: str) -> T:
    """`base` (a dataclass instance) with some fields replaced.

    Raises:
        UserError: an unknown field or a value of another type than the field's; it names the place.
    """
    known = {field.name: getattr(base, field.name) for field in dataclasses.fields(base)}  # type: ignore[arg-type]
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise UserError(f"{where}: unknown setting '{unknown[0]}'; known are {', '.join(sorted(known))}.")
    typed = {name: _typed(known[name], value, f"{where}, {name}") for name, value in settings.items()}
    return dataclasses.replace(base, **typed)  # type: ignore[type-var]


def _typed(default: Any, value: Any, where: str) -> Any:
    """The value as the field holds it: YAML knows no tuples, and a budget may be written as a number."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(default, tuple):
        return tuple(value) if isinstance(value, list | tuple) else (value,)
    if isinstance(default, bool):
        fits, wanted = isinstance(value, bool), "true or false"
    elif isinstance(default, int):
        fits, wanted = number and not isinstance(value, float), "a whole number"
    elif isinstance(default, float) or default is None:
        fits, wanted = number or (default is None and value is None), "a number (YAML reads 1e-4 as text: write 1.0e-4)"
    elif isinstance(default, str):
        return str(value) if number or isinstance(value, str) else _wrong(where, value, "a word")
    else:
        return value
    return value if fits else _wrong(where, value, wanted)


def _wrong(where: str, value: Any, wanted: str) -> Any:
    raise UserError(f"{where} is {value!r}; it must be {wanted}.")
