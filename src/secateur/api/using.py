"""What is done with a smaller detector: train, measure, write for elsewhere, ask."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from secateur.api.arguments import context_of, refuse, taken
from secateur.compression.measuring import evaluate as measure
from secateur.compression.measuring import usable_size, val_settings
from secateur.compression.training import Methods, train_checkpoint
from secateur.data.letterbox import Picture, letterboxed, to_original
from secateur.deploy.exporters import export as write
from secateur.deploy.exporting import about
from secateur.deploy.settings import ExportSettings
from secateur.detector.checkpoint import Checkpoint, load_checkpoint
from secateur.distillation.settings import DistillSettings
from secateur.evaluation.metrics import Metrics
from secateur.evaluation.predictor import TorchPredictor
from secateur.evaluation.settings import PREDICTION
from secateur.machine import pick_device
from secateur.sparsity.settings import WeightSettings
from secateur.training.hyp import load_hyp
from secateur.training.settings import TrainSettings

Network = TypeVar("Network", bound=nn.Module)
Model = TypeVar("Model", Checkpoint, nn.Module)
Floats = NDArray[np.float64]


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
        options: the fields of `ExportSettings` (`format="onnx"`, `dynamic=True`, ...).

    >>> from secateur.detector.model import Detector
    >>> from secateur.detector.topology import Topology
    >>> checkpoint = Checkpoint.of(Detector(Topology.from_yaml("yolov5n", nc=3)))
    >>> export(checkpoint, "fresh.onnx", image_size=64).name
    'fresh.onnx'
    """
    settings = taken(ExportSettings, options)
    refuse(options)
    write(checkpoint.detector(), path, usable_size(checkpoint, image_size), settings, about=about(checkpoint))
    return Path(path)


def predict(
    checkpoint: Checkpoint,
    pictures: Picture | Sequence[Picture],
    *,
    image_size: int = 0,
    conf: float = 0.25,
    iou: float = 0.45,
    device: str = "auto",
) -> list[Tensor]:
    """Boxes float32 [n, 6] of each picture: x1, y1, x2, y2 in its pixels, confidence, class; best first.

    Args:
        pictures: files, or BGR arrays uint8 [H, W, 3], one or several.

    >>> import numpy as np
    >>> from secateur.detector.model import Detector
    >>> from secateur.detector.topology import Topology
    >>> checkpoint = Checkpoint.of(Detector(Topology.from_yaml("yolov5n", nc=3)))
    >>> predict(checkpoint, np.zeros((48, 64, 3), np.uint8), image_size=64)[0].shape
    torch.Size([0, 6])
    """
    several: list[Picture] = list(pictures) if isinstance(pictures, list | tuple) else [pictures]  # type: ignore[list-item]
    size, settings = usable_size(checkpoint, image_size), dataclasses.replace(PREDICTION, conf=conf, iou=iou)
    predictor = TorchPredictor(checkpoint.detector().to(pick_device(device)))
    results = []
    for picture in several:
        image, fit = letterboxed(picture, size)
        boxes = predictor.predict(image[None], settings)[0]
        results.append(to_original(boxes.cpu(), fit))
    return results
