"""The sweep: percent, accuracy of the masked detector, parameters and GFLOPs, and where the cliff is; resumable."""

from __future__ import annotations

import csv
import dataclasses
import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from secateur.data.config import DataConfig, load_data_config
from secateur.detector.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from secateur.errors import UserError
from secateur.files import write_json, write_text
from secateur.pruning.budget import Guards, allocate
from secateur.pruning.cliff import Point, knee_of
from secateur.pruning.graph import ChannelGraph, trace
from secateur.pruning.importance import needs_gradients, score
from secateur.pruning.plan import Budget, Plan
from secateur.pruning.settings import PruneSettings
from secateur.pruning.surgery import mask
from secateur.report.figures import plots_available
from secateur.report.sweep_plots import plot_sweep
from secateur.stages.evaluation import check_classes, describe, evaluate, split_index, usable_size, val_settings
from secateur.stages.ledger import Ledger, fingerprint
from secateur.stages.places import finish, require, root_of
from secateur.stages.pruning import Decision, Work, check_settings, cut_channels, gather, repair
from secateur.stages.sweep_options import SweepOptions, ratios_of
from secateur.stages.training import processes, train_stage
from secateur.training.hyp import load_hyp
from secateur.training.settings import TrainSettings

LOG = logging.getLogger("secateur")

Row = dict[str, Any]
EQUAL = 0.001
"""Largest difference of mAP50 at which the cut detector counts as equal to the masked one."""


def sweep(options: SweepOptions) -> dict[str, Any]:
    """`secateur sweep`: writes sweep.csv, sweep.json and sweep.png, prints the table and returns the summary.

    Every row is one percent of channels removed, by one global threshold on the scores; its accuracy is that of the
    full-size detector whose channels are silenced (`mask`), on the whole val split. Fine-tuning always starts from the
    cut detector after repair. A killed sweep goes on with the same command: rows and trainings are steps of a ledger.

    Raises:
        UserError: bad options or input, found before anything is written.
    """
    if processes()[1] > 1:
        raise UserError("secateur sweep works in one process; start it without torchrun.")
    weights = require(options.weights, "--weights", "best.pt")
    data = load_data_config(require(options.data, "--data", "data.yaml"))
    checkpoint = load_checkpoint(weights)
    check_classes(checkpoint, data, weights)
    options = dataclasses.replace(options, image_size=usable_size(checkpoint, options.image_size))
    ratios = ratios_of(options.percent)
    task = _settle(options, ratios, checkpoint, data)
    record = dataclasses.asdict(options) | {"percent": ratios, "command": "sweep"}
    settings = {name: value for name, value in record.items() if name not in {"place", "workers"}}
    files = tuple(Path(name) for name in (weights, options.data, options.hyp) if Path(name).is_file())
    ledger = Ledger.open(root_of(options.place, "sweep"), options.place.name, fingerprint(settings, files))
    return Sweep(task, ledger).run()


@dataclass(frozen=True)
class Task:
    """What a sweep measures, checked."""

    options: SweepOptions
    ratios: tuple[float, ...]
    checkpoint: Checkpoint
    data: DataConfig
    graph: ChannelGraph
    prune: PruneSettings
    guards: Guards
    training: TrainSettings | None

    @property
    def work(self) -> Work:
        """What scoring and repair read."""
        options = self.options
        return Work(self.data, options.image_size, options.batch_size, options.workers, options.seed)

    @property
    def cut(self) -> bool:
        """Whether the cut detector has a column."""
        return self.options.cut or self.options.repair


def _settle(options: SweepOptions, ratios: tuple[float, ...], checkpoint: Checkpoint, data: DataConfig) -> Task:
    """Checks options and data without writing anything."""
    if options.finetune_epochs < 0:
        raise UserError(f"--finetune-epochs {options.finetune_epochs} must be at least 0.")
    prune = PruneSettings(
        percent=ratios[0],
        criterion=options.criterion,
        min_share=options.min_share,
        round_to=options.round_to,
        exclude=tuple(options.exclude),
    )
    _, guards = check_settings(prune)
    # Made in any case: it also checks batch size, workers and seed.
    training = TrainSettings(
        epochs=max(options.finetune_epochs, 1),
        batch_size=options.batch_size,
        image_size=options.image_size,
        seed=options.seed,
        workers=options.workers,
        hyp=load_hyp(options.hyp),
    )
    graph = trace(checkpoint.detector())
    # Any scores show whether the guards and the excluded layers are possible ones.
    allocate(graph, np.arange(float(graph.units)), Budget("percent", ratios[0]), guards, strict=False)
    trained = options.finetune_epochs > 0
    split_index(data, "val", tell=True)
    if trained or options.repair or needs_gradients(options.criterion):
        split_index(data, "train", tell=True)
    return Task(options, ratios, checkpoint, data, graph, prune, guards, training if trained else None)


