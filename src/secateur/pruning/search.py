"""EagleEye: many allocations of one budget, each judged by a short evaluation, the best few bred further."""

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
"""Takes the name of a split and a number of its images (0: all), gives what evaluates a network on them."""
STATE = "search.json"
CALIBRATION_IMAGES = 64
"""Most images on which the BatchNorm statistics of a candidate are re-estimated: every candidate pays for them."""

LOWEST = 0.2
"""Smallest keep ratio that is drawn."""
DRAWS = 100
"""Draws for one candidate, after which the search ends with what it has."""
PARENTS = 5
"""Allocations, best first, that the evolution breeds from."""
MUTATED = 0.25
"""Share of the spaces whose width a child changes."""
SPREAD = 0.3
"""Largest standard deviation of the changes of a child, as logarithms of factors."""
_BISECTIONS = 24
_WORST = -sys.float_info.max


@dataclass(frozen=True)
class Candidate:
    """One evaluated allocation.

    Attributes:
        origin: "threshold" (the global one), "random" or "evolved".
        kept: units that each space of the graph keeps.
        share: its cost as a share of the dense one, in the quantity of the budget that binds.
        fitness: what the evaluation gave, higher is better.
    """

    origin: str
    kept: tuple[int, ...]
    share: float
    fitness: float


@dataclass(frozen=True)
class SearchResult:
    """The plan of the fittest candidate, all candidates in order, and how many draws could not meet the budget."""

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
    """Looks for the widths that evaluate best among those that cost what the budgets allow.

    After EagleEye (Li et al., ECCV 2020, https://arxiv.org/abs/2007.02491): an allocation is a keep ratio for each
    space, drawn from 0.2..1; inside a space the units with the best `scores` [units] stay. In place of redrawing until
    a draw happens to cost the right amount, its ratios are scaled by bisection (the cost grows with the scale), so that
    nearly every draw counts. The first candidate is the global threshold's allocation, so the result is never worse
    than that; the first half of the others is random, the second half bred from the best.

    Args:
        budgets: all are met; an allocation lies in the window when the quantity that is furthest over its budget (or
            least under) differs from it by at most `tolerance` of the dense model.
        evaluate_candidate: fitness of a plan, higher is better; it is asked once for each allocation.
        settings: `candidates`, the most evaluations, and `tolerance` are read.
        seed: candidate number i follows from (seed, i) and the fitness of those before it.
        reference: as of `allocate`: by the name of a cost, what shares are shares of.
        state: what `save` was last given by an interrupted search: it goes on there. A state of another search (other
            settings, scores or network) is left alone and the search starts anew.
        save: called after every evaluation with plain JSON data.

    Raises:
        UserError: bad options, a damaged state, or no allocation lies in the window; it says what the nearest costs.
    """
    if not budgets:
        raise UserError(f"A search needs a budget: give one of {', '.join(f'--{name}' for name in COSTS)}.")
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
    best = max(history, key=lambda candidate: candidate.fitness)  # the earliest of equals
    notes = _notes(history, best, candidates, dropped)
    return SearchResult(window.plan(np.array(best.kept), criterion, notes), tuple(history), dropped)


class Fitness(Generic[Network]):
    """How good the network is that a plan leaves, after the repair that costs no training.

    Constants are absorbed and BatchNorm statistics re-estimated as the settings of the repair say, the latter on at
    most 64 images; what counts is the coarse figure (`Scores.coarse`). As in the paper it is measured on images of the
    training split: the validation split stays unseen, so its figures stay honest.

    Attributes:
        figure: what it is measured by; known from the first measurement on.
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
        """Cuts, repairs, measures; the network itself stays as it is."""
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
    """The plan of the best allocation that the search finds; inside a layer the best `scores` [units] stay.

    Args:
        folder: keeps `search.json`, from which the same call goes on after a kill; None keeps nothing.

    Raises:
        UserError: no allocation meets the budgets, or a damaged `search.json`.
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
    """Kept counts a space that cost what the budgets allow, give or take the tolerance."""

    def __init__(self, graph: ChannelGraph, widths: Sequence[Widths], tolerance: float) -> None:
        self.graph, self.widths, self.tolerance = graph, widths, tolerance
        self.sizes: Ids = np.array([len(space.units) for space in graph.spaces], dtype=np.int64)
        self.nearest = self.sizes

    def counts(self, ratios: Floats) -> Ids:
        """Kept units a space for keep ratios (over 1 counts as 1), after guards and rounding."""
        return self.widths[0].nearest(np.rint(np.minimum(ratios, 1) * self.sizes).astype(np.int64))

    def counts_of(self, plan: Plan) -> Ids:
        """Kept units a space of a plan."""
        return np.bincount(self.graph.space_of[plan.keep(self.graph)], minlength=len(self.sizes))

    def excess(self, counts: Ids) -> float:
        """Cost over the target as a share of the dense cost, of the budget that binds; negative under it."""
        return self._binding(counts)[1]

    def share(self, counts: Ids) -> float:
        """Cost as a share of the dense cost, of the budget that binds."""
        number, excess = self._binding(counts)
        return excess + self.widths[number].target / self.widths[number].dense

    def holds(self, counts: Ids) -> bool:
        """Whether an allocation lies in the window; the nearest one seen is remembered."""
        excess = self.excess(counts)
        if abs(excess) < abs(self.excess(self.nearest)):
            self.nearest = counts
        return abs(excess) <= self.tolerance

    def fit(self, ratios: Floats) -> Ids | None:
        """Counts for the ratios (all over 0) times the factor that meets the budget, if that lands in the window.

        What is just within the budget is preferred to what is just over it.
        """
        # At factor 0 every space is as narrow as the guards allow, at the other end every space is whole.
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
        """Why nothing can be searched, with the nearest allocation that was seen."""
        widths = self.widths[self._binding(self.nearest)[0]]
        reached = widths.describe(widths.measure(widths.keep(self.nearest)))
        return (
            f"No allocation found costs {widths.budget} within --tolerance {self.tolerance:g} of the dense model: the "
            f"nearest has {reached}; change the budget, the tolerance or the guards ({widths.guards})."
        )

    def _binding(self, counts: Ids) -> tuple[int, float]:
        """Number of the budget that is furthest over its target, and by how much."""
        keep = self.widths[0].keep(counts)
        excesses = [(widths.measure(keep) - widths.target) / widths.dense for widths in self.widths]
        number = int(np.argmax(excesses))
        return number, excesses[number]


