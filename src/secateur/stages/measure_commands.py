"""The commands that measure or write files for elsewhere: val, info, export, bench."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from secateur.data.config import load_data_config
from secateur.detector.checkpoint import load_checkpoint
from secateur.detector.summary import summary
from secateur.errors import UserError
from secateur.evaluation.cost import layer_flops
from secateur.evaluation.validate import ValSettings
from secateur.files import increment_run
from secateur.stages.evaluation import (
    check_classes,
    describe,
    evaluate,
    measure_latency,
    split_index,
    torch_calls,
    usable_size,
)
from secateur.stages.exporting import export_checked, session_calls
from secateur.stages.options import BenchOptions, ExportOptions, InfoOptions, ValOptions
from secateur.stages.pictures import draw_evaluation
from secateur.stages.places import Summary, finish, removed_on_failure, require, root_of


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