class Sweep:
    """One sweep: each evaluation and each training is a step of the ledger."""

    def __init__(self, task: Task, ledger: Ledger) -> None:
        self.task = task
        self.ledger = ledger
        self.folder = ledger.folder
        self.settings = val_settings(task.options.image_size, task.options.workers)

    def run(self) -> dict[str, Any]:
        """All rows in order, the dense detector first, then the table."""
        LOG.info("Run folder: %s", self.folder)
        rows = [self.dense()]
        for ratio, plan in zip(self.task.ratios, self.plans(), strict=True):
            rows.append(self.row(ratio, plan))
        points = [
            Point(row["removed"], row["mAP50"], row["mAP50-95"], row["parameters"], int(1e9 * row["gflops"]))
            for row in rows
        ]
        return self.summary(rows, knee_of(points))

    def dense(self) -> Row:
        """The row of the detector as it came."""
        model = self.ledger.step("model", lambda: describe(self.task.checkpoint, self.task.options.image_size))
        metrics = self.measure("dense", self.task.checkpoint)
        LOG.info("dense: mAP50 %.3f, mAP50-95 %.3f", metrics["mAP50"], metrics["mAP50-95"])
        return _row(0.0, 0.0, metrics, model["parameters"], model["gflops"])

    def plans(self) -> list[Plan]:
        """A plan a ratio, all from one scoring; where the guards end before the ratio, the most that they allow."""

        def work() -> list[dict[str, Any]]:
            task, detector = self.task, self.task.checkpoint.detector()
            statistics = gather(detector, task.graph, task.work, task.prune)
            scores = score(task.options.criterion, task.graph, statistics, seed=task.options.seed)
            size, name = task.options.image_size, task.options.criterion
            return [
                allocate(
                    task.graph,
                    scores,
                    Budget("percent", ratio),
                    task.guards,
                    image_size=size,
                    criterion=name,
                    strict=False,
                ).to_dict()
                for ratio in task.ratios
            ]

        return [Plan.from_dict(data) for data in self.ledger.step("plans", work)]

    def row(self, ratio: float, plan: Plan) -> Row:
        """One percent: masked, and on request cut and fine-tuned."""
        task, percent = self.task, f"{100 * ratio:g}"
        silenced = Checkpoint.of(mask(task.checkpoint.detector(), task.graph, plan), like=task.checkpoint)
        metrics = self.measure(f"masked-{percent}", silenced)
        LOG.info("%s %%: mAP50 %.3f, mAP50-95 %.3f", percent, metrics["mAP50"], metrics["mAP50-95"])
        row = _row(ratio, plan.removed_share, metrics, plan.after.parameters, plan.after.flops / 1e9)
        decision = Decision(plan, task.graph)
        if task.cut:
            row |= _columns("cut", self.measure(f"cut-{percent}", self.smaller(decision, task.options.repair)))
        if task.training is not None:
            row |= _columns("tuned", self.finetuned(percent, decision, task.training))
        return row

    def smaller(self, decision: Decision, repaired: bool) -> Checkpoint:
        """The really cut detector."""
        task = self.task
        if repaired:
            return repair(task.checkpoint, decision, task.work, task.prune)
        return cut_channels(task.checkpoint, decision)

    def finetuned(self, percent: str, decision: Decision, training: TrainSettings) -> dict[str, float]:
        """Metrics of the cut and repaired detector after its training; that goes on by itself where it was killed."""
        folder = self.folder / f"finetune-{percent}"
        start = folder / "start.safetensors"

        def train() -> dict[str, Any]:
            if not start.exists():
                save_checkpoint(self.smaller(decision, repaired=True), start)
            result = train_stage(load_checkpoint(start), self.task.data, training, folder, verb="finetune", resume=True)
            return {"best_epoch": result.best_epoch, "best": str(result.best.relative_to(folder))}

        trained = self.ledger.step(f"finetune-{percent}", train)
        return self.measure(f"tuned-{percent}", load_checkpoint(folder / trained["best"]))

    def measure(self, step: str, checkpoint: Checkpoint) -> dict[str, float]:
        """P, R, mAP50 and mAP50-95 on the val split, as a step of the ledger."""
        metrics: dict[str, float] = self.ledger.step(
            step, lambda: evaluate(checkpoint, self.task.data, "val", self.settings).to_dict()
        )
        return metrics

    def summary(self, rows: list[Row], knee: float | None) -> dict[str, Any]:
        """Writes the files and prints the table."""
        cliff = cliff_row(rows, knee)
        write_text(self.folder / "sweep.csv", csv_text(rows))
        options = self.task.options
        about = {"weights": options.weights, "criterion": options.criterion, "image_size": options.image_size}
        cliff_percent = rows[cliff]["percent"] if cliff is not None else None
        write_json(self.folder / "sweep.json", about | {"knee": knee, "cliff": cliff_percent, "rows": rows})
        if plots_available():
            plot_sweep(rows, self.folder / "sweep.png", knee=rows[cliff]["removed"] if cliff is not None else None)
        lines = [sweep_table(rows, cliff), _cliff_sentence(rows, knee, cliff)]
        if options.cut and not options.repair:
            lines.append(_equality(rows))
        print("\n".join(lines))
        dense = self.ledger.steps
        result = finish(
            self.folder,
            {
                "command": "sweep",
                "metrics": dense["dense"],
                "model": dense["model"],
                "speed_ms": {},
                "knee": knee,
                "cliff": cliff_percent,
                "table": rows,
            },
        )
        self.ledger.finish()
        print(f"Table and plot are in {self.folder}: sweep.csv, sweep.json, sweep.png.")
        return result


