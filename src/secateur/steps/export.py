"""The step that exports the detector and checks each file against it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from secateur.deploy.settings import ExportSettings
from secateur.ranges import ROUNDS
from secateur.steps.step import Outcome, Step, step

if TYPE_CHECKING:
    from torch import Tensor

    from secateur.data.index import Index
    from secateur.families.context import Context
    from secateur.networks.checkpoint import Checkpoint


@step("export", purpose="exports")
@dataclass(frozen=True)
class Export(Step):
    """Export the detector and compare the outputs of each file with the detector's."""

    calibration: Annotated[int, ROUNDS] = 128
    """Images used to calibrate activation ranges for int8."""
    export: ExportSettings = field(default_factory=ExportSettings)

    def describe(self) -> str:
        """The formats."""
        precision = "" if self.export.precision == "fp32" else f" {self.export.precision}"
        return f"export ({self.export.format}{precision})"

    def check(self, checkpoint: Checkpoint, context: Context) -> None:
        """Checks the names of the formats, their dependencies, and that int8 has images."""
        from secateur.deploy.exporters import check_export

        for settings in self.export.each():
            check_export(settings)
        if self.export.precision == "int8":
            context.require_images("int8")

    def run(self, checkpoint: Checkpoint, context: Context) -> Outcome:
        """Returns no row; the results are recorded in the summary."""
        return Outcome(notes={"export": self._files(checkpoint, context)})

    def _files(self, checkpoint: Checkpoint, context: Context) -> dict[str, object]:
        """Writes all formats and returns the summary entries: of the first file, and of each if there are several."""
        from secateur.deploy.exporting import exported
        from secateur.deploy.int8 import int8_costs

        stem, images, files = (
            context.place("") / f"final{context.name_suffix}",
            self._images_to_quantise_on(checkpoint, context),
            [],
        )
        measured_on = self._measured_on(checkpoint, context)
        for settings in self.export.each():
            written = exported(checkpoint, stem, context.image_size, settings, images, measured_on)
            print(f"{written.path.name}: {written.file_mb:.3f} MB ({written.precision})")
            for note in written.notes:
                print(note)
            files.append({"format": settings.format, **written.to_dict()})
        if measured_on is not None:
            places = {str(entry["format"]): stem.with_name(str(entry["file"])) for entry in files}
            costs = int8_costs(checkpoint.build(), places, measured_on, context.image_size)
            files = [{**entry, "accuracy": costs[str(entry["format"])]} for entry in files]
        return {**files[0], **({"files": files} if len(files) > 1 else {})}

    def _images_to_quantise_on(self, checkpoint: Checkpoint, context: Context) -> list[Tensor]:
        """The images for int8 calibration; empty for other precisions."""
        from secateur.deploy.int8 import calibration_images
        from secateur.families.family import family_of

        if self.export.precision != "int8":
            return []
        split = family_of(checkpoint).split_for(checkpoint, context.require_images("int8"), "train", objects=False)
        size, channels = (context.image_size, context.image_size), checkpoint.architecture.channels
        return calibration_images(split, size, self.calibration, channels=channels)

    def _measured_on(self, checkpoint: Checkpoint, context: Context) -> Index | None:
        """The images for the int8 accuracy measurement, if any."""
        from secateur.families.detection.split import index_of
        from secateur.families.family import family_of

        family = family_of(checkpoint)
        known = context.data is not None and "val" in context.data.splits and family.knows("predictor")
        if not known or self.export.precision != "int8":
            return None
        return index_of(family.split(context.require_data("int8"), "val"), "int8")
