"""The sweep: accuracy of the masked detector, parameters and GFLOPs against the pruning ratio, and the position of the
cliff. Resumable.
"""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from typing import Any

import numpy as np

from secateur.checkpoints.channels import check_criterion, cut_channels, repair
from secateur.checkpoints.training import contents, train_checkpoint
from secateur.data.images import check_image_channels
from secateur.deploy.speed.rounding import decided_guards
from secateur.evaluation.record import save_record
from secateur.families.context import Context, known_data
from secateur.families.evaluation import describe, evaluate, usable_size, val_settings
from secateur.families.evidence import FamilyEvidence
from secateur.families.family import family_of
from secateur.families.hyp import load_hyp
from secateur.families.loading import load_checkpoint
from secateur.files import write_json, write_text
from secateur.machine import pick_device
from secateur.networks.checkpoint import Checkpoint, save_checkpoint
from secateur.pruning.allocation import allocate
from secateur.pruning.budget import Budget
from secateur.pruning.cliff import Point, knee_of
from secateur.pruning.graph import ChannelGraph, trace
from secateur.pruning.importance import needs_gradients
from secateur.pruning.options import LatencySettings
from secateur.pruning.plan import Plan
from secateur.pruning.prune import scored
from secateur.pruning.settings import Guards, RepairSettings
from secateur.pruning.surgery import mask
from secateur.ranges import check_ranges
from secateur.report.figures import plots_available
from secateur.report.page import PAGE, leave_page
from secateur.report.sweep import cliff_row, cliff_sentence, csv_text, equality_sentence, plot_sweep, sweep_table
from secateur.runs.about import note_about
from secateur.runs.ending.next_line import after_sweep, say
from secateur.runs.folders import Summary, require
from secateur.runs.pipeline import one_process
from secateur.runs.progress import Progress, key_of
from secateur.runs.sweep_options import SweepOptions, ratios_of
from secateur.scores import Scores
from secateur.terminal import stage
from secateur.training.settings import TrainSettings

LOG = logging.getLogger("secateur")

SweepRow = dict[str, Any]


def sweep(options: SweepOptions) -> Summary:
    """`secateur sweep`: writes sweep.csv, sweep.json and sweep.png, prints the table and returns the summary.

    Each row removes one percentage of channels by one global threshold on the scores. Its accuracy is that of the
    full-size detector with these channels masked (`mask`), on the complete val split. Fine-tuning always starts from
    the cut and repaired detector. An interrupted sweep is resumed by the same command.

    Raises:
        UserError: options or input are invalid; checked before anything is written.
    """
    one_process("sweep")
    check_ranges(options)
    weights = require(options.weights, "--weights", "best.pt")
    data_file = require(options.data, "--data", "data.yaml")
    checkpoint = load_checkpoint(weights)
    data = known_data(checkpoint, family_of(checkpoint).open_data(data_file), weights)
    image_size = usable_size(checkpoint, options.image_size)
    device = pick_device(options.device)
    context = Context(image_size, device, data, options.batch_size, options.workers, options.seed, dense=checkpoint)
    task = _checked(options, checkpoint, context)
    with Progress.open(options.place.root("sweep"), options.place.name, _key(task)) as progress:
        note_about(progress.folder, "sweep", options, checkpoint, context)
        return Sweep(task, progress).run()


@dataclass(frozen=True)
class SweepTask:
    """The checked inputs of a sweep."""

    options: SweepOptions
    ratios: tuple[float, ...]
    checkpoint: Checkpoint
    context: Context
    graph: ChannelGraph
    guards: Guards
    training: TrainSettings | None

    @property
    def cut(self) -> bool:
        """Whether there is a column for the cut detector."""
        return self.options.cut or self.options.repair


