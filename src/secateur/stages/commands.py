"""What each command of the command line does: makes its run folder, calls the verb, prints, returns the summary."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from secateur.data.config import DataConfig, load_data_config
from secateur.detector.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from secateur.detector.summary import summary
from secateur.errors import UserError
from secateur.evaluation.cost import layer_flops
from secateur.evaluation.validate import ValSettings
from secateur.files import increment_run, read_json, write_json
from secateur.stages.evaluation import (
    check_classes,
    describe,
    evaluate,
    measure_latency,
    split_index,
    torch_calls,
    usable_size,
    val_settings,
)
from secateur.stages.exporting import export_checked, session_calls
from secateur.stages.options import (
    BenchOptions,
    DemoOptions,
    ExportOptions,
    InfoOptions,
    Place,
    PruneOptions,
    RunOptions,
    SparsifyOptions,
    TrainOptions,
    ValOptions,
)
from secateur.stages.pictures import draw_evaluation
from secateur.stages.starting import starting_point
from secateur.stages.table import print_table
from secateur.stages.training import once, processes, sparse_train, train_stage
from secateur.training.hyp import load_hyp
from secateur.training.loop import FitResult
from secateur.training.settings import TrainSettings

Summary = dict[str, Any]


def root_of(place: Place, command: str) -> Path:
    """Folder that holds the runs of a command."""
    return Path(place.project) if place.project else Path("runs") / command


def require(value: str, option: str, example: str) -> str:
    """The value of an option that a command cannot do without."""
    if not value:
        raise UserError(f"Option {option} is missing; give it, for example {option} {example}.")
    return value


def finish(folder: Path, summary: Summary) -> Summary:
    """Writes summary.json and returns it."""
    summary = {**summary, "folder": str(folder)}
    write_json(folder / "summary.json", summary)
    return summary


def train(options: TrainOptions, command: str = "train") -> Summary:
    """`secateur train`."""
    if options.resume:
        return resume(options.resume, command, root_of(options.place, command))
    data = load_data_config(require(options.data, "--data", "data.yaml"))
    settings = dataclasses.replace(options.train, hyp=load_hyp(options.hyp))
    anchors = int(settings.hyp.anchors)
    start = starting_point(options.weights, options.cfg, data.names, options.train.seed, anchors)
    check_splits(data, options.train.single_cls)
    folder = new_training_folder(options, command, start)
    result = train_stage(start, data, settings, folder, verb=command, resume=True)
    return training_summary(command, folder, result, data, settings)


def finetune(options: TrainOptions) -> Summary:
    """`secateur finetune`: the same loop; the widths of the weights are kept."""
    if not options.resume:
        require(options.weights, "--weights", "cut.safetensors")
    return train(options, "finetune")


def sparsify(options: SparsifyOptions) -> Summary:
    """`secateur sparsify`."""
    root = root_of(options.place, "sparsify")
    if options.resume:
        return resume(options.resume, "sparsify", root)
    data = load_data_config(require(options.data, "--data", "data.yaml"))
    start = starting_point(require(options.weights, "--weights", "best.pt"), "", data.names, options.train.seed)
    check_splits(data, options.train.single_cls)
    settings = dataclasses.replace(options.train, hyp=load_hyp(options.hyp))
    folder = new_training_folder(options, "sparsify", start)
    result = sparse_train(start, data, settings, options.sparsify, folder, resume=True)
    return training_summary("sparsify", folder, result, data, settings)


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


@contextmanager
def removed_on_failure(folder: Path) -> Iterator[None]:
    """Removes a fresh run folder when nothing useful came into it."""
    try:
        yield
    except UserError:
        shutil.rmtree(folder, ignore_errors=True)
        raise


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
    if isinstance(options, SparsifyOptions):
        result = sparse_train(start, data, settings, options.sparsify, folder, resume=True)
    else:
        result = train_stage(start, data, settings, folder, verb=record["command"], resume=True)
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


def newest_run(root: Path) -> Path:
    """The run folder under `root` that was started last."""
    runs = sorted(root.glob("*/options.json"), key=lambda file: file.stat().st_mtime)
    if not runs:
        raise UserError(f"There is no run to resume under {root}; give its folder: --resume runs/train/exp.")
    return runs[-1].parent


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


def prune(options: PruneOptions) -> Summary:
    """`secateur prune`: decide, show the cliff, cut, repair, evaluate."""
    from secateur.stages.pruning import Work, cut_channels, decide, repair, save_decision

    weights = require(options.weights, "--weights", "best.pt")
    data = load_data_config(require(options.data, "--data", "data.yaml"))
    checkpoint = load_checkpoint(weights)
    check_classes(checkpoint, data, weights)
    options = dataclasses.replace(options, image_size=usable_size(checkpoint, options.image_size))
    work = Work(data, options.image_size, options.batch_size, options.workers, options.seed)
    # Decided before the folder is made, so that a budget out of reach leaves nothing behind.
    decision, curve = decide(checkpoint, work, options.prune)
    folder = increment_run(root_of(options.place, "prune"), options.place.name)
    save_decision(folder, decision, curve)
    cut = cut_channels(checkpoint, decision)
    repaired = repair(checkpoint, decision, work, options.prune)
    save_checkpoint(repaired, folder / "pruned.safetensors")
    print(decision.plan.table())
    settings = val_settings(options.image_size, options.workers)
    rows = []
    for title, model, file in (
        ("dense", checkpoint, Path(weights)),
        ("cut, no repair", cut, None),
        ("cut + repair", repaired, folder / "pruned.safetensors"),
    ):
        metrics = evaluate(model, data, "val", settings)
        size = file if file is not None and file.is_file() else None
        rows.append(
            {
                "stage": title,
                "metrics": metrics.to_dict(),
                "model": describe(model, options.image_size, size),
                "speed_ms": metrics.speed_ms,
            }
        )
    print_table(rows)
    print(f"Saved to {folder / 'pruned.safetensors'}; fine-tune it with: secateur finetune --weights ... --data ...")
    last = rows[-1]
    summary = {"command": "prune", "weights": str(folder / "pruned.safetensors"), "table": rows}
    return finish(folder, summary | {key: last[key] for key in ("metrics", "model", "speed_ms")})


def val(options: ValOptions) -> Summary:
    """`secateur val`."""
    weights = require(options.weights, "--weights", "best.pt")
    data = load_data_config(require(options.data, "--data", "data.yaml"))
    checkpoint = load_checkpoint(weights)
    check_classes(checkpoint, data, weights)
    options = dataclasses.replace(options, image_size=usable_size(checkpoint, options.image_size))
    folder = increment_run(root_of(options.place, "val"), options.place.name)
    settings = ValSettings(
        image_size=options.image_size,
        batch_size=options.batch_size,
        conf=options.conf,
        iou=options.iou,
        max_det=options.max_det,
        precision=options.precision,
        single_cls=options.single_cls,
        workers=options.workers,
        coco=options.coco,
        save_json=folder / "predictions.json" if options.save_json else None,
        plots=options.plots,
    )
    with removed_on_failure(folder):
        split_index(data, options.task, single_cls=options.single_cls, tell=True)
        metrics = evaluate(checkpoint, data, options.task, settings)
    model = describe(checkpoint, options.image_size, Path(weights) if Path(weights).is_file() else None)
    print(
        f"{weights}: {model['parameters']:,} parameters, {model['gflops']:.1f} GFLOPs at {options.image_size} px, "
        f"sparsity {model['sparsity']:.3g}"
    )
    print(metrics.table())
    print(metrics.speed_line())
    if options.coco:
        print(metrics.coco_table())
    draw_evaluation(folder, metrics)
    return finish(
        folder,
        {
            "command": "val",
            "task": options.task,
            "metrics": metrics.to_dict(),
            "per_class": metrics.per_class_rows(),
            "coco": metrics.coco,
            "model": model,
            "speed_ms": metrics.speed_ms,
        },
    )


def info(file: str, options: InfoOptions) -> Summary:
    """`secateur info FILE`."""
    checkpoint = load_checkpoint(file)
    options = dataclasses.replace(options, image_size=usable_size(checkpoint, options.image_size))
    model = describe(checkpoint, options.image_size, Path(file) if Path(file).is_file() else None)
    described = summary(checkpoint, options.image_size, layer_flops(checkpoint.detector(), options.image_size))
    print(f"{file}: {len(checkpoint.names)} classes, strides {', '.join(f'{s:g}' for s in checkpoint.strides)}")
    print(described.line())
    if options.layers:
        print(described.table())
    for stage in checkpoint.history:
        print(f"history: {stage.verb} {stage.metrics or ''} {stage.cost or ''}".rstrip())
    return {
        "command": "info",
        "file": file,
        "names": {str(index): name for index, name in checkpoint.names.items()},
        "strides": list(checkpoint.strides),
        "model": {**described.to_dict(), **model},
        "history": [dataclasses.asdict(stage) for stage in checkpoint.history],
    }


def export(options: ExportOptions) -> Summary:
    """`secateur export`."""
    weights = require(options.weights, "--weights", "best.pt")
    checkpoint = load_checkpoint(weights)
    options = dataclasses.replace(options, image_size=usable_size(checkpoint, options.image_size))
    folder = increment_run(root_of(options.place, "export"), options.place.name)
    file = folder / (Path(weights).stem + ".onnx")
    with removed_on_failure(folder):
        result = export_checked(
            checkpoint,
            file,
            options.image_size,
            batch=options.batch_size,
            dynamic=options.dynamic,
            simplify=options.simplify,
            opset=options.opset,
        )
    print(f"{file}: {result['file_mb']:.1f} MB, outputs within {result['max_error']:.1e} of the detector's")
    return finish(folder, {"command": "export", "model": describe(checkpoint, options.image_size), "export": result})


def bench(files: list[str], options: BenchOptions) -> Summary:
    """`secateur bench`: latency of several checkpoints, measured in turns."""
    if options.runtime not in {"onnx", "torch"}:
        raise UserError(f"--runtime {options.runtime} is unknown; choose onnx or torch.")
    checkpoints = {file: load_checkpoint(file) for file in files}
    sizes = {usable_size(checkpoint, options.image_size) for checkpoint in checkpoints.values()}
    options = dataclasses.replace(options, image_size=max(sizes))
    calls = session_calls(checkpoints, options.image_size, options.threads) if options.runtime == "onnx" else {}
    if options.runtime == "onnx" and not calls:
        raise UserError("ONNX Runtime is not installed: pip install 'secateur[onnx]', or choose --runtime torch.")
    calls = calls or torch_calls(checkpoints, options.image_size)
    comparison = measure_latency(calls, options.rounds, options.threads)
    rows = []
    for file, latency in comparison.latencies.items():
        model = describe(checkpoints[file], options.image_size, Path(file) if Path(file).is_file() else None)
        rows.append({"file": file, "model": model, **latency.to_dict(), "faster": comparison.ratios[file]})
        print(
            f"{file}: {latency.median_ms:.2f} ms (p10 {latency.p10:.2f}, p90 {latency.p90:.2f}), "
            f"x{comparison.ratios[file]:.2f} against {files[0]}"
        )
    first = rows[0]
    folder = increment_run(root_of(options.place, "bench"), options.place.name)
    summary = {"command": "bench", "runtime": options.runtime, "table": rows, "model": first["model"]}
    return finish(folder, summary | {"speed_ms": {row["file"]: row["median_ms"] for row in rows}})


def run(options: RunOptions) -> Summary:
    """`secateur run`."""
    from secateur.stages.run import run_pipeline

    require(options.data, "--data", "data.yaml")
    return run_pipeline(options, root_of(options.place, "run"))


def demo(options: DemoOptions) -> Summary:
    """`secateur demo`."""
    from secateur.stages.demo import demo_run

    return demo_run(options, root_of(options.place, "demo"))
