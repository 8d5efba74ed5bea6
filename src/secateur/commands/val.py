"""`secateur val`: evaluate a checkpoint, or a file exported from one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import arg

from secateur import sizes
from secateur.commands import Summary, command
from secateur.evaluation.settings import NmsSettings, ValSettings
from secateur.ranges import BATCH, Advanced, Between
from secateur.runs.fields import Data, Device, ImageSize, Weights, Workers
from secateur.runs.folders import Place, finish, require

if TYPE_CHECKING:
    from secateur.evaluation.predictor import Predictor


@dataclass(frozen=True)
class ValOptions:
    """Evaluate a checkpoint or an exported file: P, R, mAP50, mAP50-95 overall and per class, speed."""

    weights: Weights = ""
    data: Data = ""
    task: str = "val"
    """Split: train, val or test."""
    image_size: ImageSize = 0
    batch_size: Annotated[int, arg(aliases=["--batch"]), Between(0, BATCH.most)] = 0
    """Images in a batch (0: sized for the cache on CPU, 32 on a GPU)."""
    device: Device = "auto"
    workers: Workers = 2
    precision: str = "fp32"
    """fp32, bf16 or fp16."""
    single_cls: Advanced[bool] = False
    """Treat all classes as one."""
    coco: Advanced[bool] = True
    """Print the twelve COCO AP/AR lines."""
    save_json: Advanced[bool] = False
    """Also write the detections as COCO JSON."""
    coco91: Advanced[bool] = False
    """Write COCO's own category ids (1 to 90) into that JSON, for its official evaluation."""
    plots: bool = True
    """Draw PR curves and the confusion matrix."""
    nms: NmsSettings = field(default_factory=NmsSettings)
    place: Place = field(default_factory=Place)


@command("val", "evaluate: P, R, mAP50, mAP50-95, per class, COCO table, speed", lambda: ValOptions, order=80)
def val(options: ValOptions) -> Summary:
    """Evaluates one file; the summary goes into a fresh folder."""
    from secateur.compression.measuring import split_index
    from secateur.data.config import load_data_config
    from secateur.evaluation.validate import validate
    from secateur.families.context import known_data
    from secateur.report.pictures import draw_evaluation

    weights = require(options.weights, "--weights", "best.pt")
    data = load_data_config(require(options.data, "--data", "data.yaml"))
    predictor, image_size, model, line = opened(options, weights)
    if not options.single_cls:
        data = known_data(predictor, data, weights)
    single_cls = options.single_cls or data.one_class
    settings = ValSettings(
        image_size=image_size,
        batch_size=options.batch_size,
        nms=options.nms,
        single_cls=single_cls,
        workers=options.workers,
        coco=options.coco,
        save_json=options.save_json,
        coco91=options.coco91,
        plots=options.plots,
    )
    with options.place.new("val") as folder:
        index = split_index(data, options.task, single_cls=single_cls, tell=True)
        metrics = validate(predictor, index, settings, folder=folder)
        print(line)
        print(metrics.table())
        print(metrics.speed_line())
        if options.coco:
            print(metrics.coco_table())
        draw_evaluation(folder, metrics)
        print(f"Results are in {folder}")
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


def opened(options: ValOptions, weights: str) -> tuple[Predictor, sizes.ImageSize, dict[str, Any], str]:
    """What predicts, the image size in pixels, the `model` part of the summary, and the line about the model."""
    from secateur.compression.measuring import DEFAULT_SIZE, describe, size_of, usable_size
    from secateur.deploy.runtimes import is_exported, open_predictor, runtime_of
    from secateur.evaluation.cost import layer_flops
    from secateur.evaluation.predictor import TorchPredictor
    from secateur.families.loading import load_checkpoint
    from secateur.families.summary import summary
    from secateur.machine import pick_device

    device, file = pick_device(options.device), Path(weights)
    if is_exported(file):
        predictor = open_predictor(file, device, precision=options.precision)
        fixed = predictor.image_size
        longest = max(fixed) if isinstance(fixed, tuple) else fixed
        size = options.image_size or longest or DEFAULT_SIZE
        model = {"parameters": None, "gflops": None, "sparsity": None, "file_mb": size_of(file)}
        return predictor, size, model, f"{weights}: {runtime_of(file).title}, {predictor.nc} classes"
    checkpoint = load_checkpoint(weights)
    size = usable_size(checkpoint, options.image_size)
    network = checkpoint.build().to(device)
    described = summary(checkpoint, size, layer_flops(checkpoint.build(), size))
    model = describe(checkpoint, size)
    predictor = TorchPredictor(network, options.precision, single_cls=checkpoint.single_cls)
    return predictor, size, model, f"{weights}: {described.line()}"
