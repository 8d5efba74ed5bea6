"""The whole way in one resumable run: the stages of a recipe one after the other, a row of the table for each."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from secateur.data.config import DataConfig, load_data_config
from secateur.detector.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from secateur.distillation.pairing import check_pair
from secateur.errors import UserError
from secateur.evaluation.cost import count
from secateur.files import write_json
from secateur.pruning.budget import excluded_spaces
from secateur.pruning.graph import trace
from secateur.sparsity.one_shot import zero_weights
from secateur.stages.depth import remove_layers
from secateur.stages.evaluation import (
    describe,
    evaluate,
    measure_latency,
    split_index,
    torch_calls,
    usable_size,
    val_settings,
)
from secateur.stages.exporting import export_checked, session_calls
from secateur.stages.ledger import Ledger, fingerprint
from secateur.stages.options import RunOptions
from secateur.stages.pictures import draw_evaluation
from secateur.stages.pruning import Decision, Work, budgets_of, cut_channels, decide, repair, save_decision
from secateur.stages.recipe import load_recipe
from secateur.stages.settle import Step, budget_of_round, settle
from secateur.stages.sparsity import write_sparsity
from secateur.stages.starting import same_classes, starting_point
from secateur.stages.table import print_table, write_markdown
from secateur.stages.training import processes, train_stage
from secateur.training.loop import FitResult

LOG = logging.getLogger("secateur")

Row = dict[str, Any]


def run_pipeline(options: RunOptions, progress_root: Path) -> dict[str, Any]:
    """Runs (or goes on with) the recipe; returns the summary that is also written as summary.json and summary.md.

    Raises:
        UserError: bad options or input, found before anything is written where that is possible.
    """
    if processes()[1] > 1:
        raise UserError("secateur run works in one process; start secateur train and the other steps with torchrun.")
    data = load_data_config(options.data)
    recipe = load_recipe(options.recipe)
    start = starting_point(options.weights, options.cfg, data.names, options.seed)
    options = dataclasses.replace(options, image_size=usable_size(start, options.image_size))
    trained = bool(options.weights) and same_classes(load_checkpoint(options.weights), data.names)
    steps = settle(options, recipe, trained=trained)
    # Broken data is found now, not after an hour.
    for split in ("train", "val"):
        split_index(data, split, tell=True)
    check_start(steps, start)
    ledger = Ledger.open(progress_root, options.place.name, run_key(options, steps))
    return Pipeline(options, data, steps, start, ledger).run()


def run_key(options: RunOptions, steps: tuple[Step, ...]) -> str:
    """A digest of all that the results depend on: options, settled steps, and the content of every file they name."""
    settings = {k: v for k, v in dataclasses.asdict(options).items() if k not in {"place", "workers"}}
    # The number of processes that load images changes nothing.
    plain = [replace(s, training=replace(s.training, workers=0) if s.training else None) for s in steps]
    settings["steps"] = [dataclasses.asdict(step) for step in plain]
    named = [options.weights, options.data, options.cfg, *(step.methods.distill.teacher for step in steps)]
    return fingerprint(settings, tuple(Path(name) for name in named if name and Path(name).is_file()))


def check_start(steps: tuple[Step, ...], start: Checkpoint) -> None:
    """Looks for what would stop the run after hours: teachers that do not fit, layers that are not there.

    Raises:
        UserError: as the steps themselves would raise it.
    """
    student = start.detector()
    for step in steps:
        if step.methods.distill.teacher:
            check_pair(student, load_checkpoint(step.methods.distill.teacher).detector(), step.methods.distill.teacher)
        if step.prune.exclude and budgets_of(step.prune):
            excluded_spaces(trace(student), step.prune.exclude)


class Pipeline:
    """One run of a recipe: each method is a step whose files and result are on disk before the next one starts."""

    def __init__(
        self, options: RunOptions, data: DataConfig, steps: tuple[Step, ...], start: Checkpoint, ledger: Ledger
    ) -> None:
        self.options = options
        self.data = data
        self.steps = steps
        self.ledger = ledger
        self.folder = ledger.folder
        self.work = Work(data, options.image_size, options.batch_size, options.workers, options.seed)
        self.rows: list[Row] = []
        self.exported: dict[str, Any] | None = None
        self.dense = self.current = start

    def run(self) -> dict[str, Any]:
        """All steps in order; a step that the ledger knows is not done again."""
        LOG.info("Run folder: %s", self.folder)
        steps = list(self.steps)
        if steps and steps[0].verb == "train":
            self.train(steps.pop(0))
        else:
            self.row("dense", "dense", lambda: self.current)
        self.dense = self.current
        take = {"train": self.train, "finetune": self.train, "sparsify": self.sparsify, "prune": self.prune}
        for step in steps:
            if step.verb == "export":
                self.export(step)
            else:
                take[step.verb](step)
        # Under one name whatever the recipe ends with.
        save_checkpoint(self.current, self.folder / "final.safetensors")
        self.latency()
        return self.summary()

    def fit(self, step: Step) -> Path:
        """Trains the current detector as the step says; the folder of its weights."""
        folder = self.folder / (step.verb + step.mark)
        assert step.training is not None
        settings = step.training
        self.ledger.step(
            folder.name,
            lambda: noted(
                train_stage(
                    self.current,
                    self.data,
                    settings,
                    folder,
                    verb=step.verb,
                    methods=step.methods,
                    dense=self.dense,
                    resume=True,
                )
            ),
        )
        return folder / "weights"

    def train(self, step: Step) -> None:
        """A training whose best epoch counts: the dense one at the beginning, or a fine-tuning."""
        weights = self.fit(step)
        name = (
            "dense" if step.verb == "train" and not self.rows else f"{step.verb}ed".replace("finetuneed", "finetuned")
        )
        self.row(name + step.mark, step.title, lambda: load_checkpoint(weights / "best.safetensors"))

    def sparsify(self, step: Step) -> None:
        """Sparse training; its last average counts, for the best epoch may be the least sparse."""
        weights = self.fit(step)
        self.row("sparse" + step.mark, step.title, lambda: load_checkpoint(weights / "last.safetensors"))

    def prune(self, step: Step) -> None:
        """Bottlenecks go, then channels; or single weights are zeroed."""
        before, mark = self.current, step.mark
        if step.prune.unstructured:
            title = step.title.replace("cut", "weights zeroed", 1)
            self.row("zeroed" + mark, title, lambda: zero_weights(before, step.prune)[0])
            return
        if step.prune.layers:
            title = step.title.replace("cut", "layers removed", 1)
            self.row("layers" + mark, title, lambda: remove_layers(before, self.work, step.prune)[0])
        before = self.current
        if not budgets_of(step.prune):
            return
        cost = count(self.dense.detector(), self.options.image_size)
        prune = budget_of_round(step.prune, {"params": cost.parameters, "flops": cost.flops}, step)
        decision = self.decide(before, prune, mark)
        self.row("cut" + mark, f"{step.title}, no repair", lambda: cut_channels(before, decision))
        self.row("repair" + mark, f"{step.title} + repair", lambda: repair(before, decision, self.work, prune))

    def decide(self, before: Checkpoint, settings: Any, mark: str) -> Decision:
        """The plan, and the cliff curve that shows where it lies."""
        folder = self.folder / f"cliff{mark}" if mark else self.folder

        def work() -> dict[str, Any]:
            decision, curve = decide(before, self.work, settings, folder)
            save_decision(folder, decision, curve)
            after = decision.plan.after
            return {"parameters": after.parameters, "flops": after.flops, "warning": curve.warning if curve else None}

        self.ledger.step("plan" + mark, work)
        return Decision.load(folder / "plan.json", before)

    def export(self, step: Step) -> None:
        """The ONNX file of the current detector, checked against it."""
        file = self.folder / "final.onnx"
        options = {name: value for name, value in dataclasses.asdict(step.export).items() if name != "format"}
        self.exported = self.ledger.step(
            "export", lambda: export_checked(self.current, file, self.options.image_size, **options)
        )

    def latency(self) -> None:
        """Milliseconds at batch 1 on this CPU, dense and final in turns, in ONNX Runtime where it is installed."""

        def measure() -> dict[str, float]:
            pair = {"dense": self.dense, "final": self.current}
            calls = session_calls(pair, self.options.image_size) or torch_calls(pair, self.options.image_size)
            return {name: value.median_ms for name, value in measure_latency(calls).latencies.items()}

        times = self.ledger.step("latency", measure)
        sizes = {"dense": self.rows[0]["model"]["gflops"], "final": self.rows[-1]["model"]["gflops"]}
        for row in self.rows:
            # A row shares the time of the network whose shape it has; widths in between are not timed.
            same = next((name for name, size in sizes.items() if row["model"]["gflops"] == size), None)
            row["latency_ms"] = times[same] if same else None

    def row(self, step: str, title: str, make: Callable[[], Checkpoint]) -> None:
        """Saves what `make` gives as STEP.safetensors, measures it on all evaluation splits, and notes its row."""
        file = self.folder / f"{step}.safetensors"

        def work() -> Row:
            checkpoint = make()
            save_checkpoint(checkpoint, file)
            write_sparsity(self.folder / "evaluation" / step, checkpoint)
            row = self.measure(title, checkpoint, file)
            LOG.info("%s: mAP50 %.3f, mAP50-95 %.3f", title, row["metrics"]["mAP50"], row["metrics"]["mAP50-95"])
            return row

        self.rows.append(dict(self.ledger.step(step, work)))
        self.current = load_checkpoint(file)

    def measure(self, title: str, checkpoint: Checkpoint, file: Path) -> Row:
        """Metrics on val, and on test where the data set has it, with the cost of the model."""
        plots = not file.stem.startswith(("cut", "repair", "sparse"))
        settings = val_settings(self.options.image_size, self.options.workers, plots=plots)
        splits = [split for split in ("val", "test") if split in self.data.splits]
        results = {split: evaluate(checkpoint, self.data, split, settings) for split in splits}
        draw_evaluation(self.folder / "evaluation" / file.stem, results["val"])  # none without curves
        return {
            "stage": title,
            "metrics": results["val"].to_dict(),
            "test": results["test"].to_dict() if "test" in results else None,
            "per_class": results["val"].per_class_rows(),
            "model": describe(checkpoint, self.options.image_size, file),
            "speed_ms": results["val"].speed_ms,
        }

    def summary(self) -> dict[str, Any]:
        """Prints the table and writes summary.json and summary.md."""
        last = self.rows[-1]
        plans = [name for name in self.ledger.steps if name.startswith("plan")]
        summary = {
            "command": "run",
            "folder": str(self.folder),
            "metrics": last["metrics"],
            "model": last["model"],
            "speed_ms": last["speed_ms"],
            "export": self.exported,
            "plan": self.ledger.steps[plans[-1]] if plans else None,
            "table": self.rows,
        }
        write_json(self.folder / "summary.json", summary)
        write_markdown(self.folder / "summary.md", self.rows, f"Run {self.folder.name}, recipe {self.options.recipe}")
        print_table(self.rows)
        self.ledger.finish()
        print(f"Everything is in {self.folder}: final.safetensors, summary.md, plots of each stage.")
        return summary


def noted(result: FitResult) -> dict[str, Any]:
    """What the ledger keeps of a training."""
    return {"best_epoch": result.best_epoch, "epochs": result.epochs, "metrics": result.metrics}
