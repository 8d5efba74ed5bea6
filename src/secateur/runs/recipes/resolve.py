"""A recipe and the options of the command line put together: the steps of a run, every setting checked."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from secateur.errors import UserError
from secateur.pruning.options import AUTO, LatencySettings
from secateur.runs.recipes.configure import configured, setting_names
from secateur.runs.recipes.recipe import Recipe, RecipeEntry
from secateur.steps.control import Control
from secateur.steps.measure import Measure
from secateur.steps.step import STEPS, Override, Step
from secateur.steps.train import TrainingStep


@dataclass(frozen=True)
class PlannedStep:
    """One step of a run, ready to be done.

    Attributes:
        step: the step with its settings.
        name_suffix: "" for the first step of its verb, "-2" for the second, ...: part of the names of its files.
        title: of its row in the table.
        round, rounds: where it stands in a repetition.
    """

    step: Step
    name_suffix: str = ""
    title: str = ""
    round: int = 1
    rounds: int = 1


def override_options() -> dict[str, Override]:
    """Every option with which the command line can replace settings of recipes, by name."""
    found: dict[str, Override] = {}
    for kind in STEPS.values():
        for override in kind.overrides:
            found.setdefault(override.option, override)
    return found


def resolve(
    recipe: Recipe, overrides: Mapping[str, Any], common: Mapping[str, Any], *, trained: bool
) -> tuple[PlannedStep, ...]:
    """The steps of the run; options of the command line win over the recipe.

    Args:
        overrides: options that are set, by name.
        common: settings that all steps share (image size, batch size, seed, ...); a recipe may say otherwise.
        trained: the weights know the classes of the data set, so that a first training may be left out.

    Raises:
        UserError: a setting that is unknown, out of its range, or missing, or an option that no step takes.
    """
    taken: set[str] = set()
    planned: list[PlannedStep] = []
    counts: Counter[str] = Counter()
    for entry in recipe.entries:
        step = _step(recipe, entry, overrides, common, taken, first=not planned, trained=trained)
        if step is None:
            continue
        counts[entry.verb] += 1
        suffix = f"-{counts[entry.verb]}" if counts[entry.verb] > 1 else ""
        title = entry.title or step.title
        numbered = f"{title} ({counts[entry.verb]})" if suffix and title else title
        planned.append(PlannedStep(step, suffix, numbered, entry.round, entry.rounds))
    _refuse_idle(recipe, overrides, taken)
    if not planned:
        raise UserError(f"Nothing is left of the recipe {recipe.name}: every step of it was left out.")
    return tuple(planned)


def _step(
    recipe: Recipe,
    entry: RecipeEntry,
    overrides: Mapping[str, Any],
    common: Mapping[str, Any],
    taken: set[str],
    *,
    first: bool,
    trained: bool,
) -> Step | None:
    """One step, or None for a step that is left out; `taken` learns which options it takes."""
    where, kind = f"recipe {recipe.name}, stage {entry.verb}", STEPS[entry.verb]
    shared = {name: value for name, value in common.items() if name in setting_names(kind())}
    settings = shared | dict(entry.settings)
    automatic = settings.get("round_to") == AUTO
    written = configured(kind, settings | ({"round_to": 0} if automatic else {}), where)
    mine = [o for o in kind.overrides if o.option in overrides and written.takes(o)]
    taken |= {override.option for override in mine}
    forced = False
    for override in mine:
        settings = {name: value for name, value in settings.items() if name not in override.replaces}
    # The last one for a setting wins: the options of one kind of training stand behind those of all trainings.
    final = {override.field: (override, overrides[override.option]) for override in mine}
    for name, (override, value) in final.items():
        if override.zero_skips and value == 0:
            return None
        forced = forced or override.forces
        settings[name] = value
    step = configured(kind, _with_a_number(settings), where) if final or automatic else written
    return step if forced or step.needed(first, trained) else None


def _with_a_number(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with the number that `round_to: auto` stands for on this machine: that is what a run remembers."""
    if settings.get("round_to") != AUTO:
        return dict(settings)
    from secateur.deploy.speed.rounding import decided

    latency = LatencySettings(runtime=str(settings.get("runtime", "")), threads=int(settings.get("threads", 0)))
    return {
        **settings,
        "round_to": decided(AUTO, latency, milliseconds=bool(settings.get("ms") or settings.get("fps"))),
    }


def _refuse_idle(recipe: Recipe, overrides: Mapping[str, Any], taken: set[str]) -> None:
    """UserError for options of the command line that no step of the recipe takes."""
    for option, value in overrides.items():
        # No epochs at all is what a recipe without the training does anyway.
        if option in taken or value in ("", (), 0):
            continue
        purposes = [
            override.purpose or kind.purpose
            for kind in STEPS.values()
            for override in kind.overrides
            if override.option == option
        ]
        raise UserError(
            f"--{option.replace('_', '-')} needs a step that {' or '.join(dict.fromkeys(purposes))}, and recipe "
            f"{recipe.name} has none; leave it out, or choose another recipe (secateur recipes)."
        )


def with_control(
    planned: Sequence[PlannedStep],
    common: Mapping[str, Any],
    *,
    before: int | None,
    images: int,
    epochs: int = 0,
    cheap: bool = False,
) -> tuple[PlannedStep, ...]:
    """The steps with a control behind them, trained like their last training; a measurement at the end is done after.

    Args:
        common: settings that all steps share, for a run without a training.
        images: of the training split, for steps that are not counted in epochs.
        before: epochs that the weights were trained for on this data; None where nobody knows.
        epochs: of the control; 0 is `before` and those of all steps.
        cheap: it is trained only where that is cheap.

    Raises:
        UserError: there is a control already, or its length is unknown or none.
    """
    if any(isinstance(step.step, Control) for step in planned):
        raise UserError("The recipe has a control of its own; leave --control out.")
    if not epochs and before is None:
        raise UserError(
            "--control trains as long as the detector was trained, and the weights do not say how long that was: "
            "say it with --control-epochs, their epochs and those of the run together."
        )
    epochs = epochs or (before or 0) + sum(step.step.passes(images) for step in planned)
    if not epochs:
        raise UserError("--control trains as long as the detector, and nothing here trains it: give --control-epochs.")
    trainings = [step.step for step in planned if isinstance(step.step, TrainingStep)]
    if trainings:
        train = dataclasses.replace(trainings[-1].train, epochs=epochs)
        control = Control(hyp=trainings[-1].hyp, train=train, cheap=cheap)
    else:
        control = configured(Control, {**common, "epochs": epochs, "cheap": cheap}, "--control")
    end = len(planned) - isinstance(planned[-1].step, Measure)
    return (*planned[:end], PlannedStep(control, title=control.title), *planned[end:])


def settings_of_step(planned: PlannedStep) -> dict[str, Any]:
    """The step as plain data, without what changes nothing: the number of processes that load images."""
    data = dataclasses.asdict(planned) | {"verb": planned.step.verb}
    settings = data["step"]
    if "train" in settings:
        settings["train"] = {**settings["train"], "workers": 0}
    return data
