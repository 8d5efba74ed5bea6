"""The verbs of the family `ultralytics`, each answered by the file that knows about it."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from secateur.errors import UserError
from secateur.families.detection.family import DetectionFamily
from secateur.families.outputs import Decoder, Form, Opened, Outputs, own_outputs
from secateur.families.ultralytics.architecture import Ultralytics
from secateur.families.ultralytics.loss import PackageLoss
from secateur.families.ultralytics.network import DecidingYOLO, ProposingYOLO, UltralyticsNetwork
from secateur.families.ultralytics.reading import is_theirs, read_file
from secateur.families.ultralytics.writing import write_file
from secateur.networks.checkpoint import Checkpoint
from secateur.training.settings import TrainSettings


class UltralyticsFamily(DetectionFamily):
    """Networks that the user's own package `ultralytics` builds."""

    kind = Ultralytics.kind
    title = "Ultralytics"
    architecture = Ultralytics

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

    def loss(self, network: nn.Module, settings: TrainSettings) -> PackageLoss:
        """The package's own loss, with the gains of the training that the network comes from.

        Raises:
            UserError: the network does not find boxes.
        """
        assert isinstance(network, UltralyticsNetwork)
        return PackageLoss(network)

    def head(self, network: nn.Module) -> tuple[str, ...]:
        """The first convolutions of the head's levels, which read the maps before it."""
        assert isinstance(network, UltralyticsNetwork)
        return network.reads_maps()

    def outputs(self, network: nn.Module, form: Form) -> Outputs:
        """Boxes of detectors; of other tasks what the head gives."""
        if isinstance(network, ProposingYOLO | DecidingYOLO):
            return super().outputs(network, form)
        return own_outputs(network, form)

    def decoder(self, opened: Opened) -> Decoder | None:
        """The inverse of `outputs`."""
        return super().decoder(opened) if opened.told.get("task") == "detect" else None
