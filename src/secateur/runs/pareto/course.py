"""Computes the points of a curve: each network is cut to its budgets in one sequence of rounds, healed, fine-tuned and
evaluated. Resumable.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from secateur.checkpoints.channels import prune
from secateur.checkpoints.heal import heal
from secateur.checkpoints.training import Methods, train_checkpoint
from secateur.families.evaluation import describe, evaluate
from secateur.families.loading import load_checkpoint
from secateur.files import read_json, write_json
from secateur.networks.checkpoint import Checkpoint
from secateur.pruning.plan import Plan
from secateur.pruning.prune import Kept
from secateur.pruning.rounds import number_of_rounds, shared_round, state_file
from secateur.pruning.settings import Guards
from secateur.runs.pareto.networks import ParetoNetwork, Target, channel_settings
from secateur.runs.pareto.options import ParetoOptions
from secateur.runs.pareto.pace import SECONDS, Pace, Part
from secateur.runs.progress import Progress
from secateur.runs.prune_run import noting_weights
from secateur.runs.rows import save_result
from secateur.training.settings import TrainSettings

LOG = logging.getLogger("secateur")
POINTS, ROUNDS, TRAININGS = "points", "rounds", "trainings"
HEAL, FINETUNE = "heal", "finetune"


@dataclasses.dataclass(frozen=True)
class ParetoTask:
    """The checked inputs of a curve.

    Attributes:
        options: options of the command.
        networks: in the given order.
        guards: with --round-to auto replaced by a number.
        training: settings of the fine-tuning, or None.
        methods: methods of the fine-tuning.
    """

    options: ParetoOptions
    networks: tuple[ParetoNetwork, ...]
    guards: Guards
    training: TrainSettings | None
    methods: Methods

    @property
    def stages(self) -> list[tuple[str, str]]:
        """The kinds of points per budget, and the suffixes of their labels."""
        wanted = {"pruned": True, "healed": self.options.heal, "finetuned": self.training is not None}
        return [(kind, "" if kind == "pruned" else kind) for kind, given in wanted.items() if given]


class ParetoCourse:
    """One curve. Each cut, training and evaluation is a part that runs once.

    All budgets of a network share one sequence of pruning rounds. The smallest budget is cut first, and its rounds pass
    all larger budgets. The others continue from the state of one of these rounds (`pruning.rounds.shared_round`) and
    run only their last rounds, in which widths are rounded.
    """

    def __init__(self, task: ParetoTask, progress: Progress) -> None:
        self.task = task
        self.progress = progress
        self.folder = progress.folder
        self.points: list[dict[str, Any]] = []
        self.pace = Pace(self.parts())

    def parts(self) -> list[Part]:
        """All parts in order, with their amounts of work."""
        options, found = self.task.options, []
        for network in self.task.networks:
            label, size = network.label, network.gflops
            found.append(Part(f"row {label}", "measure", size, f"measure the dense {label}"))
            for target in network.targets:
                point, words = network.point(target), f"{label} to {target.budget}"
                rounds = number_of_rounds(options.rounds, [target.budget], network.reference)
                alone = rounds - self.shared(network, target)
                found.append(Part(f"prune {point}", "prune", size * alone, f"cut {words}"))
                for kind, ending in self.task.stages:
                    name = network.point(target, ending)
                    if kind == "healed":
                        amount = size * (1 + target.share)  # equal step counts; the dense teacher runs in every step
                        found.append(Part(f"{HEAL} {point}", HEAL, amount, f"heal {name}"))
                    if kind == "finetuned":
                        amount = size * target.share
                        found.append(Part(f"{FINETUNE} {point}", FINETUNE, amount, f"fine-tune {name}"))
                    found.append(Part(f"row {name}", "measure", size * target.share, f"measure {name}"))
        return [*found, Part("latency", "latency", 1.0, "measure the milliseconds of all points")]

    def run(self) -> tuple[list[dict[str, Any]], dict[str, float]]:
        """The points in order, and the milliseconds of the dense and cut networks by label."""
        LOG.info("Run folder: %s", self.folder)
        for network in self.task.networks:
            # An official name is not a local file.
            file = str(Path(network.file).absolute()) if Path(network.file).is_file() else network.file
            self.points.append(self.row(network, network.label, "dense", file, network.checkpoint))
            # Cut to the smallest budget first; the other budgets continue from its rounds.
            for target in network.targets:
                self.branch(network, target)
        return self.points, self.part("latency", self.latencies)["ms"]

    def branch(self, network: ParetoNetwork, target: Target) -> None:
        """Computes the points of one budget."""
        label = network.point(target)
        self.part(f"prune {label}", lambda: self.pruned(network, target), self.folder / ROUNDS / label)
        current = self.checkpoint(network, label)
        for kind, ending in self.task.stages:
            name = network.point(target, ending)
            if kind != "pruned":
                verb, train = (HEAL, self.healed) if kind == "healed" else (FINETUNE, self.finetuned)
                work = functools.partial(train, network, current, name)
                self.part(f"{verb} {label}", work, self.folder / TRAININGS / name)
                current = self.checkpoint(network, name)
            self.points.append(self.row(network, name, kind, f"{POINTS}/{name}.safetensors", current))

    def part(self, name: str, work: Callable[[], dict[str, Any]], folder: Path | None = None) -> dict[str, Any]:
        """The result of a part, computed now or recorded earlier, with its duration in seconds.

        Args:
            name: name of the part.
            work: computes the result.
            folder: folder that the work creates. If it exists already, an interrupted process has done part of the
                work.
        """

        def timed() -> dict[str, Any]:
            LOG.info(self.pace.line(name, self.progress.parts))
            start, begun = time.perf_counter(), folder is not None and folder.is_dir()
            return work() | {SECONDS: None if begun else time.perf_counter() - start}

        result: dict[str, Any] = self.progress.step(name, timed)
        return result

    def row(self, network: ParetoNetwork, label: str, kind: str, file: str, checkpoint: Checkpoint) -> dict[str, Any]:
        """One point without its milliseconds: cost, and scores on the val split."""

        def work() -> dict[str, Any]:
            scores = evaluate(checkpoint, network.context)
            LOG.info("%s: %s", label, scores.line())
            return {"model": describe(checkpoint, network.context.image_size), "scores": scores.record()}

        found = self.part(f"row {label}", work)
        return {"label": label, "network": network.label, "kind": kind, "file": file, **found}

    def shared(self, network: ParetoNetwork, target: Target) -> int:
        """The round of the shared sequence from which a budget continues; 0 for the smallest budget, or if it shares
        none.
        """
        if target is network.targets[0]:
            return 0
        rounds, smallest = self.task.options.rounds, network.targets[0].budget
        return shared_round(rounds, target.budget, smallest, network.reference)

    def pruned(self, network: ParetoNetwork, target: Target) -> dict[str, Any]:
        """Cuts to one budget, continuing from a shared round if possible."""
        label, descent = network.point(target), self.folder / ROUNDS / network.point(network.targets[0])
        folder = self.folder / ROUNDS / label
        folder.mkdir(parents=True, exist_ok=True)
        number = self.shared(network, target)
        state, plan_file = state_file(descent, number), folder / "plan.json"
        if number and state.is_file() and not state_file(folder).is_file():
            write_json(state_file(folder), read_json(state))
        known = Plan.from_dict(read_json(plan_file)) if plan_file.is_file() else None
        passed = {self.shared(network, other) for other in network.targets} - {0} if folder == descent else ()
        kept = Kept(folder, known, lambda plan, _: write_json(plan_file, plan.to_dict()), after=tuple(passed))
        settings = channel_settings(self.task.options, self.task.guards, target.text)
        checkpoint, pruned = prune(network.checkpoint, network.context, settings, kept)
        self.save(network, label, noting_weights(checkpoint, network.file))
        return {"notes": list(pruned.plan.notes)}

    def healed(self, network: ParetoNetwork, start: Checkpoint, label: str) -> dict[str, Any]:
        """Heals the network, or resumes an interrupted healing of the same folder."""
        folder = self.folder / TRAININGS / label
        result = heal(start, network.checkpoint, network.context, self.task.options.healing, folder)
        self.save(network, label, load_checkpoint(result.best))
        return {}

    def finetuned(self, network: ParetoNetwork, start: Checkpoint, label: str) -> dict[str, Any]:
        """Fine-tunes the network, or resumes an interrupted training of the same folder."""
        assert self.task.training is not None
        settings = dataclasses.replace(self.task.training, image_size=network.context.image_size)
        folder, methods = self.folder / TRAININGS / label, self.task.methods
        result = train_checkpoint(start, network.context, settings, folder, verb=FINETUNE, methods=methods)
        self.save(network, label, load_checkpoint(result.best))
        return {}

    def save(self, network: ParetoNetwork, label: str, checkpoint: Checkpoint) -> None:
        """Writes the files of a point: the checkpoint, and the family's own format."""
        file = self.folder / POINTS / f"{label}.safetensors"
        file.parent.mkdir(exist_ok=True)
        for line in save_result(checkpoint, file, network.context.image_size):
            LOG.info(line)

    def checkpoint(self, network: ParetoNetwork, label: str) -> Checkpoint:
        """The checkpoint of a completed point."""
        return load_checkpoint(self.folder / POINTS / f"{label}.safetensors")

    def latencies(self) -> dict[str, Any]:
        """Milliseconds of every dense and cut network, measured in interleaved rounds. All stages of one budget have
        the same shapes.
        """
        from secateur.deploy.speed.latency import latencies

        timed = {network.label: network.checkpoint for network in self.task.networks}
        for network in self.task.networks:
            for target in network.targets:
                timed[network.point(target)] = self.checkpoint(network, network.point(target))
        options, size = self.task.options, self.task.networks[0].context.image_size
        chosen, rounds = options.latency, options.timing_rounds
        return {"ms": latencies(timed, size, rounds=rounds, threads=chosen.threads, runtime=chosen.runtime)}

    def tidy(self) -> None:
        """Removes files that only an interrupted run needs."""
        shutil.rmtree(self.folder / ROUNDS, ignore_errors=True)
