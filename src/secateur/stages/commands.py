"""The commands that train or run whole recipes: train, finetune, sparsify, run, demo; and how they are resumed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from secateur.data.config import DataConfig, load_data_config
from secateur.detector.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from secateur.errors import UserError
from secateur.files import increment_run, read_json, write_json
from secateur.stages.evaluation import describe, evaluate, split_index, usable_size, val_settings
from secateur.stages.methods import Methods
from secateur.stages.options import DemoOptions, RunOptions, SparsifyOptions, TrainOptions
from secateur.stages.pictures import draw_evaluation
from secateur.stages.places import Summary, finish, newest_run, removed_on_failure, require, root_of
from secateur.stages.sparsity import write_sparsity
from secateur.stages.starting import starting_point
from secateur.stages.training import once, processes, train_stage
from secateur.training.hyp import load_hyp
from secateur.training.loop import FitResult
from secateur.training.settings import TrainSettings
from secateur.training.state import STATE_FILE


def train(options: TrainOptions | SparsifyOptions, command: str = "train") -> Summary:
    """`secateur train`, and with other defaults `finetune` and `sparsify`."""
    if options.resume:
        return resume(options.resume, command, root_of(options.place, command))
    data = load_data_config(require(options.data, "--data", "data.yaml"))
    settings = dataclasses.replace(options.train, hyp=load_hyp(options.hyp))
    methods = methods_from(options)
    methods.check(settings)
    cfg = options.cfg if isinstance(options, TrainOptions) else ""
    start = starting_point(options.weights, cfg, data.names, options.train.seed, int(settings.hyp.anchors))
    untrained = not options.weights or load_checkpoint(options.weights).topology.nc != len(data.names)
    if methods.distill.distill and not methods.distill.teacher and untrained:
        raise UserError("--distill has no trained detector of these classes to imitate; give one as --teacher.")
    check_splits(data, options.train.single_cls)
    folder = new_training_folder(options, command, start)
    # Methods that do not fit the detector say so before the first epoch: then there is nothing to keep.
    with removed_on_failure(folder, unless=STATE_FILE):
        result = train_stage(start, data, settings, folder, verb=command, methods=methods, resume=True)
    return training_summary(command, folder, result, data, settings)


def finetune(options: TrainOptions) -> Summary:
    """`secateur finetune`: the same loop; the widths of the weights are kept."""
    if not options.resume:
        require(options.weights, "--weights", "cut.safetensors")
    return train(options, "finetune")


def sparsify(options: SparsifyOptions) -> Summary:
    """`secateur sparsify`."""
    if not options.resume:
        require(options.weights, "--weights", "best.pt")
    return train(options, "sparsify")


def methods_from(options: TrainOptions | SparsifyOptions) -> Methods:
    """The methods that the options of a command switch on."""
    if isinstance(options, SparsifyOptions):
        return Methods(distill=options.distillation, sparsify=options.sparsify)
    return Methods(weights=options.sparsity, distill=options.distillation)


def new_training_folder(options: TrainOptions | SparsifyOptions, command: str, start: Checkpoint) -> Path:
    """A fresh run folder with all that --resume needs: the options and the checkpoint that the training starts from."""

    def make() -> str:
        folder = increment_run(root_of(options.place, command), options.place.name)
        record = dataclasses.asdict(options)
        record["train"].pop("hyp")
        with removed_on_failure(folder):
            save_checkpoint(start, folder / "start.safetensors")
            write_json(folder / "options.json", {"command": command, "options": record})
        return str(folder)

    return Path(once(make))


def check_splits(data: DataConfig, single_cls: bool = False) -> None:
    """Checks all images and labels of a training before anything is written."""
    for split in ("train", "val"):
        split_index(data, split, single_cls=single_cls, tell=True)


def resume(where: str, command: str, root: Path) -> Summary:
    """Goes on with an interrupted training from its run folder: same options, same state."""
    folder = newest_run(root) if where == "latest" else Path(where)
    # YOLOv5's habit: --resume runs/train/exp/weights/last.pt.
    folder = next((f for f in (folder, *folder.parents) if (f / "options.json").is_file()), folder)
    if not (folder / "options.json").is_file():
        raise UserError(f"There is no training to resume in {folder}: options.json is missing; give a run folder.")
    record = read_json(folder / "options.json")
    kind = SparsifyOptions if record["command"] == "sparsify" else TrainOptions
    options = restore_options(kind, record["options"])
    data = load_data_config(options.data)
    start = load_checkpoint(folder / "start.safetensors")
    settings = dataclasses.replace(options.train, hyp=load_hyp(options.hyp))
    methods = methods_from(options)
    result = train_stage(start, data, settings, folder, verb=record["command"], methods=methods, resume=True)
    return training_summary(record["command"], folder, result, data, settings)


def restore_options(kind: type[Any], record: dict[str, Any]) -> Any:
    """An options dataclass from its plain dictionary."""
    values: dict[str, Any] = {}
    defaults = kind()
    for field in dataclasses.fields(kind):
        value, default = record.get(field.name, getattr(defaults, field.name)), getattr(defaults, field.name)
        if dataclasses.is_dataclass(default) and isinstance(value, dict):
            value = restore_options(type(default), value)
        values[field.name] = tuple(value) if isinstance(default, tuple) else value
    return kind(**values)


def training_summary(
    command: str, folder: Path, result: FitResult, data: DataConfig, training: TrainSettings
) -> Summary:
    """Evaluates the best checkpoint with plots, as stock does at the end, and writes summary.json."""
    if processes()[0] != 0:
        return {}
    checkpoint = load_checkpoint(result.best)
    image_size = usable_size(checkpoint, training.image_size)
    settings = val_settings(image_size, training.workers, single_cls=training.single_cls, plots=True)
    metrics = evaluate(checkpoint, data, "val", settings)
    draw_evaluation(folder, metrics)
    print(metrics.table())
    write_sparsity(folder, checkpoint)
    print(f"best epoch {result.best_epoch + 1} of {result.epochs}; checkpoints in {result.best.parent}")
    return finish(
        folder,
        {
            "command": command,
            "weights": str(result.best),
            "epochs": result.epochs,
            "best_epoch": result.best_epoch,
            "metrics": metrics.to_dict(),
            "per_class": metrics.per_class_rows(),
            "model": describe(checkpoint, image_size, result.best),
            "speed_ms": metrics.speed_ms,
        },
    )


def run(options: RunOptions) -> Summary:
    """`secateur run`."""
    from secateur.stages.run import run_pipeline

    require(options.data, "--data", "data.yaml")
    return run_pipeline(options, root_of(options.place, "run"))


def demo(options: DemoOptions) -> Summary:
    """`secateur demo`."""
    from secateur.stages.demo import demo_run

    return demo_run(options, root_of(options.place, "demo"))