def _checked(options: SweepOptions, checkpoint: Checkpoint, context: Context) -> SweepTask:
    """Checks options and data without writing anything."""
    check_image_channels(checkpoint.architecture.channels)
    ratios = ratios_of(options.percent)
    check_criterion(checkpoint, context, options.score)
    # Created in any case, because this also checks batch size, workers and seed.
    training = TrainSettings(
        epochs=max(options.finetune_epochs, 1),
        batch_size=options.batch_size,
        image_size=context.image_size,
        seed=options.seed,
        workers=options.workers,
        device=options.device,
        hyp=load_hyp(options.hyp),
    )
    graph = trace(checkpoint.build())
    data, trained = context.require_data("A sweep"), options.finetune_epochs > 0
    family = family_of(checkpoint)
    family.split(data, "val", tell=True)
    labels = trained or needs_gradients(options.score.criterion)
    if labels or options.repair:
        family.split(data, "train", tell=True, objects=labels)
    # The last check, because --round-to auto may take half a minute. Whether the guards can be met does not depend on
    # the scores.
    guards = decided_guards(options.guards, LatencySettings())
    allocate(graph, np.arange(float(graph.units)), _budget(ratios[0]), guards, strict=False)
    return SweepTask(options, ratios, checkpoint, context, graph, guards, training if trained else None)


def _budget(ratio: float) -> Budget:
    return Budget("percent", ratio, share=True)


def _key(task: SweepTask) -> dict[str, str]:
    """Everything that the results depend on, by name."""
    options, context = task.options, task.context
    record = dataclasses.asdict(options) | {"percent": task.ratios, "image_size": context.image_size}
    record["guards"] = dataclasses.asdict(task.guards)
    del record["place"]
    data = context.require_data("A sweep")
    family, names = family_of(task.checkpoint), [name for name in ("train", "val") if name in data.splits]
    found = contents({name: family.split(data, name, objects=False) for name in names})
    return key_of(record, found, (options.weights, options.data, options.hyp))


