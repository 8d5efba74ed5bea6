"""A recipe and the options of the command line put together: the steps of a run, every setting checked."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from secateur.errors import UserError
from secateur.pruning.plan import KINDS, Budget
from secateur.pruning.settings import PruneSettings
from secateur.sparsity.settings import SparsifySettings
from secateur.stages.methods import Methods, methods_of
from secateur.stages.options import RunOptions
from secateur.stages.pruning import check_settings
from secateur.stages.recipe import Recipe, StageSpec, configured
from secateur.training.hyp import load_hyp
from secateur.training.settings import TrainSettings

TITLES = {"train": "dense", "sparsify": "sparse", "prune": "cut", "finetune": "fine-tuned", "export": ""}


@dataclass(frozen=True)
class ExportSettings:
    """Settings of the stage export: see `secateur export --help`."""

    format: str = "onnx"
    dynamic: bool = False
    simplify: bool = True
    opset: int = 17


@dataclass(frozen=True)
class Step:
    """One stage of a run, ready to be done.

    Attributes:
        verb: what it does.
        mark: "" for the first step of its verb, "-2" for the second, ...: part of the names of its files.
        title: its row in the table.
        training, methods: of a training.
        prune: of a cut.
        export: of the file for other runtimes.
        round, rounds: where it stands in a repetition.
    """

    verb: str
    mark: str
    title: str
    training: TrainSettings | None = None
    methods: Methods = field(default_factory=Methods)
    prune: PruneSettings = field(default_factory=PruneSettings)
    export: ExportSettings = field(default_factory=ExportSettings)
    round: int = 1
    rounds: int = 1


def settle(options: RunOptions, recipe: Recipe, *, trained: bool) -> tuple[Step, ...]:
    """The steps of the run; options of the command line win over the recipe.

    Args:
        trained: the weights know the classes of the data set, so that a first training may be left out.

    Raises:
        UserError: a setting that is unknown, out of its range, or missing.
    """
    check_overrides(options, recipe)
    steps: list[Step] = []
    counts: Counter[str] = Counter()
    for stage in recipe.stages:
        step = _step(options, recipe, stage, first=not steps, trained=trained)
        if step is None:
            continue
        counts[step.verb] += 1
        number = f"-{counts[step.verb]}" if counts[step.verb] > 1 else ""
        title = stage.title or TITLES[step.verb]
        steps.append(
            dataclasses.replace(step, mark=number, title=f"{title} ({counts[step.verb]})" if number else title)
        )
    return tuple(steps)


# Which stages can take an option of the command line that replaces a setting of the recipe.
WEIGHTS, CHANNELS, ONE_SHOT = "zeroes weights while training", "cuts channels", "zeroes weights at once"
DENSE, SPARSE, TUNED = "trains", "trains sparsely", "fine-tunes"
TAKEN_BY: dict[str, tuple[str, ...]] = {
    "target_sparsity": (WEIGHTS, ONE_SHOT),
    "pruning_pattern": (WEIGHTS, ONE_SHOT),
    "pruning_frequency": (WEIGHTS,),
    "cooldown_epochs": (WEIGHTS,),
    "exclude": (WEIGHTS, ONE_SHOT, CHANNELS, SPARSE),
    "criterion": (CHANNELS,),
    "round_to": (CHANNELS,),
    "percent": (CHANNELS,),
    "params": (CHANNELS,),
    "flops": (CHANNELS,),
    "rate": (SPARSE,),
    "dense_epochs": (DENSE,),
    "sparse_epochs": (SPARSE,),
    "finetune_epochs": (TUNED,),
    "distill": (TUNED,),
    "teacher": (TUNED,),
}


def purposes(stage: StageSpec) -> set[str]:
    """What a stage is for, as far as options of the command line care."""
    if stage.verb == "prune":
        return {ONE_SHOT} if stage.settings.get("unstructured") else {CHANNELS} & _channels(stage.settings)
    found = {WEIGHTS} if float(stage.settings.get("target_sparsity", 0)) > 0 else set()
    return found | {"train": {DENSE}, "sparsify": {SPARSE}, "finetune": {TUNED}}.get(stage.verb, set())


def _channels(settings: Mapping[str, Any]) -> set[str]:
    """A stage that only removes layers has no budget of channels."""
    return {CHANNELS} if not settings.get("layers") or any(kind in settings for kind in KINDS) else set()


def check_overrides(options: RunOptions, recipe: Recipe) -> None:
    """UserError for options of the command line that no stage of the recipe can take."""
    there = {purpose for stage in recipe.stages for purpose in purposes(stage)}
    for name, takers in TAKEN_BY.items():
        # No epochs at all is what a recipe without the training does anyway.
        if getattr(options, name) not in (None, "", (), 0) and not there & set(takers):
            raise UserError(
                f"--{name.replace('_', '-')} needs a stage that {' or '.join(takers)}, and recipe {recipe.name} has "
                "none; leave it out, or choose another recipe (secateur recipes)."
            )


def _step(options: RunOptions, recipe: Recipe, stage: StageSpec, *, first: bool, trained: bool) -> Step | None:
    """One step, or None for a stage that is left out."""
    where = f"recipe {recipe.name}, stage {stage.verb}"
    step = Step(stage.verb, "", "", round=stage.round, rounds=stage.rounds)
    if stage.verb == "export":
        if stage is not recipe.stages[-1]:
            raise UserError(f"{where}: export must be the last stage, for it writes the final detector.")
        export = configured(ExportSettings(), stage.settings, where)
        if export.format != "onnx":
            raise UserError(f"{where}: unknown format '{export.format}'; choose onnx.")
        return dataclasses.replace(step, export=export)
    if stage.verb == "prune":
        prune = configured(PruneSettings(), prune_settings(options, stage), where)
        check_settings(prune)
        return dataclasses.replace(step, prune=prune)
    epochs = {"train": options.dense_epochs, "sparsify": options.sparse_epochs, "finetune": options.finetune_epochs}
    own = epochs[stage.verb]
    chosen = own if own is not None else options.epochs
    if chosen == 0 or (stage.when == "classes-differ" and first and trained and options.dense_epochs is None):
        return None
    methods, rest = methods_of(_method_settings(options, stage), where)
    if stage.verb == "sparsify":
        fields = {entry.name for entry in dataclasses.fields(SparsifySettings)}
        sparse = {key: rest.pop(key) for key in list(rest) if key in fields}
        sparse |= _given(options, "rate", "exclude")
        methods = dataclasses.replace(methods, sparsify=configured(SparsifySettings(), sparse, where))
    training = _training(options, rest, chosen, where)
    methods.check(training)
    return dataclasses.replace(step, training=training, methods=methods)


def _training(options: RunOptions, settings: dict[str, Any], epochs: int | None, where: str) -> TrainSettings:
    hyp = load_hyp(options.hyp or settings.pop("hyp", "scratch-low"))
    settings.pop("hyp", None)
    base = TrainSettings(
        image_size=options.image_size,
        batch_size=options.batch_size,
        seed=options.seed,
        workers=options.workers,
        hyp=hyp,
    )
    settings |= {"epochs": epochs} if epochs is not None else {}
    settings |= {"optimizer": options.optimizer} if options.optimizer else {}
    settings |= {"amp": options.amp} if options.amp != "auto" else {}
    return configured(base, settings, where)


def _given(options: RunOptions, *names: str) -> dict[str, Any]:
    """Options of the command line that are set."""
    return {name: value for name in names if (value := getattr(options, name)) not in (None, "", ())}


def _method_settings(options: RunOptions, stage: StageSpec) -> dict[str, Any]:
    """The settings of a training stage with those of the command line in their places."""
    settings, purpose = dict(stage.settings), purposes(stage)
    if WEIGHTS in purpose:
        settings |= _given(options, "target_sparsity", "pruning_pattern", "pruning_frequency", "cooldown_epochs")
        settings |= {"exclude_weights": options.exclude} if options.exclude else {}
    if TUNED in purpose:
        settings |= _given(options, "distill", "teacher")
    return settings


def prune_settings(options: RunOptions, recipe: StageSpec) -> dict[str, Any]:
    """The recipe's settings of a cut under those of the command line; a user's budget replaces the recipe's."""
    settings = {name: tuple(value) if isinstance(value, list) else value for name, value in recipe.settings.items()}
    purpose = purposes(recipe)
    if ONE_SHOT in purpose:
        names = {"target_sparsity": "unstructured", "pruning_pattern": "pattern", "exclude": "exclude"}
        return settings | {names[name]: value for name, value in _given(options, *names).items()}
    if CHANNELS not in purpose:
        return settings
    budget = _given(options, *KINDS)
    if budget:
        settings = {name: value for name, value in settings.items() if name not in KINDS}
    return settings | budget | _given(options, "criterion", "round_to", "exclude")


def budget_of_round(settings: PruneSettings, dense: Mapping[str, float], step: Step) -> PruneSettings:
    """The settings with the budgets of this round: every round has the same factor, and the last one the target.

    Args:
        dense: what the dense detector of the run costs: "params" and "flops".
    """
    share = step.round / step.rounds
    changes: dict[str, Any] = {}
    if settings.percent is not None:
        changes["percent"] = 1 - (1 - settings.percent) ** (1 / step.rounds)
    for kind in ("params", "flops"):
        text = getattr(settings, kind)
        if text:
            amount = Budget.parse(kind, text).amount
            target = amount if amount < 1 else amount / dense[kind]
            # In numbers: what is cut now may be smaller than the dense detector that a share speaks of.
            changes[kind] = str(max(round(dense[kind] * target**share), 1)) if target < 1 else text
    return dataclasses.replace(settings, **changes)
