"""Combines a recipe with command-line options into the steps of a run, with every setting checked."""

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
    """One step of a run, ready to run.

    Attributes:
        step: the step with its settings.
        name_suffix: "" for the first step of its verb, "-2" for the second, ...; part of its file names.
        title: title of its table row.
        round, rounds: position in a repetition, and its length.
    """

    step: Step
    name_suffix: str = ""
    title: str = ""
    round: int = 1
    rounds: int = 1


def override_options() -> dict[str, Override]:
    """Every option with which the command line can override recipe settings, by name."""
    found: dict[str, Override] = {}
    for kind in STEPS.values():
        for override in kind.overrides:
            found.setdefault(override.option, override)
    return found


def resolve(
    recipe: Recipe, overrides: Mapping[str, Any], common: Mapping[str, Any], *, trained: bool
) -> tuple[PlannedStep, ...]:
    """The steps of the run. Command-line options take precedence over the recipe.

    Args:
        recipe: the recipe.
        overrides: given options by name.
        common: settings that all steps share (image size, batch size, seed, ...); a recipe may override them.
        trained: whether the weights have the classes of the data set, so that a first training can be skipped.

    Raises:
        UserError: a setting is unknown, out of range or missing, or no step accepts an option.
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
        raise UserError(f"The recipe {recipe.name} has nothing to do: the options skip all of its steps.")
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
    """One step, or None if it is skipped. Adds the options that it accepts to `taken`."""
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
    # The last override of a setting takes precedence: options of one kind of training come after those of all
    # trainings.
    final = {override.field: (override, overrides[override.option]) for override in mine}
    for name, (override, value) in final.items():
        if override.zero_skips and value == 0:
            return None
        forced = forced or override.forces
        settings[name] = value
    step = configured(kind, _with_a_number(settings), where) if final or automatic else written
    return step if forced or step.needed(first, trained) else None


def _with_a_number(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with `round_to: auto` replaced by this machine's number, which the run records."""
    if settings.get("round_to") != AUTO:
        return dict(settings)
    from secateur.deploy.speed.rounding import decided

    latency = LatencySettings(runtime=str(settings.get("runtime", "")), threads=int(settings.get("threads", 0)))
    return {
        **settings,
        "round_to": decided(AUTO, latency, milliseconds=bool(settings.get("ms") or settings.get("fps"))),
    }


def _refuse_idle(recipe: Recipe, overrides: Mapping[str, Any], taken: set[str]) -> None:
    """Raises UserError for command-line options that no step of the recipe accepts."""
    for option, value in overrides.items():
        # Zero epochs are allowed: they ask for no training, and the recipe has none.
        if option in taken or value in ("", (), 0):
            continue
        purposes = [
            override.purpose or kind.purpose
            for kind in STEPS.values()
            for override in kind.overrides
            if override.option == option
        ]
        raise UserError(
            f"--{option.replace('_', '-')} needs a step that {' or '.join(dict.fromkeys(purposes))}, but the "
            f"recipe {recipe.name} has none. Remove the option, or choose another recipe (secateur recipes)."
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
    """Appends a control, trained like the run's last training. A final latency measurement is moved behind it.

    Args:
        planned: the steps of the run.
        common: settings that all steps share, for a run without a training.
        before: epochs for which the weights were trained on this data before; None if unknown.
        images: images of the training split, to convert the length of steps not counted in epochs.
        epochs: epochs of the control; 0 uses `before` plus those of all steps.
        cheap: whether it is trained only if it is cheap.

    Raises:
        UserError: the recipe already has a control, or its length is unknown or zero.
    """
    if any(isinstance(step.step, Control) for step in planned):
        raise UserError("The recipe already contains a control. Remove --control.")
    if not epochs and before is None:
        raise UserError(
            "--control trains for as many epochs as the detector, but the weights do not record theirs. Set "
            "--control-epochs to their epochs plus those of the run."
        )
    epochs = epochs or (before or 0) + sum(step.step.passes(images) for step in planned)
    if not epochs:
        raise UserError(
            "--control trains for as many epochs as the detector, but this run trains nothing. Set --control-epochs."
        )
    trainings = [step.step for step in planned if isinstance(step.step, TrainingStep)]
    if trainings:
        train = dataclasses.replace(trainings[-1].train, epochs=epochs)
        control = Control(hyp=trainings[-1].hyp, train=train, cheap=cheap)
    else:
        control = configured(Control, {**common, "epochs": epochs, "cheap": cheap}, "--control")
    end = len(planned) - isinstance(planned[-1].step, Measure)
    return (*planned[:end], PlannedStep(control, title=control.title), *planned[end:])


def settings_of_step(planned: PlannedStep) -> dict[str, Any]:
    """The step as plain data, without the number of loader processes, which does not affect results."""
    data = dataclasses.asdict(planned) | {"verb": planned.step.verb}
    settings = data["step"]
    if "train" in settings:
        settings["train"] = {**settings["train"], "workers": 0}
    return data
