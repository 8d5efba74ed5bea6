"""Trains with the trainers of the package in a run folder of Secateur: widths are kept, hooks act on their
optimizer."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from secateur.errors import UserError, told
from secateur.families.training import OwnTraining
from secateur.families.ultralytics.architecture import Ultralytics
from secateur.families.ultralytics.driving.data import caches_in_memory, kept_threads
from secateur.families.ultralytics.driving.options import trainer_options
from secateur.families.ultralytics.driving.trainer_hooks import TrainerHooks
from secateur.families.ultralytics.network import UltralyticsNetwork
from secateur.families.ultralytics.package import needed
from secateur.families.ultralytics.reading import fields_of, read_file
from secateur.families.ultralytics.trainer import trainer_named
from secateur.families.ultralytics.writing import TRAINERS, write_file
from secateur.files import atomic_write
from secateur.networks.checkpoint import Checkpoint, save_checkpoint
from secateur.training.loop import FitResult
from secateur.training.results import EpochRow
from secateur.training.state import STATE_FILE, read_state, write_state

TEACHER = "teacher.pt"
"""Copy of the teacher in the run folder, for resuming the training."""


def trained_by_the_package(training: OwnTraining) -> FitResult:
    """Trains with the trainer of the package, or resumes in the folder; see `families.training.OwnTraining`.

    The folder also gets the files of the package (args.yaml, results.csv, plots, weights/best.pt and last.pt). A
    resumed training continues after the last completed epoch. The package does not save its random state, so the result
    is not bit-identical to an uninterrupted training.

    Raises:
        UserError: the package does not support an option, or rejects the data.
    """
    network = training.start.build()
    assert isinstance(network, UltralyticsNetwork)
    options, weights = trainer_options(training, network), training.folder / "weights"
    state = read_state(training.folder) if (training.folder / STATE_FILE).is_file() else None
    if state is not None:
        training.identity.check(training.folder, state)
    if state is None or not state["finished"]:
        # If the training was killed before the first file was written, there is nothing to resume.
        _train(training, network, options, state if (weights / "last.pt").is_file() else None)
        state = read_state(training.folder)
    names = {"last": "last.pt", "best": "best.pt" if (weights / "best.pt").is_file() else "last.pt"}
    saved = {name: weights / f"{name}.safetensors" for name in names}
    for name, file in names.items():
        if not saved[name].is_file():
            save_checkpoint(_as_checkpoint(training, weights / file, state), saved[name])
    rows = _rows(training.folder / "results.csv")
    best, epochs = int(state["best_epoch"]), int(state["epoch"]) + 1
    figures = {name: value for name, value in rows.get(best, {}).items() if name.startswith("metrics/")}
    return FitResult(
        saved["best"], saved["last"], best, figures, epochs, tuple(rows.values()), float(state["best_fitness"])
    )


def _train(training: OwnTraining, network: UltralyticsNetwork, options: dict[str, Any], state: Any) -> None:
    """Runs the training; output of the package goes to stderr."""
    last, ended = training.folder / "weights" / "last.pt", False
    if state is not None:
        # Read as data first, so that a file with foreign code is rejected here.
        epoch = int(fields_of(last)["epoch"])
        ended = epoch < 0 or epoch + 1 >= training.settings.epochs
        options = {**options, "resume": str(last)}
    if training.teacher is not None:
        options["distill_model"] = str(_teacher_file(training.teacher, training.folder, int(options["imgsz"])))
    with contextlib.redirect_stdout(sys.stderr), caches_in_memory(), kept_threads(), _safe_loading():
        if ended:  # it was killed after the last epoch was saved
            strip = needed("utils.torch_utils").strip_optimizer
            for file in (last, last.with_name("best.pt")):
                if file.is_file():
                    strip(file)
        else:
            trainer = _trainer(training, network, options, state)
            try:
                trainer.train()
            except (AssertionError, FileNotFoundError, KeyError, RuntimeError, TypeError, ValueError) as error:
                raise UserError(f"The training by the package ultralytics failed: {told(error, 300)}") from error
    write_state(training.folder, {**read_state(training.folder), "finished": True})


def _trainer(training: OwnTraining, network: UltralyticsNetwork, options: dict[str, Any], state: Any) -> Any:
    """The trainer of the package for the task, with atomic file writes and the state of Secateur."""
    parent = trainer_named(TRAINERS[network.architecture.task])
    hooked = TrainerHooks(training, network, state)

    def save_model(self: Any) -> Any:
        """Writes each file to a temporary name first, so that a kill leaves the previous files intact."""
        places = {"best": self.best, "last": self.last}
        hooked.save(self, better=self.best_fitness == self.fitness)
        for name, place in places.items():
            setattr(self, name, place.with_name(f"{name}.new.pt"))
        try:
            done = parent.save_model(self)
            for name in places:  # last.pt records the completed epoch, so it is written last
                if getattr(self, name).is_file():
                    getattr(self, name).replace(places[name])
        finally:
            self.best, self.last = places["best"], places["last"]
        return done

    def validate(self: Any) -> Any:
        """An epoch at whose end a method has not reached its target cannot be the best."""
        before = self.best_fitness
        metrics, fitness = parent.validate(self)
        if metrics is not None and not hooked.ready(self):
            self.best_fitness, fitness = before, hooked.NOT_READY
        return metrics, fitness

    kind = type("DrivenTrainer", (parent,), {"save_model": save_model, "validate": validate})
    try:
        trainer = kind(overrides=options)
    except (FileNotFoundError, KeyError, RuntimeError, SyntaxError, TypeError, ValueError) as error:
        raise UserError(f"The package ultralytics cannot train on {training.data.file}: {told(error, 300)}") from error
    for event, act in hooked.events():
        trainer.add_callback(event, act)
    if state is None:
        trainer.model = trainer.get_model(weights=network.model)
    return trainer


@contextlib.contextmanager
def _safe_loading() -> Iterator[None]:
    """Makes the package load only known types from a file, if its version supports it."""
    module = needed("nn.tasks")
    before = getattr(module, "SAFE_LOAD", None)
    if before is not None:
        module.SAFE_LOAD = True
    try:
        yield
    finally:
        if before is not None:
            module.SAFE_LOAD = before


def _teacher_file(teacher: Checkpoint, folder: Path, image_size: int) -> Path:
    file = folder / TEACHER
    if not file.is_file():
        network: Any = teacher.build().float().eval()
        with atomic_write(file) as temporary:
            write_file(network, temporary, image_size)
    return file


def _as_checkpoint(training: OwnTraining, file: Path, state: Any) -> Checkpoint:
    """The file saved by the package as a checkpoint, with the history, plan and masks of its start."""
    found, architecture = read_file(file), training.start.architecture
    assert isinstance(architecture, Ultralytics) and isinstance(found.architecture, Ultralytics)
    rows = _rows(training.folder / "results.csv")
    notes = {"settings": training.settings.to_dict(), "results": rows.get(int(state["best_epoch"]), {})}
    return dataclasses.replace(
        training.start,
        architecture=dataclasses.replace(architecture, numbers=found.architecture.numbers),
        tensors=found.tensors,
        masks=state["masks"] or training.start.masks,
        training={**notes, "source": "ultralytics"},
        image_size=training.settings.image_size,
    )


def _rows(file: Path) -> dict[int, EpochRow]:
    """The rows of results.csv of the package by epoch, from 0; for a repeated epoch, the last row."""
    if not file.is_file():
        return {}
    with file.open(encoding="utf-8", newline="") as lines:
        rows = [{key.strip(): float(value) for key, value in row.items()} for row in csv.DictReader(lines)]
    return {int(row["epoch"]) - 1: {**row, "epoch": row["epoch"] - 1} for row in rows}
