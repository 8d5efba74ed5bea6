"""Predicts, before anything is cut, the cost and the loss of detections for a ladder of budgets.

Units are scored once, on a few images. For every target, the network is cut by these scores and repaired on a few
images, and its detections are compared with those of the whole network. Rounds and healing give better results.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from secateur.checkpoints.channels import check_criterion, tables_of
from secateur.deploy.exporters import EXPORTERS
from secateur.deploy.exporting import about
from secateur.deploy.file_size import USUAL, size_table
from secateur.errors import UserError
from secateur.evaluation.matching import Boxes, true_positives
from secateur.evaluation.settings import PREDICTION
from secateur.families.context import Context
from secateur.families.evidence import FamilyEvidence
from secateur.families.family import family_of, predictor_of
from secateur.networks.checkpoint import Checkpoint
from secateur.pruning.allocation import allocate, scores_per_saving
from secateur.pruning.budget import Budget
from secateur.pruning.cliff import EDGE
from secateur.pruning.costs import COSTS
from secateur.pruning.graph import ChannelGraph, Floats, trace
from secateur.pruning.importance import divides_by_saving, needs_gradients
from secateur.pruning.options import ChannelSettings
from secateur.pruning.plan import Plan
from secateur.pruning.prune import scored
from secateur.pruning.repair import Repair
from secateur.pruning.settings import RepairSettings
from secateur.pruning.surgery import cut

IMAGES = 24
"""Number of images for the scores."""
COMPARED = 16
"""Number of images on which detections are compared."""
CORRECTED = 16
"""Number of images for the repair of each cut."""
FAINT = 0.01
"""Minimum confidence of a detection of a cut network; a cut lowers confidences before it loses objects."""
GONE = 0.5
"""Agreement below which harder targets are not tried."""
_LADDER = tuple(step / 10 for step in range(9, 0, -1))


@dataclass(frozen=True)
class Rung:
    """One target.

    Attributes:
        target: share of the cost of the dense network to keep; for a cost that counts removals, the share to remove.
        reached: cost of the cut network, in its unit.
        removed: share of the units that are removed.
        flops, parameters: of the cut network.
        mb: size of its exported file; None if no format is set.
        ms: latency from the latency table; None without a table.
        agreement: average precision of its detections with those of the whole network as labels, over all classes
            together, 0 to 1; None if not compared.
        asked: whether it is the requested target.
    """

    target: float
    reached: float
    removed: float
    flops: int
    parameters: int
    mb: float | None
    ms: float | None
    agreement: float | None
    asked: bool = False


@dataclass(frozen=True)
class Forecast:
    """Predictions for budgets of one cost.

    Attributes:
        cost: name of the cost.
        file: kind of file whose size is predicted; "" for none.
        image_size: px.
        criterion: criterion that scored the units.
        rungs: from the mildest target to the hardest reachable one.
        cliff: target of the last rung before detections collapse; None if nothing was compared, or nothing collapses.
        dense: cost of the dense network, in its unit.
    """

    cost: str
    file: str
    image_size: int
    criterion: str
    rungs: tuple[Rung, ...]
    cliff: float | None
    dense: float

    @property
    def smallest(self) -> Rung:
        """The hardest reachable target."""
        return self.rungs[-1]

    def to_dict(self) -> dict[str, Any]:
        """Data that JSON can hold."""
        return asdict(self)

    def table(self) -> str:
        """The forecast as text: one line per target, then the smallest reachable target and the cliff."""
        kind = COSTS[self.cost]
        unit = "removed" if kind.removes else self.cost
        title = f"{unit:>9} {'GFLOPs':>8} {'params (M)':>11} {'MB':>8} {'ms':>7} {'detections kept':>16}"
        lines = [f"Predicted at {self.image_size} px{f', MB of {self.file}' if self.file else ''}:", title]
        for rung in self.rungs:
            marks = ["<- asked"] * rung.asked + ["<- cliff"] * (rung.target == self.cliff)
            marks += ["<- smallest"] * (rung is self.smallest)
            cells = [f"{rung.target:>9.1%} {rung.flops / 1e9:>8.3g} {rung.parameters / 1e6:>11.3f}"]
            megabytes = "-" if rung.mb is None else f"{rung.mb:.2f}"
            milliseconds = "-" if rung.ms is None else f"{rung.ms:.2f}"
            kept = "-" if rung.agreement is None else f"{rung.agreement:.0%}"
            cells += [f"{megabytes:>8} {milliseconds:>7} {kept:>16}"]
            lines.append(" ".join([*cells, *marks]))
        return "\n".join([*lines, *self.sentences()])

    def sentences(self) -> list[str]:
        """Statements about the smallest target, the cliff, and the figures."""
        kind, smallest = COSTS[self.cost], self.smallest
        share = f"{smallest.target:.1%} {'of the units removed' if kind.removes else 'of the dense network'}"
        number = f"{smallest.reached:,.0f}" if smallest.reached >= 1000 else f"{smallest.reached:.4g}"
        found = [f"Smallest reachable: {share}{'' if kind.removes else f', {number} {kind.unit}'}."]
        if all(rung.agreement is None for rung in self.rungs):
            return [*found, "Accuracy is not estimated. For an estimate, set --images, or --data of a detector."]
        if self.cliff is None:
            found.append("Cliff: a single cut fails at all of these targets. Use rounds (the default) and --heal.")
        else:
            found.append(
                f"Cliff: a single cut without rounds and training works down to {self.cliff:.0%}; below, detections "
                "collapse."
            )
        how = f"Detections kept: average precision with the whole network's detections on {COMPARED} images as labels"
        return [*found, f"{how}, single cut by {self.criterion}, repaired; rounds (the default) and --heal keep more."]


def forecast(checkpoint: Checkpoint, context: Context, settings: ChannelSettings) -> Forecast:
    """Predicts the results of budgets on the first cost of the settings; nothing is saved.

    Raises:
        UserError: see `prune`.
    """
    settings.check()
    context = context.known_to(checkpoint)
    whole = checkpoint.build().to(context.device)
    seen = context.image_source is not None
    if not seen and needs_gradients(settings.score.criterion):
        settings = replace(settings, score=replace(settings.score, criterion="l2"))
    check_criterion(whole, context, settings.score)
    graph = trace(whole).with_tables(tables_of(checkpoint, context, settings))
    if graph.sizing is None and not EXPORTERS[USUAL.partition("-")[0]].missing():
        # No rung removes blocks.
        sizing = size_table(checkpoint.build(), context.image_size, USUAL, about(checkpoint), blocks=False)
        graph = replace(graph, sizing=sizing)
    evidence = FamilyEvidence.of(context, whole)
    how = replace(settings.score, statistics_images=min(IMAGES, settings.score.statistics_images))
    scores = scored(whole, graph, evidence, how, context.seed)
    asked = settings.budgets[0]
    cost = COSTS[asked.cost].of(graph, context.image_size)
    divided = divides_by_saving(how.criterion, how.per_saving)
    plans = _plans(graph, scores_per_saving(scores, cost) if divided else scores, asked, settings, context.image_size)
    agreement = _Agreement(whole, evidence, context) if seen and family_of(whole).knows("predictor") else None
    dense, rungs, going = cost.price(graph.everything()), [], agreement is not None
    for budget, plan in plans:
        kept = agreement.of(graph, plan) if going and agreement is not None else None
        going = going and kept is not None and kept >= GONE
        reached = cost.price(plan.keep(graph))
        share = plan.removed_share if COSTS[asked.cost].removes else reached / dense
        rungs.append(_rung(graph, plan, share, reached, context, kept, asked=budget is asked))
    held = [rung for rung in rungs if rung.agreement is not None and rung.agreement >= EDGE]
    file = graph.sizing.kind if graph.sizing else ""
    last = held[-1].target if held else None
    return Forecast(asked.cost, file, context.image_size, how.criterion, tuple(rungs), last, dense)


def _plans(
    graph: ChannelGraph, order: Floats, asked: Budget, settings: ChannelSettings, size: int
) -> list[tuple[Budget, Plan]]:
    """The plans of the ladder and of the requested budget, from the mildest to the hardest, without duplicates."""
    removes = COSTS[asked.cost].removes
    ladder = [Budget(asked.cost, 1 - share if removes else share, file=asked.file) for share in (*_LADDER, 1e-3)]
    found: dict[int, tuple[Budget, Plan]] = {}
    for budget in [*ladder, asked]:
        plan = allocate(graph, order, budget, settings.guards, image_size=size, strict=False)
        if plan.units_kept < graph.units:
            found[plan.units_kept] = budget, plan
    return [found[kept] for kept in sorted(found, reverse=True)]


def _rung(
    graph: ChannelGraph, plan: Plan, target: float, reached: float, context: Context, kept: float | None, *, asked: bool
) -> Rung:
    keep, size = plan.keep(graph), context.image_size
    mb = COSTS["size"].of(graph, size).price(keep) if graph.sizing else None
    ms = COSTS["ms"].of(graph, size).price(keep) if graph.timing else None
    return Rung(target, reached, plan.removed_share, plan.after.flops, plan.after.parameters, mb, ms, kept, asked)


class _Agreement:
    """Compares the detections of cut networks with those of the whole network."""

    def __init__(self, whole: nn.Module, evidence: FamilyEvidence | None, context: Context) -> None:
        assert evidence is not None, "a comparison needs images"
        self.whole, self.context = whole, context
        self.images = list(evidence.images(COMPARED, 0))
        self.repair = Repair(whole, evidence, RepairSettings(correction_images=CORRECTED), same_images=True)
        seen = self._seen(whole)
        self.truths = seen.where(seen.scores >= PREDICTION.conf)
        if not len(self.truths):
            raise UserError(
                f"The detector finds nothing on {COMPARED} of the images, so detections cannot be compared. Set "
                "--images with images that contain its objects."
            )

    def of(self, graph: ChannelGraph, plan: Plan) -> float:
        """Average precision of the detections of the repaired network that a plan leaves."""
        smaller = cut(self.whole, graph, plan)
        self.repair(smaller, plan, (self.whole, graph), CORRECTED)
        found = self._seen(smaller)
        right = true_positives(self.truths, found)[np.argsort(-found.scores, kind="stable")]
        precision = np.cumsum(right) / np.arange(1, len(right) + 1)
        best = np.maximum.accumulate(precision[::-1])[::-1]
        return float(best[right].sum() / len(self.truths))

    def _seen(self, network: nn.Module) -> Boxes:
        """Boxes that a network predicts on all images."""
        predictor = predictor_of(network, self.context.device)
        rows: list[Tensor] = []
        numbers: list[NDArray[np.int64]] = []
        for images in self.images:
            for boxes in predictor.predict(images, replace(PREDICTION, conf=FAINT)):
                numbers.append(np.full(len(boxes), len(numbers)))
                rows.append(boxes.float().cpu())
        flat: Tensor = torch.cat(rows)
        values = flat.double().numpy()
        return Boxes(np.concatenate(numbers), values[:, :4], values[:, 5].astype(np.int64), values[:, 4])


def line_to_paste(found: Forecast, weights: str, options: Sequence[str], *, verb: str = "prune") -> str:
    """The command that cuts to the cliff, or to the requested budget if the cliff is unknown.

    Args:
        verb: the command, prune or run.
    """
    asked = next((rung.target for rung in found.rungs if rung.asked), found.smallest.target)
    target = found.cliff if found.cliff is not None else asked
    amount = f"{target:.2g}"
    if COSTS[found.cost].files and found.file != USUAL:
        amount += f":{found.file}"
    return " ".join([f"secateur {verb} --weights", weights, *options, f"--{found.cost} {amount}"])
