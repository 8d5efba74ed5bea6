"""EagleEye: samples allocations that meet a budget, ranks them by a short evaluation, and evolves the best ones."""

from __future__ import annotations

import hashlib
import logging
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from torch import nn

from secateur.errors import StateError, UserError, going_on_from, told
from secateur.files import read_json, write_json
from secateur.pruning.allocation import Widths, allocate
from secateur.pruning.budget import Budget
from secateur.pruning.costs import COSTS
from secateur.pruning.evidence import Evidence, device_of
from secateur.pruning.graph import ChannelGraph, Floats, Ids, ImageSize
from secateur.pruning.plan import Plan
from secateur.pruning.repair import absorb_offsets, reestimate_batchnorm_
from secateur.pruning.settings import Guards, PruneSettings, RepairSettings, SearchSettings
from secateur.pruning.surgery import cut
from secateur.scores import Scores
from secateur.terminal import bar

LOG = logging.getLogger("secateur")
Network = TypeVar("Network", bound=nn.Module)
Measure = Callable[[str, int], Callable[[Network], Scores]]
"""Takes the name of a split and a number of images (0: all); returns a function that evaluates a network on them."""
STATE = "search.json"
CALIBRATION_IMAGES = 64
"""Maximum number of images for re-estimating batch-norm statistics, which is repeated for every candidate."""

LOWEST = 0.2
"""Smallest sampled keep ratio."""
DRAWS = 100
"""Maximum draws per candidate; if none is new, the search ends."""
PARENTS = 5
"""Number of best allocations used as parents."""
MUTATED = 0.25
"""Share of the spaces whose width is mutated in a child."""
SPREAD = 0.3
"""Maximum standard deviation of mutations, on the logarithm of the keep ratio."""
_BISECTIONS = 24
_WORST = -sys.float_info.max


@dataclass(frozen=True)
class Candidate:
    """One evaluated allocation.

    Attributes:
        origin: "threshold" (the global one), "random" or "evolved".
        kept: number of units that each space keeps.
        share: cost as a share of the dense cost, for the binding budget.
        fitness: result of the evaluation; higher is better.
    """

    origin: str
    kept: tuple[int, ...]
    share: float
    fitness: float


@dataclass(frozen=True)
class SearchResult:
    """The plan of the best candidate, all candidates in order, and the number of draws that missed the budget."""

    plan: Plan
    history: tuple[Candidate, ...]
    dropped: int


def search(
    graph: ChannelGraph,
    scores: Floats,
    budgets: Sequence[Budget],
    guards: Guards,
    evaluate_candidate: Callable[[Plan], float],
    settings: SearchSettings = SearchSettings(),  # noqa: B008 (frozen)
    *,
    seed: int = 0,
    image_size: ImageSize = None,
    criterion: str = "",
    reference: Mapping[str, float] | None = None,
    state: dict[str, Any] | None = None,
    save: Callable[[dict[str, Any]], None] = lambda state: None,
) -> SearchResult:
    """Finds the widths with the best evaluation among those that meet the budgets.

    After EagleEye (Li et al., ECCV 2020, https://arxiv.org/abs/2007.02491): an allocation is a keep ratio for each
    space, sampled from 0.2..1; within a space, the units with the best scores are kept. Instead of sampling until the
    cost happens to fit, the ratios are scaled by bisection (the cost grows with the scale), so nearly every draw is
    usable. The first candidate is the allocation of the global threshold, so the result is never worse than that. The
    first half of the other candidates is random, the second half is evolved from the best.

    Args:
        scores: float [units].
        budgets: all are met. An allocation is accepted if the cost of the binding budget (largest excess) differs from
            its target by at most `tolerance` of the dense cost.
        evaluate_candidate: fitness of a plan, higher is better; called once per allocation.
        settings: `candidates` (maximum evaluations) and `tolerance` are used.
        seed: candidate i depends only on (seed, i) and the fitness of the candidates before it.
        reference: see `allocate`; cost by name that budget shares refer to.
        state: the last argument of `save` of an interrupted search, to resume it. The state of another search (other
            settings, scores or network) is ignored.
        save: called after every evaluation with data that JSON can hold.

    Raises:
        UserError: options are invalid, the state is damaged, or no allocation is accepted; the message names the
            nearest one.
    """
    if not budgets:
        raise UserError(f"A search needs a budget. Set one of: {', '.join(f'--{name}' for name in COSTS)}.")
    if seed < 0:
        raise UserError(f"--seed {seed} must be at least 0.")
    candidates = settings.candidates
    shared: dict[str, Any] = {"image_size": image_size, "criterion": criterion, "reference": reference, "strict": False}
    plans = [allocate(graph, scores, budget, guards, **shared) for budget in budgets]
    widths = [Widths(graph, scores, budget, guards, image_size, reference) for budget in budgets]
    window = _Window(graph, widths, settings.tolerance)
    threshold = min((window.counts_of(plan) for plan in plans), key=window.excess)
    if window.excess(window.sizes) <= 0:
        return SearchResult(plans[0], (), 0)
    breeder = _Breeder(window, candidates, seed)
    if not window.holds(threshold) and breeder.draw(1, [])[0] is None:
        raise UserError(window.refusal())
    key = _key(graph, scores, widths, (guards, candidates, settings.tolerance, seed, image_size))
    history, dropped = _restored(state, key)
    for number in range(len(history), candidates):
        counts, missed = (threshold, 0) if number == 0 else breeder.draw(number, history)
        dropped += missed
        if counts is None:
            break
        value = float(evaluate_candidate(window.plan(counts, criterion)))
        fitness = value if math.isfinite(value) else _WORST
        history.append(Candidate(breeder.origin(number), tuple(counts.tolist()), window.share(counts), fitness))
        save({"key": key, "dropped": dropped, "candidates": [asdict(candidate) for candidate in history]})
    best = max(history, key=lambda candidate: candidate.fitness)  # the earliest on a tie
    notes = _notes(history, best, candidates, dropped)
    return SearchResult(window.plan(np.array(best.kept), criterion, notes), tuple(history), dropped)


