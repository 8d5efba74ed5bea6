"""The verbs of the family `ultralytics`; each one delegates to the file that implements it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateur.distillation.methods import Method
from secateur.distillation.settings import DistillSettings, HealDefaults
from secateur.errors import UserError
from secateur.evaluation.settings import ValSettings
from secateur.families.detection.family import DetectionFamily
from secateur.families.detection.predictor import TorchPredictor
from secateur.families.family import OwnLabels
from secateur.families.outputs import Answer, Decoder, Form, Opened, Outputs
from secateur.families.reading import Split
from secateur.families.training import OwnTraining
from secateur.families.ultralytics.architecture import Ultralytics
from secateur.families.ultralytics.evidence.class_split import ClassFolders, ClassSplit
from secateur.families.ultralytics.evidence.own_answers import OwnAnswers, OwnClasses
from secateur.families.ultralytics.evidence.task_split import TaskSplit
from secateur.families.ultralytics.exported import recognises
from secateur.families.ultralytics.imitation import HeadAnswers
from secateur.families.ultralytics.loss import PackageLoss
from secateur.families.ultralytics.network import DecidingYOLO, ProposingYOLO, UltralyticsNetwork
from secateur.families.ultralytics.outputs import head_outputs
from secateur.families.ultralytics.reading import is_theirs, read_file
from secateur.families.ultralytics.writing import write_file
from secateur.networks.checkpoint import Checkpoint
from secateur.scores import Scores
from secateur.training.loop import FitResult
from secateur.training.settings import TrainSettings


class UltralyticsFamily(DetectionFamily):
    """Networks built by the installed package `ultralytics`."""

    kind = Ultralytics.kind
    title = "Ultralytics"
    architecture = Ultralytics
    imitated = "raw"
    opens = "detectors exported by Ultralytics"
    hands_out = ".pt"
    healing = HealDefaults(lr=0.00003, norms="keep")

    def reads(self, file: Path) -> bool:
        """Whether the file is a `.pt` whose pickle names models of the package."""
        return is_theirs(file)

    def read(self, file: Path, cfg: str | Path = "") -> Checkpoint:
        """Reads a `.pt` of the package as data."""
        return read_file(file)

    def write(self, network: nn.Module, file: Path, image_size: int) -> str:
        """Writes a `.pt` that `YOLO(...)` loads without Secateur."""
        assert isinstance(network, UltralyticsNetwork)
        return write_file(network, file, image_size)

    def flaw(self, checkpoint: Checkpoint) -> str:
        """Checks that every class has a name."""
        nc = checkpoint.architecture.nc
        return "" if set(checkpoint.names) == set(range(nc)) else f"{len(checkpoint.names):,} names for {nc:,} classes"

    def pick_classes(self, checkpoint: Checkpoint, classes: tuple[int, ...]) -> Checkpoint:
        """The checkpoint with reduced last layers of the class branches.

        Raises:
            UserError: the network is a classifier, whose probabilities depend on all classes.
        """
        architecture = checkpoint.architecture
        assert isinstance(architecture, Ultralytics)
        if architecture.task == "classify" and len(classes) < architecture.nc:
            raise UserError(
                "The probabilities of a classifier depend on all of its classes, so it cannot be narrowed with "
                "--classes. --classes is for detectors."
            )
        return super().pick_classes(checkpoint, classes)

    def open_data(self, file: str) -> Any:
        """Opens a data.yaml as a `DataConfig`, or a folder as `ClassFolders`.

        Raises:
            UserError: it is missing or damaged.
        """
        return ClassFolders.of(file) if Path(file).expanduser().is_dir() else super().open_data(file)

    def split(self, data: Any, name: str, *, objects: bool = True, otherwise: str = "", tell: bool = False) -> Any:
        """The images of a split with their boxes, or with their classes."""
        if isinstance(data, ClassFolders):
            return ClassSplit.of(data, name, tell=tell)
        return super().split(data, name, objects=objects, otherwise=otherwise, tell=tell)

    def split_for(self, subject: Checkpoint | nn.Module, data: Any, name: str, **how: Any) -> Any:
        """The images of a split with the labels for the task of the network; classifiers get cropped images.

        Raises:
            UserError: see `Family.split`; also if the labels are for another task.
        """
        network = subject.build() if isinstance(subject, Checkpoint) else subject
        assert isinstance(network, UltralyticsNetwork)
        task, folders = network.architecture.task, isinstance(data, ClassFolders)
        labels = data.labelled and how.get("objects", True)
        if labels and folders != (task == "classify"):
            needs = "a folder with one folder per class" if task == "classify" else "a data.yaml"
            raise UserError(
                f"A network of the task '{task}' needs {needs} as --data, but {data.file} is something else."
            )
        if task == "classify":
            return ClassSplit.of(data, name, tell=how.get("tell", False))
        split = self.split(data, name, **how)
        return TaskSplit.of(split, data, network) if labels and task != "detect" else split

    def targets_of(self, targets: Tensor, image: int) -> Tensor:
        """The rows [T, 6] (or more columns) of one image, or its class [1]."""
        return targets[image : image + 1] if targets.ndim == 1 else super().targets_of(targets, image)

    def check_targets(self, network: nn.Module, targets: Tensor) -> None:
        """Checks that the network has all classes in rows [T, 6] (or more columns) or class ids [B]."""
        super().check_targets(network, torch.stack((targets, targets), 1) if targets.ndim == 1 else targets)

    def own_labels(self, whole: nn.Module, seed: int) -> OwnLabels:
        """Labels sampled from the predictions of the network, for its task."""
        assert isinstance(whole, UltralyticsNetwork)
        if whole.architecture.task == "detect":
            return super().own_labels(whole, seed)
        return (OwnClasses if whole.architecture.task == "classify" else OwnAnswers)(whole, seed)

    def predictor(self, network: nn.Module, precision: str = "fp32") -> TorchPredictor:
        """A predictor of boxes.

        Raises:
            UserError: the network predicts oriented boxes or classes.
        """
        assert isinstance(network, UltralyticsNetwork)
        if not isinstance(network, ProposingYOLO | DecidingYOLO):
            raise UserError(
                f"A network of Ultralytics for the task '{network.architecture.task}' has no axis-aligned boxes to "
                "predict. Export it with `secateur export --format ultralytics` and predict with YOLO()."
            )
        return super().predictor(network, precision)

    def loss(self, network: nn.Module, settings: TrainSettings) -> PackageLoss:
        """The loss of the package for the task, with the gains of the training that the network comes from."""
        assert isinstance(network, UltralyticsNetwork)
        return PackageLoss(network)

    def evaluate(
        self,
        network: nn.Module,
        split: Split,
        settings: ValSettings,
        *,
        precision: str = "fp32",
        folder: Path | None = None,
        progress: bool = True,
    ) -> Scores:
        """Scores from the validator of the package; see `driving.validation.validated`."""
        from secateur.families.ultralytics.driving.validation import validated

        assert isinstance(network, UltralyticsNetwork)
        return validated(network, split, settings, precision=precision, folder=folder, progress=progress)

    def check_fit(self, settings: TrainSettings, distill: DistillSettings) -> None:
        """See `driving.options.check_settings`."""
        from secateur.families.ultralytics.driving.options import check_settings

        check_settings(settings, distill)

    def fit(self, training: OwnTraining) -> FitResult:
        """Trains with the trainer of the package; see `driving.training.trained_by_the_package`."""
        from secateur.families.ultralytics.driving.training import trained_by_the_package

        return trained_by_the_package(training)

    def head(self, network: nn.Module) -> tuple[str, ...]:
        """The first convolutions of the levels of the head, which read the feature maps."""
        assert isinstance(network, UltralyticsNetwork)
        return network.reads_maps()

    def distillations(self) -> tuple[str, ...]:
        """The methods of every family, and `raw`, which compares the outputs of the head."""
        return (*super().distillations(), "raw")

    def method(self, name: str, settings: DistillSettings, network: nn.Module) -> Method:
        """See `HeadAnswers`."""
        assert isinstance(network, UltralyticsNetwork)
        return HeadAnswers(settings, network) if name == "raw" else super().method(name, settings, network)

    def outputs(self, network: nn.Module, form: Form) -> Outputs:
        """Boxes for detectors; the outputs of the head for other tasks."""
        if isinstance(network, ProposingYOLO | DecidingYOLO):
            return super().outputs(network, form)
        return head_outputs(network, form)

    def recognises(self, answer: Answer) -> Decoder | str:
        """Recognises exports of the package: columns [B, 4 + nc, N] of boxes and class scores, or final boxes [B, n,
        6]."""
        return recognises(answer)

    def decoder(self, opened: Opened) -> Decoder | None:
        """The inverse of `outputs`."""
        return super().decoder(opened) if opened.told.get("task") == "detect" else None
