"""The whole way in one resumable run: dense evaluation, sparse training, cut, repair, fine-tuning, export, table."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secateur.data.config import DataConfig, load_data_config
from secateur.detector.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from secateur.errors import UserError
from secateur.files import write_json
from secateur.pruning.settings import PruneSettings
from secateur.sparsity.settings import SparsifySettings
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
from secateur.stages.pruning import Decision, Work, check_settings, cut_channels, decide, repair, save_decision
from secateur.stages.recipe import Recipe, configured, load_recipe
from secateur.stages.starting import same_classes, starting_point
from secateur.stages.table import print_table, write_markdown
from secateur.stages.training import processes, sparse_train, train_stage
from secateur.training.hyp import load_hyp
from secateur.training.loop import FitResult
from secateur.training.settings import TrainSettings

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
    plan = settle(options, recipe, data)
    # Broken data is found now, not after an hour.
    for split in ("train", "val"):
        split_index(data, split, tell=True)
    settings = {k: v for k, v in dataclasses.asdict(options).items() if k not in {"place", "workers"}}
    files = tuple(Path(f) for f in (options.weights, options.data, options.hyp, options.recipe) if Path(f).is_file())
    ledger = Ledger.open(progress_root, options.place.name, fingerprint(settings, files))
    return Pipeline(options, data, plan, start, ledger).run()


@dataclass(frozen=True)
class Settled:
    """Every setting of the run after the recipe and the command line have been put together and checked."""

    dense: TrainSettings | None
    sparse: TrainSettings | None
    sparsify: SparsifySettings
    prune: PruneSettings
    finetune: TrainSettings | None
    export: bool


def settle(options: RunOptions, recipe: Recipe, data: DataConfig) -> Settled:
    """Puts the recipe and the options together; the options win."""
    where = f"recipe {recipe.name}"
    epochs = {"train": options.dense_epochs, "sparsify": options.sparse_epochs, "finetune": options.finetune_epochs}
    sparsify_fields = {field.name for field in dataclasses.fields(SparsifySettings)}

    def training(verb: str) -> TrainSettings | None:
        stage = recipe.stage(verb)
        chosen = epochs[verb] if epochs[verb] is not None else options.epochs
        if stage is None or chosen == 0:
            return None
        # Weights that know the classes are the user's trained model; without weights there is nothing trained yet.
        trained = bool(options.weights) and same_classes(load_checkpoint(options.weights), data.names)
        if stage.when == "classes-differ" and trained and options.dense_epochs is None:
            return None
        settings = {k: v for k, v in stage.settings.items() if verb != "sparsify" or k not in sparsify_fields}
        hyp = load_hyp(options.hyp or settings.pop("hyp", "scratch-low"))
        settings.pop("hyp", None)
        base = TrainSettings(
            image_size=options.image_size,
            batch_size=options.batch_size,
            seed=options.seed,
            workers=options.workers,
            hyp=hyp,
        )
        settings |= {"epochs": chosen} if chosen is not None else {}
        settings |= {"optimizer": options.optimizer} if options.optimizer else {}
        settings |= {"amp": options.amp} if options.amp != "auto" else {}
        return configured(base, settings, f"{where}, stage {verb}")

    prune = configured(PruneSettings(), prune_settings(options, recipe), where)
    sparse_settings = {k: v for k, v in recipe.settings_of("sparsify").items() if k in sparsify_fields}
    sparse_settings |= {"rate": options.rate} if options.rate is not None else {}
    check_settings(prune)
    return Settled(
        dense=training("train"),
        sparse=training("sparsify"),
        sparsify=configured(SparsifySettings(), sparse_settings, where),
        prune=prune,
        finetune=training("finetune"),
        export=recipe.stage("export") is not None,
    )


def prune_settings(options: RunOptions, recipe: Recipe) -> dict[str, Any]:
    """The recipe's settings of the cut under those of the command line; a user's budget replaces the recipe's."""
    settings = recipe.settings_of("prune")
    budget = {"percent": options.percent, "params": options.params, "flops": options.flops}
    given = {kind: value for kind, value in budget.items() if value not in (None, "")}
    if given:
        settings = {name: value for name, value in settings.items() if name not in budget}
    other = {"criterion": options.criterion, "round_to": options.round_to, "exclude": options.exclude}
    return settings | given | {name: value for name, value in other.items() if value not in (None, "", ())}


