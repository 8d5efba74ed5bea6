"""`secateur val`: evaluates a checkpoint or an exported file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from tyro.conf import arg

from secateur.commands import Summary, command
from secateur.evaluation.settings import NmsSettings, ValSettings
from secateur.ranges import BATCH, Advanced, Between
from secateur.runs.fields import Data, Device, ImageSize, Weights, Workers
from secateur.runs.folders import OutputOptions, finish, require


@dataclass(frozen=True)
class ValOptions:
    """Evaluate a checkpoint or an exported file: P, R, mAP50, mAP50-95 overall and per class, speed."""

    weights: Weights = ""
    data: Data = ""
    task: str = "val"
    """Split to evaluate: train, val or test."""
    image_size: ImageSize = 0
    batch_size: Annotated[int, arg(aliases=["--batch"]), Between(0, BATCH.most)] = 0
    """Images per batch (0: chosen to fit the CPU cache, or 32 on a GPU)."""
    device: Device = "auto"
    workers: Workers = 2
    precision: str = "fp32"
    """Precision: fp32, bf16 or fp16."""
    single_cls: Advanced[bool] = False
    """Treat all classes as one."""
    coco: Advanced[bool] = True
    """Print COCO's twelve AP and AR metrics."""
    save_json: Advanced[bool] = False
    """Also write the detections as COCO JSON."""
    coco91: Advanced[bool] = False
    """Use COCO's category ids (1 to 90) in this JSON file, as the official COCO evaluation expects."""
    plots: bool = True
    """Plot PR curves and the confusion matrix."""
    nms: NmsSettings = field(default_factory=NmsSettings)
    place: OutputOptions = field(default_factory=OutputOptions)


@command("val", "evaluate: P, R, mAP50, mAP50-95, per class, COCO metrics, speed", lambda: ValOptions, order=80)
def val(options: ValOptions) -> Summary:
    """Evaluates one file and writes the summary into a new folder."""
    from secateur.evaluation.record import save_record
    from secateur.machine import pick_device
    from secateur.report.run_folder_plots import draw_evaluation
    from secateur.runs.compare.subject import Subject

    weights = require(options.weights, "--weights", "best.pt")
    data_file = require(options.data, "--data", "data.yaml")
    device, precision = pick_device(options.device), options.precision
    subject = Subject.of(weights, options.image_size, device, precision)
    data = subject.data(data_file, one_class=options.single_cls)
    settings = ValSettings(
        image_size=subject.image_size,
        batch_size=options.batch_size,
        nms=options.nms,
        single_cls=data.one_class,
        workers=options.workers,
        coco=options.coco,
        save_json=options.save_json,
        coco91=options.coco91,
        plots=options.plots,
        detections=True,
    )
    with options.place.new("val") as folder:
        scores = subject.evaluate(data, options.task, settings, device, precision=precision, folder=folder)
        for text in (subject.line, scores.table(), scores.speed_line(), scores.details()):
            if text:
                print(text)
        draw_evaluation(folder, scores)
        save_record(folder, scores)
        print(f"Results are in {folder}")
        return finish(folder, {"command": "val", "task": options.task, "model": subject.model, **scores.summary()})