class Fitness(Generic[Network]):
    """Fitness of a plan: the accuracy of the cut network after a repair without training.

    Constants are absorbed and batch-norm statistics re-estimated according to the repair settings, on at most 64
    images. The fitness is the coarse figure (`Scores.coarse`). As in the paper, it is measured on training images, so
    that the validation split stays unseen.

    Attributes:
        figure: name of the figure; set by the first measurement.
    """

    figure = "fitness"

    def __init__(
        self,
        network: Network,
        graph: ChannelGraph,
        evidence: Evidence[Network] | None,
        repair: RepairSettings,
        evaluate: Callable[[Network], Scores],
    ) -> None:
        self.network, self.graph, self.repair, self.evaluate = network, graph, repair, evaluate
        count, device = min(repair.correction_images, CALIBRATION_IMAGES), device_of(network)
        shown = evidence.augmented(count) if evidence is not None and count else ()
        self.images = [images.to(device) for images in shown]

    def __call__(self, plan: Plan) -> float:
        """Cuts, repairs and evaluates; the network itself is not changed."""
        whole = absorb_offsets(self.network, self.graph, plan) if self.repair.absorb else self.network
        smaller = cut(whole, self.graph, plan)
        reestimate_batchnorm_(smaller, iter(self.images), share=self.repair.correction_share)
        scores = self.evaluate(smaller)
        self.figure = scores.judged_by[0]
        return float(scores.merit(self.figure))


def searched(
    fitness: Fitness[Network],
    scores: Floats,
    settings: PruneSettings,
    reference: Mapping[str, float],
    folder: Path | None,
) -> Plan:
    """The plan of the best allocation that the search finds; within a layer, the units with the best `scores` [units]
    are kept.

    Args:
        folder: folder for `search.json`, from which the same call can be resumed after a kill; None: nothing is stored.

    Raises:
        UserError: no allocation meets the budgets, or `search.json` is damaged.
    """
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
                fitness.graph,
                scores,
                settings.budgets,
                settings.guards,
                fitness,
                settings.search,
                seed=settings.seed,
                image_size=settings.image_size,
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


class _Window:
    """Unit counts per space whose cost meets the budgets within the tolerance."""

    def __init__(self, graph: ChannelGraph, widths: Sequence[Widths], tolerance: float) -> None:
        self.graph, self.widths, self.tolerance = graph, widths, tolerance
        self.sizes: Ids = np.array([len(space.units) for space in graph.spaces], dtype=np.int64)
        self.nearest = self.sizes

    def counts(self, ratios: Floats) -> Ids:
        """Units to keep per space for keep ratios (limited to 1), after guards and rounding."""
        return self.widths[0].nearest(np.rint(np.minimum(ratios, 1) * self.sizes).astype(np.int64))

    def counts_of(self, plan: Plan) -> Ids:
        """Units that a plan keeps per space."""
        return np.bincount(self.graph.space_of[plan.keep(self.graph)], minlength=len(self.sizes))

    def excess(self, counts: Ids) -> float:
        """Cost minus target as a share of the dense cost, for the binding budget."""
        return self._binding(counts)[1]

    def share(self, counts: Ids) -> float:
        """Cost as a share of the dense cost, for the binding budget."""
        number, excess = self._binding(counts)
        return excess + self.widths[number].target / self.widths[number].dense

    def holds(self, counts: Ids) -> bool:
        """Whether an allocation is accepted; also stores the nearest one so far."""
        excess = self.excess(counts)
        if abs(excess) < abs(self.excess(self.nearest)):
            self.nearest = counts
        return abs(excess) <= self.tolerance

    def fit(self, ratios: Floats) -> Ids | None:
        """Counts for the ratios (all positive) scaled to meet the budget; None if the result is not accepted.

        A cost just below the target is preferred to one just above.
        """
        # At factor 0 every space is as narrow as the guards allow; at the upper end every space is complete.
        low, high = 0.0, 1 / float(ratios.min())
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            if self.excess(self.counts(ratios * middle)) <= 0:
                low = middle
            else:
                high = middle
        for factor in (low, high):
            counts = self.counts(ratios * factor)
            if self.holds(counts):
                return counts
        return None

    def plan(self, counts: Ids, criterion: str, notes: Sequence[str] = ()) -> Plan:
        """The plan that keeps the best units of every space."""
        widths = self.widths[self._binding(counts)[0]]
        keep, size = widths.keep(counts), widths.image_size
        return Plan.of(self.graph, keep, size, budget=widths.budget, criterion=criterion, notes=notes)

    def refusal(self) -> str:
        """Error message with the nearest allocation."""
        widths = self.widths[self._binding(self.nearest)[0]]
        reached = widths.describe(widths.measure(widths.keep(self.nearest)))
        return (
            f"No allocation meets the budget {widths.budget} within --tolerance {self.tolerance:g} of the dense model. "
            f"The nearest has {reached}. Change the budget, the tolerance or the guards ({widths.guards})."
        )

    def _binding(self, counts: Ids) -> tuple[int, float]:
        """Index of the budget with the largest excess, and the excess."""
        keep = self.widths[0].keep(counts)
        excesses = [(widths.measure(keep) - widths.target) / widths.dense for widths in self.widths]
        number = int(np.argmax(excesses))
        return number, excesses[number]


