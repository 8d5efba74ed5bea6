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
class Step:
    """One stage of a run, ready to be done.

    Attributes:
        verb: what it does.
        mark: "" for the first step of its verb, "-2" for the second, ...: part of the names of its files.
        title: its row in the table.
        training, methods: of a training.
        prune: of a cut.
        round, rounds: where it stands in a repetition.
    """

    verb: str
    mark: str
    title: str
    training: TrainSettings | None = None
    methods: Methods = field(default_factory=Methods)
    prune: PruneSettings = field(default_factory=PruneSettings)
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


def check_overrides(options: RunOptions, recipe: Recipe) -> None:
    """UserError for options of the command line that no stage of the recipe can take."""
    verbs = {stage.verb for stage in recipe.stages}
    weights = any(_zeroes(stage) for stage in recipe.stages)
    for name in ("target_sparsity", "pruning_pattern", "pruning_frequency", "cooldown_epochs"):
        if getattr(options, name) is not None and not weights:
            raise UserError(
                f"--{name.replace('_', '-')} needs a recipe that prunes weights, such as intel; {recipe.name} does not."
            )
    if (options.distill or options.teacher) and "finetune" not in verbs:
        raise UserError(f"--distill needs a recipe that fine-tunes; {recipe.name} does not.")
    budget = next((kind for kind in KINDS if getattr(options, kind) not in (None, "")), None)
    if budget and not any(stage.verb == "prune" and _cuts_channels(stage.settings) for stage in recipe.stages):
        raise UserError(f"--{budget} needs a recipe that cuts channels, such as slimming; {recipe.name} does not.")


def _step(options: RunOptions, recipe: Recipe, stage: StageSpec, *, first: bool, trained: bool) -> Step | None:
    """One step, or None for a stage that is left out."""
    where = f"recipe {recipe.name}, stage {stage.verb}"
    step = Step(stage.verb, "", "", round=stage.round, rounds=stage.rounds)
    if stage.verb == "export":
        return step
    if stage.verb == "prune":
        prune = configured(PruneSettings(), prune_settings(options, stage.settings), where)
        check_settings(prune)
        return dataclasses.replace(step, prune=prune)
    epochs = {"train": options.dense_epochs, "sparsify": options.sparse_epochs, "finetune": options.finetune_epochs}
    own = epochs[stage.verb]
    chosen = own if own is not None else options.epochs
    if chosen == 0 or (stage.when == "classes-differ" and first and trained and options.dense_epochs is None):
        return None
    methods, rest = methods_of(_method_settings(options, stage))
    if stage.verb == "sparsify":
        fields = {entry.name for entry in dataclasses.fields(SparsifySettings)}
        sparse = {key: rest.pop(key) for key in list(rest) if key in fields}
        sparse |= {"rate": options.rate} if options.rate is not None else {}
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


def _zeroes(stage: StageSpec) -> bool:
    """Whether a stage zeroes single weights."""
    return float(stage.settings.get("target_sparsity", 0)) > 0 or float(stage.settings.get("unstructured", 0)) > 0


def _method_settings(options: RunOptions, stage: StageSpec) -> dict[str, Any]:
    """The settings of a training stage with those of the command line in their places."""
    settings = dict(stage.settings)
    if _zeroes(stage):
        names = ("target_sparsity", "pruning_pattern", "pruning_frequency", "cooldown_epochs")
        settings |= {name: value for name in names if (value := getattr(options, name)) is not None}
    if stage.verb == "finetune":
        settings |= {name: value for name in ("distill", "teacher") if (value := getattr(options, name))}
    return settings


def _cuts_channels(settings: Mapping[str, Any]) -> bool:
    """Whether a stage has a budget of channels (one that only removes layers or zeroes weights has none)."""
    alone = settings.get("layers") or settings.get("unstructured")
    return not alone or any(kind in settings for kind in KINDS)


def prune_settings(options: RunOptions, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe's settings of a cut under those of the command line; a user's budget replaces the recipe's."""
    settings = {name: tuple(value) if isinstance(value, list) else value for name, value in recipe.items()}
    if settings.get("unstructured"):
        given = {"unstructured": options.target_sparsity, "pattern": options.pruning_pattern}
        return settings | {name: value for name, value in given.items() if value is not None}
    if not _cuts_channels(settings):
        return settings
    given = {kind: value for kind in KINDS if (value := getattr(options, kind)) not in (None, "")}
    if given:
        settings = {name: value for name, value in settings.items() if name not in KINDS}
    other = {"criterion": options.criterion, "round_to": options.round_to, "exclude": options.exclude}
    return settings | given | {name: value for name, value in other.items() if value not in (None, "", ())}


def budget_of_round(settings: PruneSettings, dense: Mapping[str, float], step: Step) -> PruneSettings:
    """The settings with the budgets of this round: every round has the same factor, and the last one the target.

    Args:
        dense: what the detector cost before its first round: "params" and "flops".
    """
    if step.rounds == 1:
        return settings
    share = step.round / step.rounds
    changes: dict[str, Any] = {}
    if settings.percent is not None:
        changes["percent"] = 1 - (1 - settings.percent) ** (1 / step.rounds)
    for kind in ("params", "flops"):
        text = getattr(settings, kind)
        if text:
            amount = Budget.parse(kind, text).amount
            target = amount if amount < 1 else amount / dense[kind]
            changes[kind] = str(max(round(dense[kind] * target**share), 1)) if target < 1 else text
    return dataclasses.replace(settings, **changes)
