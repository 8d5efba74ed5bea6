"""A single training in its own folder: start, resume, and the final summary in YOLOv5's layout."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

from secateur.checkpoints.training import contents
from secateur.errors import Interrupted, UserError, told
from secateur.evaluation.record import save_record
from secateur.families.context import Context, as_one_class, with_its_classes
from secateur.families.evaluation import describe, evaluate, usable_size, val_settings
from secateur.families.family import family_of
from secateur.families.loading import load_checkpoint
from secateur.families.reading import DataSet
from secateur.files import read_json, usable_path, write_json
from secateur.machine import pick_device
from secateur.networks.checkpoint import Checkpoint, save_checkpoint
from secateur.report.page import PAGE, leave_page
from secateur.report.run_folder_plots import draw_evaluation
from secateur.runs.about import note_about
from secateur.runs.beginning import beginning
from secateur.runs.ending.next_line import after_training, say
from secateur.runs.folders import OutputOptions, Summary, newest_run, require
from secateur.runs.progress import Progress, key_of
from secateur.runs.recipes.configure import configured
from secateur.sparsity.report import write_sparsity
from secateur.steps.step import STEPS
from secateur.steps.train import TrainingStep
from secateur.training.distributed import rank_and_world
from secateur.training.loop import FitResult
from secateur.training.settings import flat, under_present_names
from secateur.training.state import STATE_FILE, TrainingIdentity, has_state, read_state

LOG = logging.getLogger("secateur")
OPTIONS, START = "options.json", "start.safetensors"


def begin_training(step: TrainingStep, data_file: str, weights: str, cfg: str, place: OutputOptions) -> Summary:
    """Starts a training, or resumes one that the same command started.

    Args:
        step: kind of training with its settings; an image size of 0 uses the size stored in the checkpoint.
        data_file: the data set.
        weights, cfg: see `families.starting.starting_point`.
        place: output location.

    Raises:
        UserError: options or input are invalid; checked before anything is written.
    """
    begun = beginning(
        weights,
        cfg,
        require(data_file, "--data", "data.yaml"),
        seed=step.train.seed,
        hyp=step.settings().hyp.to_dict(),
        single_cls=step.train.single_cls,
        keep_one_class=step.verb != "train",
    )
    start, data = begun.start, begun.data
    step = _with(step, image_size=usable_size(start, step.train.image_size), single_cls=data.one_class)
    if step.distillation.distill and not step.distillation.teacher and not begun.trained:
        raise UserError("--distill needs a teacher: a trained detector with the same classes. Give one with --teacher.")
    context = _context(step, data)
    found = contents({name: family_of(start).split(data, name, tell=True) for name in ("train", "val")})
    step.check(start, context)
    settings = _settings(step)
    options = {name: value for group in settings.values() if isinstance(group, dict) for name, value in group.items()}
    files = {"data": data_file, "weights": weights, "cfg": cfg, "hyp": step.hyp}
    key = key_of(options | files, found, (*files.values(), *step.files()))
    with Progress.open(place.root(step.verb), place.name, key, step.train.device) as progress:
        folder = progress.folder
        if (folder / OPTIONS).is_file():
            start = load_checkpoint(folder / START)
        elif rank_and_world()[0] == 0:
            save_checkpoint(start, folder / START)
            write_json(folder / OPTIONS, {"command": step.verb, "options": {"data": data_file, **settings}})
        return _trained(step, start, context, progress)


def resume_training(where: str, verb: str, place: OutputOptions, data_file: str = "") -> Summary:
    """Resumes an interrupted training with the same options, state and data.

    Args:
        where: a run folder, a file in it, or "latest" for the newest run of this verb.
        verb: kind of training.
        place: output location.
        data_file: current location of the data set if it has moved.

    Raises:
        UserError: there is no such training, or the classes, images or labels differ from its original ones.
    """
    folder = newest_run(place.root(verb)) if where == "latest" else usable_path(where)
    # YOLOv5 users write --resume runs/train/exp/weights/last.pt.
    folder = next((f for f in (folder, *folder.parents) if (f / OPTIONS).is_file()), folder)
    if not (folder / OPTIONS).is_file():
        raise UserError(f"There is no training to resume in {folder}: {OPTIONS} is missing. Give a run folder.")
    step, known_file = restored(folder)
    start = load_checkpoint(folder / START)
    data: DataSet = family_of(start).open_data(data_file or known_file)
    data = as_one_class(data) if step.train.single_cls else with_its_classes(start, data)
    _check_same(folder, step, start, data, moved=bool(data_file))
    with Progress.resume(folder) as progress:
        if data_file and rank_and_world()[0] == 0:
            record = read_json(folder / OPTIONS)
            write_json(folder / OPTIONS, {**record, "options": {**record["options"], "data": data_file}})
        return _trained(step, start, _context(step, data), progress)


def _check_same(folder: Path, step: TrainingStep, start: Checkpoint, data: DataSet, *, moved: bool) -> None:
    """Rejects resuming with other classes than the training started with, or with other content of a moved data set.

    Raises:
        UserError: the message names the difference.
    """
    if step.train.single_cls and start.nc > 1:
        raise UserError(
            f"Cannot resume in {folder}: it was started by an earlier version, and its --single-cls kept "
            f"{start.nc} classes. Start a new training."
        )
    names = start.names if step.train.single_cls else data.names
    TrainingIdentity(names, {}, start.names).check(folder, {})
    try:
        splits = {name: family_of(start).split(data, name) for name in ("train", "val")}
    except UserError as error:
        hint = "" if moved else " If the data set has moved, repeat the command with its data.yaml as --data."
        raise UserError(f"{error}{hint}") from error
    if not moved:
        return
    if not has_state(folder):
        raise UserError(f"No state was saved in {folder} before the training ended. Start a new training with --data.")
    state = read_state(folder)
    if "subject" not in state:
        LOG.warning("An earlier version started this training, so --data cannot be compared with its data set")
    TrainingIdentity(names, contents(splits), start.names).check(folder, state)


def _trained(step: TrainingStep, start: Checkpoint, context: Context, progress: Progress) -> Summary:
    folder = progress.folder
    note_about(folder, step.verb, _settings(step), start, context)
    try:
        result = step.trained(start, context, folder)
    except KeyboardInterrupt:
        if not (folder / STATE_FILE).is_file():
            raise
        raise Interrupted(f"secateur {step.verb} --resume {folder}") from None
    return _summary(step, progress, result, context)


def _with(step: TrainingStep, **settings: Any) -> TrainingStep:
    return dataclasses.replace(step, train=dataclasses.replace(step.train, **settings))


def _context(step: TrainingStep, data: DataSet) -> Context:
    train = step.train
    device = pick_device(train.device)
    return Context(train.image_size, device, data, train.batch_size, train.workers, train.seed)


def _settings(step: TrainingStep) -> dict[str, Any]:
    """The settings of a step as plain data, by group."""
    settings = dataclasses.asdict(step)
    settings["train"].pop("hyp")
    settings["train"] = flat(settings["train"])
    return settings


def restored(folder: Path) -> tuple[TrainingStep, str]:
    """The step and its data set, from the record written by `begin_training` (groups of settings by name).

    Raises:
        UserError: the record is of another kind, or of a version with other settings.
    """
    record = read_json(folder / OPTIONS)
    try:
        kind = STEPS[record["command"]]
        groups = [value for value in record["options"].values() if isinstance(value, dict)]
        plain = {name: value for name, value in record["options"].items() if not isinstance(value, dict)}
        settings: dict[str, Any] = {name: value for group in groups for name, value in group.items()}
        settings |= {"hyp": plain["hyp"]}
        settings = under_present_names(settings)
        unused = record["options"].get("place", {})
        step = configured(kind, {name: value for name, value in settings.items() if name not in unused}, str(folder))
        data_file = plain["data"]
        if not isinstance(data_file, str):
            raise TypeError("its data entry is not a file")
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{folder / OPTIONS} is not a record of a training ({told(error)}). Start a new training."
        ) from error
    if not isinstance(step, TrainingStep):
        raise UserError(f"{folder} contains no training but '{record['command']}'. Repeat that command instead.")
    return step, data_file


def _summary(step: TrainingStep, progress: Progress, result: FitResult, context: Context) -> Summary:
    """Evaluates the best checkpoint with plots and writes summary.json. Does nothing in processes other than the
    first.
    """
    if rank_and_world()[0] != 0:
        return {}
    checkpoint = load_checkpoint(result.best)
    settings = val_settings(context, single_cls=step.train.single_cls, plots=True, detections=True)
    scores = evaluate(checkpoint, context, "val", settings)
    draw_evaluation(progress.folder, scores)
    save_record(progress.folder, scores)
    print(scores.table())
    write_sparsity(progress.folder, checkpoint)
    print(f"best epoch {result.best_epoch + 1} of {result.epochs}; checkpoints in {result.best.parent}")
    done = progress.finish(
        {
            "command": step.verb,
            "weights": str(result.best),
            "epochs": result.epochs,
            "best_epoch": result.best_epoch,
            "model": describe(checkpoint, context.image_size),
            **scores.summary(),
        }
    )
    if leave_page(progress.folder):
        print(f"report: {progress.folder / PAGE}")
    say(after_training(step.verb, result.best, checkpoint, context.data))
    return done
