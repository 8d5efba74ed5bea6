"""The networks of a curve: opened, named, checked against one data set, with the budgets that each can reach."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from secateur.checkpoints.channels import check_criterion, tables_of
from secateur.checkpoints.heal import check_healing
from secateur.checkpoints.training import check_trainable
from secateur.data.config import unlabelled_images
from secateur.data.images import check_image_channels
from secateur.errors import UserError
from secateur.evaluation.cost import count
from secateur.families.context import Context, known_data
from secateur.families.evaluation import usable_size
from secateur.families.family import family_of
from secateur.families.loading import load_checkpoint
from secateur.machine import pick_device
from secateur.networks.checkpoint import Checkpoint
from secateur.pruning.allocation import allocate, costs_of
from secateur.pruning.budget import Budget
from secateur.pruning.graph import ChannelGraph, trace
from secateur.pruning.importance import needs_gradients
from secateur.pruning.options import ChannelSettings, budget_options
from secateur.pruning.rounds import share_of
from secateur.pruning.settings import CliffSettings, Guards
from secateur.runs.pareto.options import ParetoOptions


@dataclass(frozen=True)
class Target:
    """A budget of one network.

    Attributes:
        text: as given by the user.
        budget: the parsed budget.
        share: share of the dense network's cost that remains.
    """

    text: str
    budget: Budget
    share: float

    @property
    def name(self) -> str:
        """Part of the labels of points: "50" for half, "8ms" for an absolute value."""
        return f"{100 * self.budget.amount:g}" if self.budget.share else re.sub(r"[^\w.]", "", self.text)


@dataclass(frozen=True)
class ParetoNetwork:
    """One dense network of a curve.

    Attributes:
        label: name, unique in the curve.
        file: as given by the user.
        checkpoint: the dense network.
        context: data, device and image size for cutting, training and evaluation.
        targets: budgets that it can reach, smallest first.
        skipped: one message per budget that cannot be used.
        reference: its cost, by the name of the cost.
        gflops: GFLOPs per image.
    """

    label: str
    file: str
    checkpoint: Checkpoint
    context: Context
    targets: tuple[Target, ...]
    skipped: tuple[str, ...]
    reference: Mapping[str, float]
    gflops: float

    def point(self, target: Target, stage: str = "") -> str:
        """The label of a point: "yolov5s-50" or "yolov5s-50-healed"."""
        return "-".join([self.label, target.name, *([stage] if stage else [])])


def opened(options: ParetoOptions, budgets: Mapping[str, Budget], guards: Guards) -> tuple[ParetoNetwork, ...]:
    """Opens and checks all networks. Writes nothing.

    Raises:
        UserError: a file, name or option is invalid, networks differ in classes or image size, or a network cannot
            reach any of the budgets.
    """
    checkpoints = [load_checkpoint(file) for file in options.weights]
    labels = labels_of(options.weights, options.labels)
    size = _common_size(options, checkpoints)
    contexts = [
        _context(options, checkpoint, file, size) for checkpoint, file in zip(checkpoints, options.weights, strict=True)
    ]
    _check_same_classes(options.weights, contexts)
    found = []
    for label, file, checkpoint, context in zip(labels, options.weights, checkpoints, contexts, strict=True):
        _check_work(options, checkpoint, context)
        network = checkpoint.build()
        settings = channel_settings(options, guards, next(iter(budgets)))
        graph = trace(network).with_tables(tables_of(checkpoint, context, settings))
        targets, skipped = _reachable(label, graph, budgets, guards, size)
        reference = costs_of(graph, list(budgets.values()), size)
        ordered = sorted((Target(text, one, share_of(one, reference)) for text, one in targets.items()), key=_share)
        gflops = count(network, size).flops / 1e9
        found.append(ParetoNetwork(label, file, checkpoint, context, tuple(ordered), tuple(skipped), reference, gflops))
    _check_labels(found)
    return tuple(found)


def channel_settings(options: ParetoOptions, guards: Guards, text: str) -> ChannelSettings:
    """Settings of the cut to one budget, without the cliff curve, which the curve of all budgets replaces."""
    return ChannelSettings(
        budget_options()(**{options.cost: text}),
        options.score,
        options.rounds,
        guards,
        options.repair,
        CliffSettings(cliff=False),
        latency=options.latency,
    )


def labels_of(files: Sequence[str], given: Sequence[str]) -> list[str]:
    """A name for each network: the given ones, otherwise file names, extended if they are equal.

    Raises:
        UserError: a file is given twice, or names are missing, given twice, or not allowed in a file name.
    """
    for file in files:
        if files.count(file) > 1:
            raise UserError(f"--weights contains {file} twice. Give each network once.")
    if given:
        if len(given) != len(files):
            raise UserError(f"--labels gives {len(given)} names for {len(files)} networks. Give one name per network.")
        for name in given:
            if not re.fullmatch(r"\w[\w.+-]*", name):
                raise UserError(f"--labels {name} is not allowed in a file name. Use letters, digits, -, + and _.")
            if given.count(name) > 1:
                raise UserError(f"--labels contains {name} twice. Give each network its own name.")
        return list(given)
    names = [re.sub(r"[^\w.+-]", "-", Path(file).stem) for file in files]
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        seen[name] += 1
        found.append(f"{name}_{seen[name]}" if names.count(name) > 1 else name)
    return found


def _share(target: Target) -> float:
    return target.share


def _common_size(options: ParetoOptions, checkpoints: Sequence[Checkpoint]) -> int:
    """The image size of all networks.

    Raises:
        UserError: the checkpoints store different sizes.
    """
    sizes = [usable_size(checkpoint, options.image_size) for checkpoint in checkpoints]
    if len(set(sizes)) > 1:
        words = ", ".join(f"{file} {size} px" for file, size in zip(options.weights, sizes, strict=True))
        raise UserError(
            f"The networks were trained at different image sizes ({words}). Set one size for all with --img."
        )
    return sizes[0]


def _context(options: ParetoOptions, checkpoint: Checkpoint, file: str, size: int) -> Context:
    """The context for cutting, training and evaluating one network."""
    data = known_data(checkpoint, family_of(checkpoint).open_data(options.data), file)
    images = unlabelled_images(options.images, checkpoint.names) if options.images else None
    return Context(
        size,
        pick_device(options.device),
        data,
        options.batch_size,
        options.workers,
        options.seed,
        images,
        dense=checkpoint,
        start=checkpoint,
    )


def _check_same_classes(files: Sequence[str], contexts: Sequence[Context]) -> None:
    """Rejects networks that the data set would evaluate on different classes.

    Raises:
        UserError: the message names two of them.
    """
    first = contexts[0].require_data("A curve")
    for file, context in zip(files[1:], contexts[1:], strict=True):
        data = context.require_data("A curve")
        if sorted(data.names.values()) != sorted(first.names.values()):
            raise UserError(
                f"Cannot compare {files[0]} and {file}: they are evaluated on different classes ({first.nc} "
                f"and {data.nc} of them). Give networks with the same classes."
            )


def _check_work(options: ParetoOptions, checkpoint: Checkpoint, context: Context) -> None:
    """Checks everything that could otherwise fail after hours.

    Raises:
        UserError: there are no labels or no images, or the family does not support a requested step.
    """
    family, data = family_of(checkpoint), context.require_data("A curve")
    check_image_channels(checkpoint.architecture.channels)
    family.require("evaluate", "evaluated")
    if not data.labelled:
        raise UserError(
            f"{options.data} has no labels, which are needed to measure accuracy. Give labelled images with --data."
        )
    family.split(data, "val", tell=True)
    check_criterion(checkpoint, context, options.score)
    if options.finetune:
        check_trainable(checkpoint, "fine-tuned")
        family.split(data, "train", tell=True)
    elif context.unlabelled is None:
        family.split(data, "train", tell=True, objects=needs_gradients(options.score.criterion))
    if context.unlabelled is not None:
        family.split(context.unlabelled, "train", tell=True)
    if options.heal:
        check_healing(checkpoint, checkpoint, context)


def _check_labels(networks: Sequence[ParetoNetwork]) -> None:
    """Rejects labels that would give two points the same file name.

    Raises:
        UserError: the message names the label.
    """
    labels = [network.label for network in networks]
    labels += [network.point(target) for network in networks for target in network.targets]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise UserError(f"Two points have the name {twice}. Give the networks other names with --labels.")


def _reachable(
    label: str, graph: ChannelGraph, budgets: Mapping[str, Budget], guards: Guards, size: int
) -> tuple[dict[str, Budget], list[str]]:
    """The budgets that a network can reach, by their text, and one message for each of the others.

    Raises:
        UserError: it can reach none, or a guard matches no layer.
    """
    order = np.arange(float(graph.units))  # whether a budget can be reached does not depend on the scores
    allocate(graph, order, list(budgets.values())[:1], guards, image_size=size, strict=False)
    reached, skipped = {}, []
    for text, budget in budgets.items():
        try:
            plan = allocate(graph, order, budget, guards, image_size=size)
        except UserError as error:
            skipped.append(f"{label}: --budgets {text} is skipped. {error}")
            continue
        if plan.keep(graph).all():
            skipped.append(f"{label}: --budgets {text} is skipped. The dense network already meets it.")
            continue
        reached[text] = budget
    if not reached:
        raise UserError(f"None of the budgets can be used. {skipped[-1]}")
    return reached, skipped
