"""Methods that all families of detectors share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateur.data.config import load_data_config
from secateur.errors import UserError
from secateur.evaluation.settings import ValSettings
from secateur.families.detection.outputs import detector_decoder, detector_outputs
from secateur.families.detection.predictor import TorchPredictor
from secateur.families.detection.split import DetectionSplit, index_of
from secateur.families.family import Family, OwnLabels
from secateur.families.outputs import Decoder, Form, Opened, Outputs
from secateur.families.reading import Split
from secateur.networks.checkpoint import Checkpoint
from secateur.networks.picked_classes import picked


class DetectionFamily(Family):
    """Networks that find boxes. A subclass defines how networks are built, their loss, and their predictions."""

    def pick_classes(self, checkpoint: Checkpoint, classes: tuple[int, ...]) -> Checkpoint:
        """The checkpoint with only the entries of these classes in every tensor with a class dimension."""
        return picked(checkpoint, classes)

    def open_data(self, file: str) -> Any:
        """Reads a YOLO data.yaml as a `DataConfig`.

        Raises:
            UserError: the file is missing or damaged.
        """
        return load_data_config(file)

    def split(
        self, data: Any, name: str, *, objects: bool = True, otherwise: str = "", tell: bool = False
    ) -> DetectionSplit:
        """The images of a split with their boxes; see `DetectionSplit.of`."""
        return DetectionSplit.of(data, name, objects=objects, otherwise=otherwise, tell=tell)

    def targets_of(self, targets: Tensor, image: int) -> Tensor:
        """The rows of one image of targets [T, 6] (image, class, x, y, w, h), with image index 0."""
        own = targets[targets[:, 0] == image]
        return torch.cat([torch.zeros_like(own[:, :1]), own[:, 1:]], 1)

    def check_targets(self, network: nn.Module, targets: Tensor) -> None:
        """Checks that the detector has all classes in targets [T, 6] (image, class, x, y, w, h)."""
        classes = int(getattr(network, "nc"))  # noqa: B009 (no attribute of every module)
        if len(targets) and float(targets[:, 1].max()) >= classes:
            raise UserError(
                f"A label has class id {int(targets[:, 1].max())}, but the detector has {classes} classes (ids 0 to "
                f"{classes - 1}). Correct the label, or start from a detector with the classes of the data set."
            )

    def own_labels(self, whole: nn.Module, seed: int) -> OwnLabels:
        """Boxes sampled from the detections of the network according to their scores; see `OwnDetections`."""
        from secateur.families.detection.own_labels import OwnDetections

        return OwnDetections(self.predictor(whole), seed)

    def evaluate(
        self,
        network: nn.Module,
        split: Split,
        settings: ValSettings,
        *,
        precision: str = "fp32",
        folder: Path | None = None,
        progress: bool = True,
    ) -> Any:
        """Precision, recall and average precision of the boxes of the network; see `evaluation.validate.validate`."""
        from secateur.evaluation.validate import validate

        index = index_of(split, "A validation of boxes")
        return validate(self.predictor(network, precision), index, settings, folder=folder, progress=progress)

    def agreement(
        self, dense: nn.Module, network: nn.Module, split: Split, settings: ValSettings, *, progress: bool = True
    ) -> Any:
        """Average precision against the boxes of the dense network; see `detection.agreement.agreement`."""
        from secateur.families.detection.agreement import agreement

        index = index_of(split, "An agreement of boxes")
        return agreement(self.predictor(dense), self.predictor(network), index, settings, progress=progress)

    def predictor(self, network: nn.Module, precision: str = "fp32") -> TorchPredictor:
        """See `TorchPredictor`."""
        return TorchPredictor(network, precision)

    def outputs(self, network: nn.Module, form: Form) -> Outputs:
        """Every candidate with its scores, or final boxes; see `detector_outputs`."""
        return detector_outputs(network, form)

    def decoder(self, opened: Opened) -> Decoder | None:
        """The inverse of `outputs`."""
        return detector_decoder(opened)