class Pipeline:
    """One run of a recipe: each method is a step whose files and result are on disk before the next one starts."""

    def __init__(
        self, options: RunOptions, data: DataConfig, settled: Settled, start: Checkpoint, ledger: Ledger
    ) -> None:
        self.options = options
        self.data = data
        self.settled = settled
        self.start = start
        self.ledger = ledger
        self.folder = ledger.folder
        self.work = Work(data, options.image_size, options.batch_size, options.workers, options.seed)
        self.rows: list[Row] = []

    def run(self) -> dict[str, Any]:
        """All steps in order; a step that the ledger knows is not done again."""
        LOG.info("Run folder: %s", self.folder)
        dense = self.dense()
        sparse = self.sparse(dense)
        decision = self.decide(sparse)
        self.step_row("cut", "cut, no repair", lambda: cut_channels(sparse, decision))
        prune = self.settled.prune
        repaired = self.step_row("repair", "cut + repair", lambda: repair(sparse, decision, self.work, prune))
        final = self.finetune(repaired)
        exported = self.export(final)
        self.latency(dense, final)
        return self.summary(final, exported)

    def dense(self) -> Checkpoint:
        """The trained dense detector: the user's weights, or trained here when they know other classes."""
        if self.settled.dense is None:
            return self.step_row("dense", "dense", lambda: self.start)
        settings = self.settled.dense
        folder = self.folder / "train"
        self.ledger.step(
            "train", lambda: noted(train_stage(self.start, self.data, settings, folder, verb="train", resume=True))
        )
        return self.step_row("dense", "dense", lambda: load_checkpoint(folder / "weights" / "best.safetensors"))

    def sparse(self, dense: Checkpoint) -> Checkpoint:
        """The dense detector after sparse training (the last average, for the best one may be the least sparse)."""
        settings = self.settled.sparse
        if settings is None:
            return dense
        folder = self.folder / "sparsify"
        self.ledger.step(
            "sparsify",
            lambda: noted(sparse_train(dense, self.data, settings, self.settled.sparsify, folder, resume=True)),
        )
        return self.step_row("sparse", "sparse", lambda: load_checkpoint(folder / "weights" / "last.safetensors"))

    def decide(self, sparse: Checkpoint) -> Decision:
        """The plan, and the cliff curve that shows where it lies."""

        def work() -> dict[str, Any]:
            decision, curve = decide(sparse, self.work, self.settled.prune)
            save_decision(self.folder, decision, curve)
            after = decision.plan.after
            return {"parameters": after.parameters, "flops": after.flops, "warning": curve.warning if curve else None}

        self.ledger.step("plan", work)
        return Decision.load(self.folder / "plan.json", sparse)

    def finetune(self, repaired: Checkpoint) -> Checkpoint:
        """The repaired detector after fine-tuning."""
        settings = self.settled.finetune
        if settings is None:
            return repaired
        folder = self.folder / "finetune"
        self.ledger.step(
            "finetune",
            lambda: noted(train_stage(repaired, self.data, settings, folder, verb="finetune", resume=True)),
        )
        return self.step_row("final", "fine-tuned", lambda: load_checkpoint(folder / "weights" / "best.safetensors"))

    def export(self, final: Checkpoint) -> dict[str, Any] | None:
        """The ONNX file of the final detector, checked against it."""
        if not self.settled.export:
            return None
        result: dict[str, Any] = self.ledger.step(
            "export", lambda: export_checked(final, self.folder / "final.onnx", self.options.image_size)
        )
        return result

    def latency(self, dense: Checkpoint, final: Checkpoint) -> None:
        """Milliseconds at batch 1 on this CPU, dense and final in turns, in ONNX Runtime where it is installed."""

        def measure() -> dict[str, float]:
            pair = {"dense": dense, "final": final}
            calls = session_calls(pair, self.options.image_size) or torch_calls(pair, self.options.image_size)
            return {name: value.median_ms for name, value in measure_latency(calls).latencies.items()}

        times = self.ledger.step("latency", measure)
        cuts = {"cut, no repair", "cut + repair", "fine-tuned"}
        for row in self.rows:
            row["latency_ms"] = times["final" if row["stage"] in cuts else "dense"]

    def step_row(self, step: str, title: str, make: Callable[[], Checkpoint]) -> Checkpoint:
        """Saves what `make` gives as STEP.safetensors, measures it on all evaluation splits, and notes its row."""
        file = self.folder / f"{step}.safetensors"

        def work() -> Row:
            checkpoint = make()
            save_checkpoint(checkpoint, file)
            row = self.measure(title, checkpoint, file)
            LOG.info("%s: mAP50 %.3f, mAP50-95 %.3f", title, row["metrics"]["mAP50"], row["metrics"]["mAP50-95"])
            return row

        self.rows.append(dict(self.ledger.step(step, work)))
        return load_checkpoint(file)

    def measure(self, title: str, checkpoint: Checkpoint, file: Path) -> Row:
        """Metrics on val, and on test where the data set has it, with the cost of the model."""
        plots = file.stem in {"dense", "final"}
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

    def summary(self, final: Checkpoint, exported: dict[str, Any] | None) -> dict[str, Any]:
        """Prints the table and writes summary.json and summary.md."""
        last = self.rows[-1]
        summary = {
            "command": "run",
            "folder": str(self.folder),
            "metrics": last["metrics"],
            "model": last["model"],
            "speed_ms": last["speed_ms"],
            "export": exported,
            "plan": self.ledger.steps["plan"],
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