class _Breeder:
    """Draws allocations that were not there yet: at random first, then from the best so far."""

    def __init__(self, window: _Window, candidates: int, seed: int) -> None:
        self.window, self.seed = window, seed
        self.random_until = max(2, 1 + candidates // 2)

    def origin(self, number: int) -> str:
        """Where a candidate comes from."""
        return "threshold" if number == 0 else "random" if number < self.random_until else "evolved"

    def draw(self, number: int, history: Sequence[Candidate]) -> tuple[Ids | None, int]:
        """A new allocation in the window (None: none in so many draws), and the number of draws that missed it."""
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
        """Keep ratios of a child: of one parent or, space by space, of two; some are changed.

        A parent is the best with probability 1/2, else the second best with 1/2, and so on: most random allocations
        are so poor that a child of two of them is lost, while a small change of a good one often helps.
        """
        best = sorted(history, key=lambda candidate: -candidate.fitness)[:PARENTS]
        ranks = np.minimum(random.geometric(0.5, size=2) - 1, len(best) - 1)
        first, second = (np.array(best[rank].kept) for rank in ranks)
        spaces = len(self.window.sizes)
        crossed = random.random() < 0.5
        ratios = np.where(crossed & (random.random(spaces) < 0.5), second, first) / self.window.sizes
        # Steps of all sizes: small ones refine, large ones leave a local optimum.
        steps = random.normal(0, SPREAD * random.random(), spaces)
        factors = np.where(random.random(spaces) < MUTATED, np.exp(steps), 1.0)
        child: Floats = np.minimum(ratios * factors, 1.0)
        return child


def _key(graph: ChannelGraph, scores: Floats, widths: Sequence[Widths], settings: tuple[object, ...]) -> str:
    """What a saved state belongs to."""
    layers = [(space.layers, space.units.tolist()) for space in graph.spaces]
    text = repr((layers, [(entry.budget, entry.target) for entry in widths], settings))
    return hashlib.sha256(text.encode() + np.asarray(scores, dtype=np.float64).tobytes()).hexdigest()[:32]


def _restored(state: Any, key: str) -> tuple[list[Candidate], int]:
    """Candidates and dropped draws of an interrupted search; of a state that is none, or of another search, nothing."""
    if not isinstance(state, dict) or state.get("key") != key:
        return [], 0
    try:
        rows = [Candidate(**{**row, "kept": tuple(row["kept"])}) for row in state["candidates"]]
        return rows, int(state["dropped"])
    except (KeyError, TypeError, ValueError) as error:
        raise StateError(f"This is no state of a search ({type(error).__name__}: {told(error)}).") from error


def _notes(history: Sequence[Candidate], best: Candidate, wanted: int, dropped: int) -> list[str]:
    """What the search did, for the plan."""
    notes = [
        f"Searched: the best of {len(history)} allocations ({best.origin}) has fitness {best.fitness:.4g}, "
        f"the global threshold's {history[0].fitness:.4g}."
    ]
    if dropped:
        notes.append(f"{dropped} draws could not be brought to the budget and were dropped.")
    if len(history) < wanted:
        notes.append(f"The search ended before {wanted} candidates: {DRAWS} draws gave no other allocation.")
    return notes
