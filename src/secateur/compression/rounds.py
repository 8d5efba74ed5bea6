"""Pruning in rounds with a detector's pictures at hand: what the rounds ask for, and where they keep their state."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from secateur.compression.context import Context
from secateur.compression.images import labelled_images
from secateur.compression.repair import Mending
from secateur.compression.settings import ChannelSettings
from secateur.detector.model import Detector
from secateur.errors import going_on_from
from secateur.files import read_json, write_json
from secateur.machine import return_memory
from secateur.pruning.budget import Budget
from secateur.pruning.graph import ChannelGraph, Floats, trace
from secateur.pruning.importance import needs_gradients
from secateur.pruning.plan import Plan
from secateur.pruning.repair import Shorter
from secateur.pruning.rounds import Rounds, Sources, State
from secateur.pruning.statistics import Statistics, collect

STATE = "rounds.json"
SCORING, CORRECTING = 0, 1_000_000
"""Numbers of the draws of pictures: those that score a network are not those that its norms are corrected on."""


def plan_of_rounds(
    detector: Detector,
    graph: ChannelGraph,
    context: Context,
    settings: ChannelSettings,
    budgets: Sequence[Budget],
    reference: Mapping[str, float],
    folder: Path | None,
    mending: Mending,
) -> tuple[Plan, Floats]:
    """The plan that rounds of scoring, cutting and correcting lead to, and the order in which the units go.

    Args:
        graph: of the detector, with the latency table that a budget in milliseconds reads.
        budgets: shares of `reference`.
        folder: where `rounds.json` is kept, from which the same call goes on after a kill; None keeps nothing.
        mending: of cuts of this detector.

    Raises:
        UserError: no images for a criterion that reads them, or a budget out of reach.
    """
    score, mended = settings.score, -(-settings.repair.recalibrate // 2)
    limit = -(-score.statistics_images // 2)

    def gather(network: Detector, graph: ChannelGraph, blocks: Sequence[str], number: int) -> Statistics:
        return_memory()
        if not needs_gradients(score.criterion):
            return collect(network, graph)
        batches, loss = labelled_images(network, context, limit, labeller=detector, draw=SCORING + number)
        return collect(network, graph, batches, loss, limit=limit, blocks=blocks)

    def mend(network: Detector, plan: Plan, shorter: Shorter, number: int) -> None:
        mending.mend_(network, plan, shorter, mended, CORRECTING + number)

    def traced(network: Detector) -> ChannelGraph:
        return replace(trace(network), timing=graph.timing)

    course = Rounds(
        detector,
        Sources(traced, gather, mend),
        budgets,
        score,
        settings.guards,
        settings.rounds,
        reference,
        context.image_size,
        context.seed,
    )
    file = folder / STATE if folder is not None else None
    kept = read_json(file) if file is not None and file.is_file() else None
    with _bar() as progress:
        task = progress.add_task("", total=None)

        def save(state: State, count: int) -> None:
            gc.collect()  # networks and their hooks hold each other
            return_memory()
            if file is not None:
                write_json(file, state.to_dict())
            progress.update(task, total=count, completed=state.round)

        with going_on_from(file):
            return course.plan(State.from_dict(kept) if kept is not None else None, save)


def _bar() -> Progress:
    columns: Any = (TextColumn("rounds"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
