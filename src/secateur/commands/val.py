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
from secateur.runs.folders import OutputOptions, finish, require

if TYPE_CHECKING:
    from secateur.evaluation.predictor import Predictor
    from secateur.families.reading import DataSet
    from secateur.networks.checkpoint import Checkpoint


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
    place: OutputOptions = field(default_factory=OutputOptions)


@command("val", "evaluate: P, R, mAP50, mAP50-95, per class, COCO table, speed", lambda: ValOptions, order=80)
def val(options: ValOptions) -> Summary:
    """Evaluates one file; the summary goes into a fresh folder."""
    from secateur.evaluation.record import save_record
    from secateur.report.run_folder_plots import draw_evaluation

    weights = require(options.weights, "--weights", "best.pt")
    data_file = require(options.data, "--data", "data.yaml")
    subject, image_size, model, line = opened(options, weights)
    data = data_for(subject, data_file, options)
    settings = ValSettings(
        image_size=image_size,
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
        scores = evaluated(subject, data, options, settings, folder)
        for text in (line, scores.table(), scores.speed_line(), scores.details()):
            if text:
                print(text)
        draw_evaluation(folder, scores)
        save_record(folder, scores)
        print(f"Results are in {folder}")
        return finish(folder, {"command": "val", "task": options.task, "model": model, **scores.summary()})


def evaluated(
    subject: Checkpoint | Predictor, data: DataSet, options: ValOptions, settings: ValSettings, folder: Path
) -> Any:
    """The scores of a checkpoint as its family gives them, or those of the boxes of an exported file.

    Raises:
        UserError: the data set is broken, or its labels are of classes that the network lacks.
    """
    from secateur.data.config import DataConfig
    from secateur.evaluation.validate import validate
    from secateur.families.detection.split import DetectionSplit
    from secateur.families.evaluation import of_data
    from secateur.families.family import family_of
    from secateur.machine import pick_device
    from secateur.networks.checkpoint import Checkpoint

    if isinstance(subject, Checkpoint):
        family, network = family_of(subject), subject.build().to(pick_device(options.device))
        split = family.split(data, options.task, tell=True)
        scores = family.evaluate(network, split, settings, precision=options.precision, folder=folder)
    else:
        assert isinstance(data, DataConfig)
        scores = validate(subject, DetectionSplit.of(data, options.task, tell=True).index, settings, folder=folder)
    return of_data(scores, data, options.task)


def data_for(subject: Checkpoint | Predictor, file: str, options: ValOptions) -> DataSet:
    """The data set as the network knows it.

    Raises:
        UserError: the network cannot be evaluated, the file is no data set, or the network does not know its classes.
    """
    from secateur.data.config import load_data_config
    from secateur.families.context import as_one_class, known_data
    from secateur.families.family import family_of
    from secateur.networks.checkpoint import Checkpoint

    if isinstance(subject, Checkpoint):
        family_of(subject).require("evaluate", "evaluated")
        data: DataSet = family_of(subject).open_data(file)
    else:
        data = load_data_config(file)
    return as_one_class(data) if options.single_cls else known_data(subject, data, options.weights)


def opened(options: ValOptions, weights: str) -> tuple[Checkpoint | Predictor, sizes.ImageSize, dict[str, Any], str]:
    """The checkpoint, or what predicts; the image size in pixels, the `model` part of the summary, the model's line."""
    from secateur.deploy.runtimes import is_exported, open_predictor, runtime_of
    from secateur.evaluation.cost import layer_flops
    from secateur.families.evaluation import DEFAULT_SIZE, describe, size_of, usable_size
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
    described = summary(checkpoint, size, layer_flops(checkpoint.build(), size))
    model = describe(checkpoint, size)
    return checkpoint, size, model, f"{weights}: {described.line()}"
