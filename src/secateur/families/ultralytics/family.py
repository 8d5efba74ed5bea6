"""The verbs of the family `ultralytics`, each answered by the file that knows about it."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from secateur.distillation.settings import DistillSettings
from secateur.evaluation.settings import ValSettings
from secateur.families.detection.family import DetectionFamily
from secateur.families.outputs import Answer, Decoder, Form, Opened, Outputs
from secateur.families.reading import Split
from secateur.families.training import OwnTraining
from secateur.families.ultralytics.architecture import Ultralytics
from secateur.families.ultralytics.exported import recognises
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
    opens = "detectors that Ultralytics exported"
    hands_out = ".pt"

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

    def loss(self, network: nn.Module, settings: TrainSettings) -> PackageLoss:
        """The package's own loss, with the gains of the training that the network comes from.

        Raises:
            UserError: the network does not find boxes.
        """
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
