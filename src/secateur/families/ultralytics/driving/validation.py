"""Validates with the validators of the package, and converts the results to `Scores`."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from secateur.errors import UserError, told
from secateur.evaluation.metrics import COLUMNS
from secateur.evaluation.settings import NmsSettings, ValSettings
from secateur.families.detection.split import index_of
from secateur.families.reading import Split
from secateur.families.ultralytics.driving.data import (
    LISTS,
    caches_in_memory,
    described,
    folders_of_classes,
    kept_threads,
)
from secateur.families.ultralytics.driving.recording import RECORDED, KeptBoxes
from secateur.families.ultralytics.network import UltralyticsNetwork
from secateur.families.ultralytics.package import needed, quiet
from secateur.scores import Scores
from secateur.terminal import bar

VALIDATORS = {
    "detect": ("models.yolo.detect", "DetectionValidator"),
    "segment": ("models.yolo.segment", "SegmentationValidator"),
    "pose": ("models.yolo.pose", "PoseValidator"),
    "obb": ("models.yolo.obb", "OBBValidator"),
    "classify": ("models.yolo.classify", "ClassificationValidator"),
}
BATCH = 16
"""Batch size of `val` in the package; the padding of images depends on it."""
_PARTS = {"detect": ("",), "obb": ("",), "segment": ("", "mask "), "pose": ("", "pose ")}
"""Prefixes of the figures: for boxes, and for the additional outputs of the task."""
_LETTERS = {"": "B", "mask ": "M", "pose ": "P"}
_FIGURES = tuple(COLUMNS)
_PHASES = {"preprocess": "preprocess", "inference": "inference", "postprocess": "nms"}
"""Names of the phases that the package times; a classifier has no suppression."""


def validated(
    network: UltralyticsNetwork,
    split: Split,
    settings: ValSettings,
    *,
    precision: str = "fp32",
    folder: Path | None = None,
    progress: bool = True,
) -> Scores:
    """The scores from the validator of the package; the network is not changed. See `Family.evaluate`.

    With the default suppression options, they equal those of `YOLO(...).val(nms=False)`.

    Raises:
        UserError: the package does not support an option, or cannot read the labels.
    """
    task = network.architecture.task
    _check_labels(split, task)
    with tempfile.TemporaryDirectory() as temporary, kept_threads(), quiet(), caches_in_memory():
        place = Path(temporary)
        options = {
            **_options(network, settings, precision),
            "data": str(_data_of(network, split, settings, place)),
            "plots": settings.plots and folder is not None,
            "save_json": settings.save_json and folder is not None,
        }
        module, kind = VALIDATORS[task]
        validator_class, kept = getattr(needed(module), kind), None
        if settings.detections and task in RECORDED:
            kept = KeptBoxes((place / LISTS["val"]).read_text(encoding="utf-8").splitlines())
            validator_class = kept.watching(validator_class)
        validator = validator_class(args=options, save_dir=folder or place / "val")
        count = -(-len(split) // options["batch"])
        with bar("validating", shown=progress) as shown:
            ticks = shown.add_task("", total=count)
            validator.add_callback("on_val_batch_end", lambda _: shown.advance(ticks))
            try:
                validator(model=network.model)
            except (AssertionError, FileNotFoundError, KeyError, RuntimeError, TypeError, ValueError) as error:
                raise UserError(
                    f"The package ultralytics cannot validate on these images: {told(error, 200)}"
                ) from error
    if task == "classify":
        return _of_classifier(validator, len(split))
    _check_found(validator, split)
    scores = _of_boxes(validator, task)
    if kept is None:
        return scores
    nms = replace(settings.nms, conf=validator.args.conf, iou=validator.args.iou, max_det=validator.args.max_det)
    index, names = index_of(split, "A validation of boxes"), dict(validator.names)
    return replace(scores, detections=kept.record(index, names, nms, single_cls=settings.single_cls))


def _options(network: UltralyticsNetwork, settings: ValSettings, precision: str) -> dict[str, Any]:
    """Options of a validator."""
    if precision == "bf16":
        raise UserError("The package ultralytics validates only in fp32 or fp16. Set one of them with --precision.")
    if not isinstance(settings.image_size, int):
        raise UserError("The package ultralytics validates only on square images. Set --image-size to one number.")
    device = next(network.parameters()).device
    nms = settings.nms
    # By default, use the defaults of the package, so that the figures match the published ones.
    chosen = {} if nms == NmsSettings() else {"conf": nms.conf, "iou": nms.iou, "max_det": nms.max_det}
    return {
        "task": network.architecture.task,
        "mode": "val",
        "split": "val",
        "imgsz": settings.image_size,
        "batch": settings.batch_size or BATCH,
        "device": "cpu" if device.type == "cpu" else str(device.index or 0) if device.type == "cuda" else device.type,
        "workers": settings.workers,
        "rect": settings.rectangular,
        "quantize": 16 if precision == "fp16" else None,
        "agnostic_nms": nms.agnostic,
        "single_cls": settings.single_cls,
        "nms": False if network.architecture.end_to_end else None,
        "verbose": False,
        **chosen,
    }


def _data_of(network: UltralyticsNetwork, split: Any, settings: ValSettings, folder: Path) -> Path:
    """The description of the images and labels of a split for the package."""
    files = split.index.files
    names = {0: next(iter(network.names.values()))} if settings.single_cls else network.names
    if network.architecture.task == "classify":
        return folders_of_classes(folder, files, split.classes, len(names))
    points = getattr(network.head, "kpt_shape", None)
    more = {} if points is None else {"kpt_shape": list(points)}
    channels = network.architecture.channels
    return described(folder, {"train": split, "val": split}, names, channels=channels, **more)


def _check_labels(split: Any, task: str) -> None:
    """Checks that the labels are for the task.

    Raises:
        UserError: they are not; the message states what the task needs.
    """
    folders, index = hasattr(split, "classes"), split.index
    if folders != (task == "classify"):
        needs = "a folder with one folder per class" if task == "classify" else "a data.yaml"
        raise UserError(f"A network of Ultralytics for the task '{task}' needs {needs}. Set it with --data.")
    if task in ("segment", "obb") and len(index.labels) and not len(index.points):
        needs = "the points of a polygon" if task == "segment" else "four corners"
        raise UserError(
            f"A network of Ultralytics for the task '{task}' needs a class and {needs} in every row of its labels, but "
            "these labels are boxes. Set --data to a data set for that task."
        )


def _check_found(validator: Any, split: Any) -> None:
    """Checks that the package has found the existing labels.

    Raises:
        UserError: it has not; the message states where it looks for them.
    """
    if len(split.index.labels) and not int(np.sum(validator.metrics.nt_per_class)):
        raise UserError(
            "The package ultralytics finds no labels for these images. It looks for them in labels/ next to images/. "
            "Move them there."
        )


def _of_boxes(validator: Any, task: str) -> Scores:
    """Scores of boxes, and of masks or key points."""
    metrics, parts = validator.metrics, _PARTS[task]
    names = [f"{part}{figure}" for part in parts for figure in _FIGURES]
    columns = {
        f"{part}{figure}": column if len(parts) == 1 else f"{column}({_LETTERS[part]})"
        for part in parts
        for figure, column in COLUMNS.items()
    }
    rows = [
        {
            "class": int(number),
            "name": validator.names[int(number)],
            "images": int(metrics.nt_per_image[number]),
            "instances": int(metrics.nt_per_class[number]),
            **dict(zip(names, map(float, metrics.class_result(place)), strict=True)),
        }
        for place, number in enumerate(metrics.ap_class_index)
    ]
    return Scores(
        f"{parts[-1]}mAP50-95",
        dict(zip(names, map(float, metrics.mean_results()), strict=True)),
        coarse=f"{parts[-1]}mAP50",
        columns=columns,
        counts={"images": int(validator.seen), "instances": int(np.sum(metrics.nt_per_class))},
        rows=rows,
        speed_ms=_speed(validator.speed),
    )


def _of_classifier(validator: Any, images: int) -> Scores:
    metrics = validator.metrics
    values = {"top-1": float(metrics.top1), "top-5": float(metrics.top5)}
    columns = {"top-1": "metrics/accuracy_top1", "top-5": "metrics/accuracy_top5"}
    return Scores(
        "top-1", values, columns=columns, counts={"images": images}, speed_ms=_speed(validator.speed, boxes=False)
    )


def _speed(measured: Mapping[str, float], boxes: bool = True) -> dict[str, float]:
    return {ours: float(measured[theirs]) for theirs, ours in _PHASES.items() if boxes or ours != "nms"}