def _row(percent: float, removed: float, metrics: dict[str, float], parameters: int, gflops: float) -> Row:
    values = {name: metrics[name] for name in ("mAP50", "mAP50-95")}
    return {"percent": percent, "removed": removed, **values, "parameters": parameters, "gflops": gflops}


def _columns(kind: str, metrics: dict[str, float]) -> Row:
    return {f"{kind}_{name}": metrics[name] for name in ("mAP50", "mAP50-95")}


def cliff_row(rows: Sequence[Row], knee: float | None) -> int | None:
    """Number of the last row before accuracy falls steeply; None where it falls nowhere (or is nought everywhere)."""
    number = next((i for i, row in enumerate(rows) if row["removed"] == knee), None)
    return number if number is not None and rows[-1]["removed"] > rows[number]["removed"] else None


def csv_text(rows: Sequence[Row]) -> str:
    """The table as CSV; the dense row has no values in the columns of cut and fine-tuned detectors."""
    names = list(rows[-1])
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def sweep_table(rows: Sequence[Row], cliff: int | None) -> str:
    """The table as text: one line a percent, the cliff marked, clamped ones with what really goes."""
    extra = {"cut_mAP50": "cut mAP50", "tuned_mAP50": "tuned mAP50", "tuned_mAP50-95": "tuned mAP50-95"}
    shown = {key: title for key, title in extra.items() if key in rows[-1]}
    titles = f"{'percent':>8} {'mAP50':>7} {'mAP50-95':>9} {'params (M)':>11} {'GFLOPs':>8}"
    lines = [" ".join([titles, *(f"{title:>{len(title)}}" for title in shown.values())])]
    for number, row in enumerate(rows):
        percent = f"{row['percent']:.1%}" if row["percent"] else "dense"
        cells = f"{percent:>8} {row['mAP50']:>7.3f} {row['mAP50-95']:>9.3f} {row['parameters'] / 1e6:>11.3f} "
        cells += f"{row['gflops']:>8.2f}"
        for key, title in shown.items():
            cells += f" {row[key]:>{len(title)}.3f}" if key in row else f" {'-':>{len(title)}}"
        if abs(row["removed"] - row["percent"]) > 0.005:
            cells += f"  (guards: {row['removed']:.1%} removed)"
        lines.append(cells + ("  <- cliff" if number == cliff else ""))
    return "\n".join(lines)


def _cliff_sentence(rows: Sequence[Row], knee: float | None, cliff: int | None) -> str:
    if knee is None:
        return "The dense detector detects nothing on the val split, so there is no cliff to find."
    if cliff is None:
        return f"No cliff up to {rows[-1]['removed']:.0%}: accuracy falls nowhere steeply."
    return f"The cliff: past {rows[cliff]['removed']:.1%} of channels accuracy falls steeply."


def _equality(rows: Sequence[Row]) -> str:
    """Whether the cut detectors do what the masked ones do."""
    largest = max(abs(row["cut_mAP50"] - row["mAP50"]) for row in rows if "cut_mAP50" in row)
    if largest <= EQUAL:
        return f"The cut detectors equal the masked ones (mAP50 differs by at most {largest:.5f})."
    return f"The cut detectors differ from the masked ones: mAP50 by up to {largest:.5f}."