class _Breeder:
    """Draws new allocations: first at random, then from the best so far."""

    def __init__(self, window: _Window, candidates: int, seed: int) -> None:
        self.window, self.seed = window, seed
        self.random_until = max(2, 1 + candidates // 2)

    def origin(self, number: int) -> str:
        """Origin of a candidate."""
        return "threshold" if number == 0 else "random" if number < self.random_until else "evolved"

    def draw(self, number: int, history: Sequence[Candidate]) -> tuple[Ids | None, int]:
        """A new accepted allocation (None: not found in `DRAWS` draws), and the number of draws that missed the
        budget."""
        random = np.random.default_rng([self.seed, number])
        known = {candidate.kept for candidate in history}
        missed = 0
        for _ in range(DRAWS):
            if self.origin(number) == "evolved":
                ratios = self._child(random, history)
            else:
                ratios = random.uniform(LOWEST, 1, len(self.window.sizes))
            counts = self.window.fit(ratios)
            if counts is None:
                missed += 1
            elif tuple(counts.tolist()) not in known:
                return counts, missed
        return None, missed

    def _child(self, random: np.random.Generator, history: Sequence[Candidate]) -> Floats:
        """Keep ratios of a child: from one parent, or space by space from two, with some of them mutated.

        A parent is the best with probability 1/2, otherwise the second best with probability 1/2, and so on: most
        random allocations are poor, so crossing two of them rarely helps, while a small change to a good one often
        does.
        """
        best = sorted(history, key=lambda candidate: -candidate.fitness)[:PARENTS]
        ranks = np.minimum(random.geometric(0.5, size=2) - 1, len(best) - 1)
        first, second = (np.array(best[rank].kept) for rank in ranks)
        spaces = len(self.window.sizes)
        crossed = random.random() < 0.5
        ratios = np.where(crossed & (random.random(spaces) < 0.5), second, first) / self.window.sizes
        # Mutations of all sizes: small ones refine, large ones leave a local optimum.
        steps = random.normal(0, SPREAD * random.random(), spaces)
        factors = np.where(random.random(spaces) < MUTATED, np.exp(steps), 1.0)
        child: Floats = np.minimum(ratios * factors, 1.0)
        return child


def _key(graph: ChannelGraph, scores: Floats, widths: Sequence[Widths], settings: tuple[object, ...]) -> str:
    """Key of the search that a stored state belongs to."""
    layers = [(space.layers, space.units.tolist()) for space in graph.spaces]
    text = repr((layers, [(entry.budget, entry.target) for entry in widths], settings))
    return hashlib.sha256(text.encode() + np.asarray(scores, dtype=np.float64).tobytes()).hexdigest()[:32]


def _restored(state: Any, key: str) -> tuple[list[Candidate], int]:
    """Candidates and dropped draws of an interrupted search; empty for the state of another search."""
    if not isinstance(state, dict) or state.get("key") != key:
        return [], 0
    try:
        rows = [Candidate(**{**row, "kept": tuple(row["kept"])}) for row in state["candidates"]]
        return rows, int(state["dropped"])
    except (KeyError, TypeError, ValueError) as error:
        raise StateError(f"This is not a valid search state ({type(error).__name__}: {told(error)}).") from error


def _notes(history: Sequence[Candidate], best: Candidate, wanted: int, dropped: int) -> list[str]:
    """Notes about the search, for the plan."""
    notes = [
        f"Search: the best of {len(history)} allocations ({best.origin}) has fitness {best.fitness:.4g}, "
        f"the global threshold {history[0].fitness:.4g}."
    ]
    if dropped:
        notes.append(f"{dropped} draws missed the budget and were dropped.")
    if len(history) < wanted:
        notes.append(f"The search ended before {wanted} candidates: {DRAWS} draws gave no new allocation.")
    return notes
