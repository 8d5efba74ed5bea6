"""The search for widths by evaluation: what a candidate is worth, and where the search keeps its state."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from secateur.errors import going_on_from
from secateur.families.context import Context
from secateur.families.evaluation import evaluator, val_settings
from secateur.families.evidence import FamilyEvidence
from secateur.families.family import family_of
from secateur.files import read_json, write_json
from secateur.pruning.budget import Budget
from secateur.pruning.graph import ChannelGraph, Floats
from secateur.pruning.options import ChannelSettings
from secateur.pruning.plan import Plan
from secateur.pruning.repair import absorb_offsets, reestimate_batchnorm_
from secateur.pruning.search import search
from secateur.pruning.surgery import cut
from secateur.terminal import bar

LOG = logging.getLogger("secateur")
STATE = "search.json"
CALIBRATION_IMAGES = 64
"""Most images on which the BatchNorm statistics of a candidate are re-estimated: every candidate pays for them."""


def search_plan(
    network: nn.Module,
    context: Context,
    settings: ChannelSettings,
    graph: ChannelGraph,
    scores: Floats,
    budgets: Sequence[Budget],
    reference: Mapping[str, float],
    folder: Path | None,
) -> Plan:
    """The plan of the best allocation that EagleEye's search finds; inside a layer the best `scores` [units] stay.

    A candidate's fitness is the coarse figure (`Scores.coarse`) of the cut and repaired network: constants absorbed and
    BatchNorm statistics re-estimated as `settings` say, the latter on at most 64 images. As in the paper it is measured
    on `search_images` images of the training split, spread evenly: the validation split stays unseen, so its figures
    stay honest.

    Args:
        folder: where the search keeps `search.json`, from which the same call goes on after a kill; None keeps nothing.

    Raises:
        UserError: no training images, no allocation meets the budgets, or a damaged `search.json`.
    """
    fitness = Fitness(network, graph, context, settings)
    file = folder / STATE if folder is not None else None
    state = read_json(file) if file is not None and file.is_file() else None
    with bar("searching") as progress:
        task = progress.add_task("", total=settings.search.candidates)

        def save(state: dict[str, Any]) -> None:
            if file is not None:
                write_json(file, state)
            progress.update(task, completed=len(state["candidates"]))

        with going_on_from(file):
            result = search(
                graph,
                scores,
                budgets,
                settings.guards,
                fitness,
                settings.search,
                seed=context.seed,
                image_size=context.image_size,
                state=state,
                save=save,
                criterion=settings.score.criterion,
                reference=reference,
            )
    if result.history:
        first, best = result.history[0].fitness, max(candidate.fitness for candidate in result.history)
        LOG.info(
            "Search: %s %.3f on training images (global threshold %.3f), %d allocations evaluated, %d draws dropped",
            fitness.figure, abs(best), abs(first), len(result.history), result.dropped,
        )  # fmt: skip
    return result.plan


class Fitness:
    """How good the network is that a plan leaves, after the repair that costs no training.

    Attributes:
        figure: what it is measured by; known from the first measurement on.
    """

    figure = "fitness"

    def __init__(self, network: nn.Module, graph: ChannelGraph, context: Context, settings: ChannelSettings) -> None:
        self.network, self.graph, self.repair = network, graph, settings.repair
        data = context.require_data("The search")
        split = family_of(network).split(data, "train")
        limit = min(settings.search.search_images, len(split)) or None
        self.evaluate = evaluator(split, val_settings(context, workers=0, single_cls=data.one_class), limit)
        count = min(self.repair.correction_images, CALIBRATION_IMAGES)
        self.images = list(_calibration_images(FamilyEvidence(context, network), count))

    def __call__(self, plan: Plan) -> float:
        """Cuts, repairs, measures; the network itself stays as it is."""
        whole = absorb_offsets(self.network, self.graph, plan) if self.repair.absorb else self.network
        smaller = cut(whole, self.graph, plan)
        reestimate_batchnorm_(smaller, iter(self.images), share=self.repair.correction_share)
        scores = self.evaluate(smaller)
        self.figure = scores.judged_by[0]
        return float(scores.merit(self.figure))


def _calibration_images(evidence: FamilyEvidence, count: int) -> Iterator[Tensor]:
    """Batches of equal size of training images, augmented as in the training, which the statistics stand for."""
    if count == 0:
        return
    size = min(evidence.context.batch_size, count)
    first: Tensor | None = None
    for images in islice(evidence.augmented(count), max(count // size, 1)):
        if first is not None and len(images) != len(first):
            return
        first = images if first is None else first
        yield images
