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
    """One stage: a verb and its settings; `when="classes-differ"`: only if the weights know other classes."""

    verb: str
    settings: Mapping[str, Any]
    when: str = "always"


@dataclass(frozen=True)
class Recipe:
    """A named sequence of stages; `summary` is one line, `source` the paper or system that it follows."""

    name: str
    summary: str
    source: str
    stages: tuple[StageSpec, ...]

    def settings_of(self, verb: str) -> dict[str, Any]:
        """The settings of the first stage with this verb ({} when the recipe has none)."""
        return next((dict(stage.settings) for stage in self.stages if stage.verb == verb), {})

    def stage(self, verb: str) -> StageSpec | None:
        """The first stage with this verb."""
        return next((stage for stage in self.stages if stage.verb == verb), None)


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
        stages=tuple(_stage(file, entry) for entry in data["stages"]),
    )


def _stage(file: Path, entry: Any) -> StageSpec:
    if not isinstance(entry, dict) or len(entry) != 1:
        raise UserError(f"{file}: each stage is one verb with its settings, such as '- prune: {{criterion: gamma}}'.")
    verb, settings = next(iter(entry.items()))
    if verb not in VERBS:
        raise UserError(f"{file}: unknown stage '{verb}'; choose from {', '.join(VERBS)}.")
    settings = dict(settings or {})
    when = settings.pop("when", "always")
    if when not in WHEN:
        raise UserError(f"{file}, stage {verb}: unknown condition 'when: {when}'; choose from {', '.join(WHEN)}.")
    return StageSpec(verb, settings, when)


def configured(base: T, settings: Mapping[str, Any], where: str) -> T:
    """`base` (a dataclass instance) with some fields replaced; an unknown field is an error that names the place."""
    known = {field.name for field in dataclasses.fields(base)}  # type: ignore[arg-type]
    unknown = sorted(set(settings) - known)
    if unknown:
        raise UserError(f"{where}: unknown setting '{unknown[0]}'; known are {', '.join(sorted(known))}.")
    return dataclasses.replace(base, **settings)  # type: ignore[type-var]
