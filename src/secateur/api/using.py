"""Uses of a smaller detector: fine-tuning, evaluation, export, prediction."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Pillow

from secateur.api.arguments import (
    Data,
    Device,
    Model,
    Size,
    checkpoint_of,
    context_of,
    detector_of,
    predictable,
    size_of,
    workers_of,
)
from secateur.api.images import Source, described, each_image, is_one
from secateur.api.options import number, settings_of, typed
from secateur.checkpoints.training import Methods, train_checkpoint
from secateur.data.config import DataConfig, load_data_config
from secateur.deploy.exporters import export as write
from secateur.deploy.exporting import about, format_of
from secateur.deploy.int8 import calibration_images
from secateur.deploy.opening import open_detector
from secateur.deploy.settings import ExportSettings
from secateur.distillation.settings import DistillSettings
from secateur.errors import UserError
from secateur.evaluation.metrics import Metrics
from secateur.evaluation.predictor import Predictor
from secateur.evaluation.settings import ValSettings
from secateur.evaluation.validate import auto_batch_size, validate
from secateur.families.context import known_data
from secateur.families.detection.split import DetectionSplit
from secateur.families.evaluation import evaluate as measure
from secateur.families.evaluation import usable_size, val_settings
from secateur.families.family import family_of
from secateur.families.hyp import load_hyp
from secateur.families.loading import load_checkpoint
from secateur.families.only_classes import as_taught
from secateur.machine import pick_device
from secateur.networks.checkpoint import Checkpoint
from secateur.prediction.detections import check_supervision, to_detections
from secateur.prediction.predicting import BoxFinder
from secateur.prediction.settings import BoxSettings
from secateur.ranges import BATCH, ROUNDS, Between
from secateur.sparsity.settings import WeightSettings
from secateur.training.hyp import Hyp
from secateur.training.own_options import all_own_options
from secateur.training.settings import TrainSettings

if TYPE_CHECKING:
    from supervision import Detections


def finetune(
    checkpoint: Model,
    data: Data,
    folder: str | Path,
    *,
    hyp: str | Path | Hyp = "scratch-low",
    teacher: Model | None = None,
    **options: Any,
) -> Checkpoint:
    """Trains on a labelled data set and returns the best epoch. A call with the same folder resumes.

    Args:
        checkpoint: a checkpoint, the path of one, or a detector.
        data: a data.yaml.
        folder: folder for weights, results and the resumable state.
        hyp: name of a set of hyper-parameters, or a YAML file.
        teacher: teacher for distillation (`distill="bce+features"`), such as the dense detector, or its path.
        options: the fields of `TrainSettings`, `WeightSettings` and `DistillSettings`.

    Raises:
        TypeError: an option is unknown, or a value has another type.
        UserError: the data set or the teacher does not match.

    >>> from secateur.data.synthetic import generate
    >>> from secateur.families.yolov5.model import Detector
    >>> from secateur.families.yolov5.topology import Topology
    >>> data = generate("shapes", images=(8, 4, 4), size=64, classes=3)
    >>> checkpoint = Checkpoint.of(Detector(Topology.from_yaml("yolov5n", nc=3)))
    >>> tuned = finetune(checkpoint, data, "tuned", epochs=1, image_size=64, batch_size=4, workers=0)
    >>> tuned.history[-1].verb
    'finetune'
    """
    size = size_of(finetune, options.pop("image_size", 0), square=True)
    kinds = (TrainSettings, all_own_options(), WeightSettings, DistillSettings)
    training, own, weights, distill = settings_of(finetune, options, *kinds)
    start = detector_of(finetune, checkpoint)
    size = usable_size(start, size)
    settings = dataclasses.replace(
        training, own=own, hyp=hyp if isinstance(hyp, Hyp) else load_hyp(hyp), image_size=size
    )
    dense = None if teacher is None else as_taught(detector_of(finetune, teacher), start)
    methods = Methods(weights=weights, distill=distill)
    methods.check(settings, family_of(start))
    with context_of(
        finetune, start, data, image_size=size, batch_size=settings.batch_size, seed=settings.seed,
        device=settings.device,
    ) as context:  # fmt: skip
        context = dataclasses.replace(context, dense=dense, workers=settings.workers)
        result = train_checkpoint(start, context, settings, Path(folder), verb="finetune", methods=methods)
    return load_checkpoint(result.best)


def evaluate(
    checkpoint: Model | Predictor,
    data: Data,
    split: str = "val",
    *,
    image_size: Size = 0,
    workers: int = 2,
    device: Device = "auto",
) -> Metrics:
    """Evaluates a detector: P, R, mAP50, mAP50-95, per class and overall.

    Args:
        checkpoint: a checkpoint, a detector, the path of a checkpoint or an exported file, or an opened predictor.
        data: a data.yaml.
        split: "train", "val" or "test".
        image_size: px of the longest side, or (height, width); 0 uses the size that the model requires or stores.
        workers: processes that load images.
        device: device to run on.

    Raises:
        UserError: its classes do not match, or the data set has no such split.

    >>> from secateur.data.synthetic import generate
    >>> from secateur.families.yolov5.model import Detector
    >>> from secateur.families.yolov5.topology import Topology
    >>> data = generate("images", images=(4, 4, 4), size=64, classes=3)
    >>> checkpoint = Checkpoint.of(Detector(Topology.from_yaml("yolov5n", nc=3)))
    >>> 0 <= evaluate(checkpoint, data, image_size=64, workers=0).mAP50 <= 1
    True
    """
    size: Any = size_of(evaluate, image_size)
    place = pick_device(device)
    asked, processes = predictable(evaluate, checkpoint), workers_of(evaluate, workers)
    if isinstance(asked, Checkpoint):
        size = usable_size(asked, size)
        with context_of(evaluate, asked, data, device=place) as context:
            settings = val_settings(context, image_size=size, workers=processes)
            return measure(asked, context, split, settings)
    predictor, size = open_detector(asked, place, image_size=size)
    title = str(asked) if isinstance(asked, str | Path) else "The predictor"
    config = known_data(predictor, data if isinstance(data, DataConfig) else load_data_config(str(data)), title)
    size = size if predictor.image_size is None else 0
    settings = ValSettings(image_size=size, workers=processes, single_cls=config.one_class)
    return validate(predictor, DetectionSplit.of(config, split).index, settings)


def export(
    checkpoint: Model,
    path: str | Path,
    *,
    image_size: Size = 0,
    images: Source = None,
    rgb: bool = False,
    calibration: int = 128,
    **options: Any,
) -> Path:
    """Exports to a file for another runtime and checks its outputs against the network's. Returns the path.

    Args:
        checkpoint: a checkpoint, the path of one, or a detector.
        path: file whose ending selects the format: "best.onnx", "best.torchscript", "best_openvino_model", "best.pt"
            (YOLOv5's own).
        image_size: px of a side, or (height, width); 0 uses the size stored in the checkpoint.
        images: images for int8 calibration, see `prune`, or a data.yaml.
        rgb: arrays among the images are RGB.
        calibration: maximum number of images for int8 calibration.
        options: the fields of `ExportSettings` (`format="onnx"`, `dynamic=True`, ...).

    Raises:
        UserError: no format has the ending, `format` has another ending, or the export fails.

    >>> from secateur.families.yolov5.model import Detector
    >>> from secateur.families.yolov5.topology import Topology
    >>> checkpoint = Checkpoint.of(Detector(Topology.from_yaml("yolov5n", nc=3)))
    >>> export(checkpoint, "fresh.onnx", image_size=64).name
    'fresh.onnx'
    """
    detector = checkpoint_of(checkpoint)
    options["format"] = format_of(path, options.get("format", ""), family_of(detector).kind)
    [settings] = settings_of(export, options, ExportSettings)
    size: Any = usable_size(detector, size_of(export, image_size))
    limit, sides = number(export, "calibration", calibration, ROUNDS), (size, size) if isinstance(size, int) else size
    with described(images, detector.names, rgb=typed(export, "rgb", rgb, bool)) as config:
        split = family_of(detector).split(config, "train", objects=False) if config is not None else None
        channels = detector.architecture.channels
        seen = calibration_images(split, sides, limit, channels=channels) if split is not None else []
    write(detector.build(), path, size, settings, about=about(detector), images=seen)
    return Path(path)


One = str | Path | NDArray[np.uint8] | torch.Tensor | Pillow.Image


@overload
def predict(
    model: Model | Predictor,
    images: One,
    *,
    rgb: bool = ...,
    image_size: Size = ...,
    device: Device = ...,
    batch_size: int = ...,
    **options: Any,
) -> Any: ...


@overload
def predict(
    model: Model | Predictor,
    images: Iterable[One | Iterable[Any]],
    *,
    rgb: bool = ...,
    image_size: Size = ...,
    device: Device = ...,
    batch_size: int = ...,
    **options: Any,
) -> list[Detections]: ...


def predict(
    model: Model | Predictor,
    images: Source,
    *,
    rgb: bool = False,
    image_size: Size = 0,
    device: Device = "auto",
    batch_size: int = 0,
    **options: Any,
) -> Any:
    """Detects objects in one image, or in each of several. Returns `supervision.Detections`, best first.

    Boxes float32 [n, 4] are in pixels of the image with its EXIF orientation applied; class names are in
    `data["class_name"]`.

    Args:
        model: a checkpoint, a detector, the path of a checkpoint or an exported file, or an opened predictor.
        images: one file, array (uint8 [H, W, 3], BGR, or [H, W], grey), tensor ([3, H, W], RGB, uint8 or floating point
            in 0..1) or PIL image gives one result. A folder, a pattern, a `.txt` list, a batch [N, ...] and a list or
            generator of these give a list in their order (folders and patterns sorted).
        rgb: arrays are RGB.
        image_size: px of the longest side, or (height, width); 0 uses the size that the model requires or stores.
        device: device to run on.
        batch_size: images per batch; 0 chooses it for the device.
        options: the fields of `BoxSettings`: `conf`, `iou`, `max_det`, `classes` (an id, a name, or several of both),
            `agnostic`.

    Raises:
        TypeError: an option is unknown, or a value has another type.
        UserError: an image cannot be read, a class is unknown, or supervision is not installed.

    >>> import numpy as np
    >>> from secateur.families.yolov5.model import Detector
    >>> from secateur.families.yolov5.topology import Topology
    >>> checkpoint = Checkpoint.of(Detector(Topology.from_yaml("yolov5n", nc=3)))
    >>> found = predict(checkpoint, np.zeros((48, 64, 3), np.uint8), image_size=64)
    >>> found.xyxy.shape, len(found.data["class_name"])
    ((0, 4), 0)
    >>> len(predict(checkpoint, (np.zeros((48, 64, 3), np.uint8) for _ in range(2)), image_size=64, classes=[0, 2]))
    2
    """
    check_supervision("secateur.predict")
    wanted = _classes(options.pop("classes", None))
    [settings] = settings_of(predict, options, BoxSettings)
    asked_at_once = number(predict, "batch_size", batch_size, Between(0, BATCH.most))
    size = size_of(predict, image_size)
    predictor, size = open_detector(predictable(predict, model), pick_device(device), image_size=size)
    if wanted is not None:
        settings = dataclasses.replace(settings, classes=wanted)
    count = asked_at_once or auto_batch_size(size if isinstance(size, int) else max(size), predictor.device)
    finder = BoxFinder(predictor, size, settings, count)
    waiting = each_image(images, rgb=typed(predict, "rgb", rgb, bool))
    found: list[Detections] = []
    while batch := list(islice(waiting, count)):
        found += [to_detections(rows, predictor.names) for rows in finder.boxes(batch)]
    return found[0] if is_one(images) else found


def _classes(given: Any) -> tuple[str | int, ...] | None:
    """Classes to keep: ids as numbers, names (and ids as text) as text; None for all."""
    if given is None:
        return None
    classes: tuple[str | int, ...] = typed(predict, "classes", given, tuple[int | str, ...])
    if not classes:
        raise UserError("secateur.predict: classes is empty. Give an id or a name, or omit it for all classes.")
    return classes