class Sweep:
    """One sweep. Each evaluation and each training is a part that runs once."""

    def __init__(self, task: SweepTask, progress: Progress) -> None:
        self.task = task
        self.progress = progress
        self.folder = progress.folder
        self.points: list[Point] = []

    def run(self) -> dict[str, Any]:
        """Computes all rows in order, the dense detector first, then the table."""
        LOG.info("Run folder: %s", self.folder)
        self.points.clear()
        names, count = [f"{100 * ratio:g} %" for ratio in self.task.ratios], len(self.task.ratios) + 1
        with stage("dense", 1, count, names):
            rows = [self.dense()]
            plans = self.plans()
        for number, (ratio, plan) in enumerate(zip(self.task.ratios, plans, strict=True)):
            with stage(names[number], number + 2, count, names[number + 1 :]):
                rows.append(self.row(ratio, plan))
        return self.summary(rows, knee_of(self.points))

    def dense(self) -> SweepRow:
        """The row of the dense detector."""
        model = self.progress.step("model", lambda: describe(self.task.checkpoint, self.task.context.image_size))
        scores = self.measure("dense", self.task.checkpoint, keep=True)
        LOG.info("dense: %s", scores.line())
        return self.point(0.0, 0.0, scores, model["parameters"], model["gflops"])

    def plans(self) -> list[Plan]:
        """One plan per ratio, all from one scoring. If the guards do not allow a ratio, its plan removes as much as
        they allow.
        """

        def work() -> list[dict[str, Any]]:
            task = self.task
            detector = task.checkpoint.build().to(task.context.device)
            evidence = FamilyEvidence.of(task.context, detector)
            scores = scored(detector, task.graph, evidence, task.options.score, task.context.seed)
            size, name = task.context.image_size, task.options.score.criterion
            return [
                allocate(
                    task.graph,
                    scores,
                    _budget(ratio),
                    task.guards,
                    image_size=size,
                    criterion=name,
                    strict=False,
                ).to_dict()
                for ratio in task.ratios
            ]

        return [Plan.from_dict(data) for data in self.progress.step("plans", work)]

    def row(self, ratio: float, plan: Plan) -> SweepRow:
        """The row of one ratio: masked, and cut and fine-tuned if requested."""
        task, percent = self.task, f"{100 * ratio:g}"
        silenced = Checkpoint.of(mask(task.checkpoint.build(), task.graph, plan), like=task.checkpoint)
        scores = self.measure(f"masked-{percent}", silenced)
        LOG.info("%s %%: %s", percent, scores.line())
        row = self.point(ratio, plan.removed_share, scores, plan.after.parameters, plan.after.flops / 1e9)
        if task.cut:
            row |= _judging(self.measure(f"cut-{percent}", self.smaller(plan, task.options.repair), keep=True), "cut_")
        if task.training is not None:
            row |= _judging(self.finetuned(percent, plan, task.training), "tuned_")
        return row

    def smaller(self, plan: Plan, repaired: bool) -> Checkpoint:
        """The cut detector."""
        task = self.task
        if repaired:
            return repair(task.checkpoint, task.graph, plan, task.context, RepairSettings())
        return cut_channels(task.checkpoint, task.graph, plan)

    def finetuned(self, percent: str, plan: Plan, training: TrainSettings) -> Scores:
        """Scores of the cut and repaired detector after fine-tuning, which resumes by itself after an interruption."""
        folder = self.folder / f"finetune-{percent}"
        start = folder / "start.safetensors"

        def train() -> dict[str, Any]:
            if not start.exists():
                save_checkpoint(self.smaller(plan, repaired=True), start)
            result = train_checkpoint(load_checkpoint(start), self.task.context, training, folder, verb="finetune")
            return {"best_epoch": result.best_epoch, "best": str(result.best.relative_to(folder))}

        trained = self.progress.step(f"finetune-{percent}", train)
        return self.measure(f"tuned-{percent}", load_checkpoint(folder / trained["best"]), keep=True)

    def point(self, percent: float, removed: float, scores: Scores, parameters: int, gflops: float) -> SweepRow:
        """The row of a masked detector, which is also a point of the curve whose knee is the cliff."""
        self.points.append(Point(removed, scores, parameters, int(1e9 * gflops)))
        row: SweepRow = {"percent": percent, "removed": removed}
        return row | _judging(scores) | {"parameters": parameters, "gflops": gflops}

    def measure(self, step: str, checkpoint: Checkpoint, *, keep: bool = False) -> Scores:
        """Scores on the val split, as a part that runs once; `keep` also writes the detections."""

        def work() -> dict[str, Any]:
            context = self.task.context
            scores = evaluate(checkpoint, context, settings=val_settings(context, detections=keep))
            save_record(self.folder / "evaluation" / step, scores)
            return scores.record()

        return Scores.from_record(self.progress.step(step, work))

    def summary(self, rows: list[SweepRow], knee: float | None) -> dict[str, Any]:
        """Writes the files, prints the table, and returns the summary."""
        cliff, dense = cliff_row(rows, knee), self.points[0].scores
        judged_by = dense.judged_by
        write_text(self.folder / "sweep.csv", csv_text(rows))
        options = self.task.options
        about = {
            "weights": options.weights,
            "criterion": options.score.criterion,
            "image_size": self.task.context.image_size,
        }
        cliff_percent = rows[cliff]["percent"] if cliff is not None else None
        write_json(self.folder / "sweep.json", about | {"knee": knee, "cliff": cliff_percent, "rows": rows})
        if plots_available():
            plot_sweep(
                rows, judged_by, self.folder / "sweep.png", knee=rows[cliff]["removed"] if cliff is not None else None
            )
        lines = [sweep_table(rows, judged_by, cliff), cliff_sentence(rows, knee, cliff)]
        if options.cut and not options.repair:
            lines.append(equality_sentence(rows, judged_by[0]))
        print("\n".join(lines))
        result = self.progress.finish(
            {
                "command": "sweep",
                "metrics": dense.to_dict(),
                "model": self.progress.parts["model"],
                "speed_ms": {},
                "knee": knee,
                "cliff": cliff_percent,
                "table": rows,
            }
        )
        page = f", {PAGE}" if leave_page(self.folder) else ""
        print(f"Wrote table and plot to {self.folder}: sweep.csv, sweep.json, sweep.png{page}.")
        say(after_sweep(options.weights, options.data, cliff_percent))
        return result


def _judging(scores: Scores, prefix: str = "") -> SweepRow:
    """The metrics of `judged_by` as columns."""
    return {f"{prefix}{name}": scores.values[name] for name in scores.judged_by}
