"""What is done with a smaller detector: train, measure, write for elsewhere, ask."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray
from torch import nn

from secateur.api.arguments import context_of, refuse, taken
from secateur.compression.measuring import evaluate as measure
from secateur.compression.measuring import open_detector, usable_size, val_settings
from secateur.compression.training import Methods, train_checkpoint
from secateur.data.images import Image, ImageError
from secateur.deploy.exporters import export as write
from secateur.deploy.exporting import about, format_of
from secateur.deploy.settings import ExportSettings
from secateur.detector.checkpoint import Checkpoint, load_checkpoint
from secateur.distillation.settings import DistillSettings
from secateur.errors import UserError
from secateur.evaluation.metrics import Metrics
from secateur.evaluation.predictor import Predictor
from secateur.evaluation.validate import auto_batch_size
from secateur.machine import pick_device
from secateur.prediction.detections import check_supervision, to_detections
from secateur.prediction.media import read_picture
from secateur.prediction.predicting import Asker
from secateur.prediction.settings import BoxSettings
from secateur.prediction.streams import MediumError
from secateur.sparsity.settings import WeightSettings
from secateur.training.hyp import load_hyp
from secateur.training.settings import TrainSettings

if TYPE_CHECKING:
    from supervision import Detections

Network = TypeVar("Network", bound=nn.Module)
Model = TypeVar("Model", Checkpoint, nn.Module)
Floats = NDArray[np.float64]
Picture = str | Path | Image


def finetune(
    checkpoint: Checkpoint,
    data: str | Path,
    folder: str | Path,
    *,
    hyp: str = "scratch-low",
    teacher: Checkpoint | None = None,
    **options: Any,
) -> Checkpoint:
    """Trains on a data set; the best epoch comes back. Called again with the same folder it goes on where it was.

    Args:
        folder: for weights, results and the resumable state.
        hyp: a set of hyper-parameters by name, or a YAML file.
        teacher: of a distillation (`distill="bce+features"`): the dense detector, for example.
        options: the fields of `TrainSettings`, `WeightSettings` and `DistillSettings`.

    >>> from secateur.data.synthetic import generate
    >>> from secateur.detector.model import Detector
    >>> from secateur.detector.topology import Topology
    >>> data = generate("shapes", images=(8, 4, 4), size=64, classes=3)
    >>> checkpoint = Checkpoint.of(Detector(Topology.from_yaml("yolov5n", nc=3)))
    >>> tuned = finetune(checkpoint, data, "tuned", epochs=1, image_size=64, batch_size=4, workers=0)
    >>> tuned.history[-1].verb
    'finetune'
    """
    groups = {kind: taken(kind, options) for kind in (TrainSettings, WeightSettings, DistillSettings)}
    refuse(options)
    size = usable_size(checkpoint, groups[TrainSettings].image_size)
    settings = dataclasses.replace(groups[TrainSettings], hyp=load_hyp(hyp), image_size=size)
    context = context_of(checkpoint, data, image_size=size, seed=settings.seed, device=settings.device)
    context = dataclasses.replace(context, dense=teacher, workers=settings.workers, batch_size=settings.batch_size)
    methods = Methods(weights=groups[WeightSettings], distill=groups[DistillSettings])
    methods.check(settings)
    result = train_checkpoint(checkpoint, context, settings, Path(folder), verb="finetune", methods=methods)
    return load_checkpoint(result.best)


def evaluate(
    checkpoint: Checkpoint,
    data: str | Path,
    split: str = "val",
    *,
    image_size: int = 0,
    workers: int = 2,
    device: str = "auto",
) -> Metrics:
    """P, R, mAP50, mAP50-95, per class and overall.

    >>> from secateur.data.synthetic import generate
    >>> from secateur.detector.model import Detector
    >>> from secateur.detector.topology import Topology
    >>> data = generate("pictures", images=(4, 4, 4), size=64, classes=3)
    >>> checkpoint = Checkpoint.of(Detector(Topology.from_yaml("yolov5n", nc=3)))
    >>> 0 <= evaluate(checkpoint, data, image_size=64, workers=0).mAP50 <= 1
    True
    """
    context = context_of(checkpoint, data, image_size=image_size, device=device)
    context = dataclasses.replace(context, workers=workers)
    return measure(checkpoint, context, split, val_settings(context))


def export(checkpoint: Checkpoint, path: str | Path, *, image_size: int = 0, **options: Any) -> Path:
    """Writes a file for another runtime, after its outputs were compared with the detector's.

    Args:
        path: its ending is that of the format: "best.onnx", "best.torchscript", "best_openvino_model", "best.pt"
            (YOLOv5's own).
        options: the fields of `ExportSettings` (`dynamic=True`, ...).

    Raises:
        UserError: no format has the ending, the one named by `format` has another, or the export fails.

    >>> from secateur.detector.model import Detector
    >>> from secateur.detector.topology import Topology
    >>> checkpoint = Checkpoint.of(Detector(Topology.from_yaml("yolov5n", nc=3)))
    >>> export(checkpoint, "fresh.onnx", image_size=64).name
    'fresh.onnx'
    """
    options["format"] = format_of(path, options.get("format", ""))
    settings = taken(ExportSettings, options)
    refuse(options)
    write(checkpoint.detector(), path, usable_size(checkpoint, image_size), settings, about=about(checkpoint))
    return Path(path)


@overload
def predict(
    model: Checkpoint | Predictor | str | Path,
    pictures: Picture,
    *,
    image_size: int = ...,
    device: str = ...,
    batch_size: int = ...,
    **options: Any,
) -> Detections: ...


@overload
def predict(
    model: Checkpoint | Predictor | str | Path,
    pictures: Sequence[Picture],
    *,
    image_size: int = ...,
    device: str = ...,
    batch_size: int = ...,
    **options: Any,
) -> list[Detections]: ...


def predict(
    model: Checkpoint | Predictor | str | Path,
    pictures: Picture | Sequence[Picture],
    *,
    image_size: int = 0,
    device: str = "auto",
    batch_size: int = 0,
    **options: Any,
) -> Detections | list[Detections]:
    """What is found in one picture, or in each of several: `supervision.Detections`, best first.

    Boxes are in pixels of the picture as a viewer shows it; class names are in `data["class_name"]`.

    Args:
        model: a checkpoint, the file of one or of an export, or a predictor that is open already.
        pictures: files, or BGR arrays uint8 [H, W, 3]; one picture gives one result, several give a list.
        image_size: px of the longest side; 0 takes what the model takes or remembers.
        batch_size: pictures that are asked for at once; 0 takes what suits the device.
        options: the fields of `BoxSettings`: `conf`, `iou`, `max_det`, `classes`, `agnostic`.

    Raises:
        UserError: a picture cannot be read, or supervision is not installed.

    >>> import numpy as np
    >>> from secateur.detector.model import Detector
    >>> from secateur.detector.topology import Topology
    >>> checkpoint = Checkpoint.of(Detector(Topology.from_yaml("yolov5n", nc=3)))
    >>> found = predict(checkpoint, np.zeros((48, 64, 3), np.uint8), image_size=64)
    >>> found.xyxy.shape, len(found.data["class_name"])
    ((0, 4), 0)
    """
    check_supervision("secateur.predict")
    settings = taken(BoxSettings, options)
    refuse(options)
    predictor, size = open_detector(model, pick_device(device), image_size=image_size)
    count = batch_size or auto_batch_size(size if isinstance(size, int) else max(size), predictor.device)
    asker = Asker(predictor, size, settings, count)
    several = [pictures] if isinstance(pictures, str | Path | np.ndarray) else list(pictures)
    found: list[Detections] = []
    for start in range(0, len(several), count):
        boxes = asker.boxes([_pixels(picture) for picture in several[start : start + count]])
        found += [to_detections(rows, predictor.names) for rows in boxes]
    return found[0] if isinstance(pictures, str | Path | np.ndarray) else found


def _pixels(picture: Picture) -> Image:
    if not isinstance(picture, str | Path):
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
            raise UserError(
                f"A picture is a BGR array uint8 [H, W, 3], not {picture.dtype} {list(picture.shape)}; "
                "cv2.cvtColor makes one of grey and of transparent pictures."
            )
        return picture
    try:
        return read_picture(str(picture))
    except (ImageError, MediumError) as reason:
        raise UserError(f"{picture}: {reason}.") from None
