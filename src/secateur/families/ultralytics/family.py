"""The verbs of the family `ultralytics`, each answered by the file that knows about it."""

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
    """Networks that the user's own package `ultralytics` builds."""

    kind = Ultralytics.kind
    title = "Ultralytics"
    architecture = Ultralytics
    imitated = "raw"
    opens = "detectors that Ultralytics exported"
    hands_out = ".pt"
    healing = HealDefaults(lr=0.00003, norms="keep")

    def reads(self, file: Path) -> bool:
        """A `.pt` whose pickle names the package's models."""
        return is_theirs(file)

    def read(self, file: Path, cfg: str | Path = "") -> Checkpoint:
        """A `.pt` of the package, as data."""
        return read_file(file)

    def write(self, network: nn.Module, file: Path, image_size: int) -> str:
        """A `.pt` that `YOLO(...)` loads without Secateur."""
        assert isinstance(network, UltralyticsNetwork)
        return write_file(network, file, image_size)

    def flaw(self, checkpoint: Checkpoint) -> str:
        """A name for every class."""
        nc = checkpoint.architecture.nc
        return "" if set(checkpoint.names) == set(range(nc)) else f"{len(checkpoint.names):,} names for {nc:,} classes"

    def pick_classes(self, checkpoint: Checkpoint, classes: tuple[int, ...]) -> Checkpoint:
        """The last layers of the branches for classes.

        Raises:
            UserError: fewer classes of a classifier, which divides its certainty among all.
        """
        architecture = checkpoint.architecture
        assert isinstance(architecture, Ultralytics)
        if architecture.task == "classify" and len(classes) < architecture.nc:
            raise UserError(
                "A classifier divides its certainty among its classes, so what it says of some changes without the "
                "others; --classes is for detectors."
            )
        return super().pick_classes(checkpoint, classes)

    def open_data(self, file: str) -> Any:
        """The `DataConfig` of a data.yaml, or the `ClassFolders` of a folder.

        Raises:
            UserError: it is missing or broken.
        """
        return ClassFolders.of(file) if Path(file).expanduser().is_dir() else super().open_data(file)

    def split(self, data: Any, name: str, *, objects: bool = True, otherwise: str = "", tell: bool = False) -> Any:
        """The images of a split with their boxes, or with the class of each."""
        if isinstance(data, ClassFolders):
            return ClassSplit.of(data, name, tell=tell)
        return super().split(data, name, objects=objects, otherwise=otherwise, tell=tell)

    def split_for(self, subject: Checkpoint | nn.Module, data: Any, name: str, **how: Any) -> Any:
        """The images of a split with what the loss of the network's task reads; those of classifiers are crops.

        Raises:
            UserError: also where the labels are of another task.
        """
        network = subject.build() if isinstance(subject, Checkpoint) else subject
        assert isinstance(network, UltralyticsNetwork)
        task, folders = network.architecture.task, isinstance(data, ClassFolders)
        labels = data.labelled and how.get("objects", True)
        if labels and folders != (task == "classify"):
            needs = "a folder with a folder for each class" if task == "classify" else "a data.yaml"
            raise UserError(
                f"A network of the task '{task}' needs {needs} as --data, and {data.file} is something else."
            )
        if task == "classify":
            return ClassSplit.of(data, name, tell=how.get("tell", False))
        split = self.split(data, name, **how)
        return TaskSplit.of(split, data, network) if labels and task != "detect" else split

    def targets_of(self, targets: Tensor, image: int) -> Tensor:
        """The rows of one image, or its class."""
        return targets[image : image + 1] if targets.ndim == 1 else super().targets_of(targets, image)

    def check_targets(self, network: nn.Module, targets: Tensor) -> None:
        """Classes that the network has, in rows or class ids [B]."""
        super().check_targets(network, torch.stack((targets, targets), 1) if targets.ndim == 1 else targets)

    def own_labels(self, whole: nn.Module, seed: int) -> OwnLabels:
        """What the network believes to see, for its task."""
        assert isinstance(whole, UltralyticsNetwork)
        if whole.architecture.task == "detect":
            return super().own_labels(whole, seed)
        return (OwnClasses if whole.architecture.task == "classify" else OwnAnswers)(whole, seed)

    def predictor(self, network: nn.Module, precision: str = "fp32") -> TorchPredictor:
        """Boxes of a network that gives some.

        Raises:
            UserError: it finds oriented boxes or classes.
        """
        assert isinstance(network, UltralyticsNetwork)
        if not isinstance(network, ProposingYOLO | DecidingYOLO):
            raise UserError(
                f"A network of Ultralytics for the task '{network.architecture.task}' gives no upright boxes, which is "
                "what Secateur predicts: write it with `secateur export --format ultralytics` and ask YOLO()."
            )
        return super().predictor(network, precision)

    def loss(self, network: nn.Module, settings: TrainSettings) -> PackageLoss:
        """The package's own loss for its task, with the gains of the training that the network comes from."""
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
        """What the package's own validator measures; see `driving.validation.validated`."""
        from secateur.families.ultralytics.driving.validation import validated

        assert isinstance(network, UltralyticsNetwork)
        return validated(network, split, settings, precision=precision, folder=folder, progress=progress)

    def check_fit(self, settings: TrainSettings, distill: DistillSettings) -> None:
        """See `driving.options.check_settings`."""
        from secateur.families.ultralytics.driving.options import check_settings

        check_settings(settings, distill)

    def fit(self, training: OwnTraining) -> FitResult:
        """The package's own trainer of the task; see `driving.training.trained_by_the_package`."""
        from secateur.families.ultralytics.driving.training import trained_by_the_package

        return trained_by_the_package(training)

    def head(self, network: nn.Module) -> tuple[str, ...]:
        """The first convolutions of the head's levels, which read the maps before it."""
        assert isinstance(network, UltralyticsNetwork)
        return network.reads_maps()

    def distillations(self) -> tuple[str, ...]:
        """Those of every family, and `raw`, the head's outputs as what they are."""
        return (*super().distillations(), "raw")

    def method(self, name: str, settings: DistillSettings, network: nn.Module) -> Method:
        """See `HeadAnswers`."""
        assert isinstance(network, UltralyticsNetwork)
        return HeadAnswers(settings, network) if name == "raw" else super().method(name, settings, network)

    def outputs(self, network: nn.Module, form: Form) -> Outputs:
        """Boxes of detectors; of other tasks what the head gives."""
        if isinstance(network, ProposingYOLO | DecidingYOLO):
            return super().outputs(network, form)
        return head_outputs(network, form)

    def recognises(self, answer: Answer) -> Decoder | str:
        """Columns of boxes and class scores, or final boxes, of the package's own exports."""
        return recognises(answer)

    def decoder(self, opened: Opened) -> Decoder | None:
        """The inverse of `outputs`."""
        return super().decoder(opened) if opened.told.get("task") == "detect" else None
