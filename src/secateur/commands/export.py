"""`secateur export`: exports a checkpoint to files for other runtimes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from secateur import sizes
from secateur.commands import Summary, command
from secateur.deploy.settings import ExportSettings
from secateur.errors import UserError
from secateur.ranges import ROUNDS, Advanced
from secateur.runs.fields import Data, ImageSize, UnlabelledImages, Weights
from secateur.runs.folders import OutputOptions, finish, require

if TYPE_CHECKING:
    from torch import Tensor

    from secateur.data.index import Index
    from secateur.networks.checkpoint import Checkpoint


@dataclass(frozen=True)
class ExportOptions:
    """Export a checkpoint to files for other runtimes and check their outputs against the detector."""

    weights: Weights = ""
    cfg: Advanced[str] = ""
    """Model YAML file or name. Needed only for weights that are a state dict without the network."""
    image_size: ImageSize = 0
    data: Data = ""
    images: UnlabelledImages = ""
    calibration: Annotated[int, ROUNDS] = 128
    """Images used to calibrate activation ranges for int8."""
    measure: Advanced[bool] = True
    """With int8 and --data: evaluate the detector and the exported file on the val split."""
    export: ExportSettings = field(default_factory=ExportSettings)
    place: OutputOptions = field(default_factory=OutputOptions)


@command("export", "export to other runtimes and check the outputs", lambda: ExportOptions, order=100)
def export(options: ExportOptions) -> Summary:
    """Writes one file per format into a new folder."""
    from secateur.deploy.exporters import check_export
    from secateur.deploy.exporting import exported
    from secateur.deploy.int8 import int8_costs
    from secateur.deploy.runtimes import is_exported
    from secateur.families.evaluation import describe, usable_size
    from secateur.families.family import family_of
    from secateur.families.loading import load_checkpoint
    from secateur.runs.ending.next_line import looked_at, prediction, say
    from secateur.terminal import stage

    weights = require(options.weights, "--weights", "best.pt")
    each = options.export.each()
    for settings in each:
        check_export(settings)
    checkpoint = load_checkpoint(weights, options.cfg)
    image_size = usable_size(checkpoint, options.image_size)
    images = _images_to_quantise_on(options, checkpoint, image_size) if options.export.precision == "int8" else []
    measured_on = _measured_on(options, checkpoint)
    written = []
    with options.place.new("export") as folder:
        for number, settings in enumerate(each):
            stem = folder / Path(weights).stem
            with stage(settings.format, number + 1, len(each), [later.format for later in each[number + 1 :]]):
                result = exported(checkpoint, stem, image_size, settings, images, measured_on)
            print(f"{result.path}: {result.file_mb:.2f} MB, {_nearness(result.max_error, settings.precision)}")
            for note in result.notes:
                print(note)
            written.append({"format": settings.format, **result.to_dict()})
        if measured_on is not None and options.measure:
            files = {entry["format"]: folder / entry["file"] for entry in written}
            costs = int8_costs(checkpoint.build(), files, measured_on, image_size)
            written = [{**entry, "accuracy": costs[entry["format"]]} for entry in written]
        summary = {"command": "export", "model": describe(checkpoint, image_size)}
        summary = finish(folder, summary | {"export": written[0], "files": written})
        opened = next((entry["file"] for entry in written if is_exported(folder / entry["file"])), "")
        source = looked_at(family_of(checkpoint).open_data(options.data) if options.data else None, options.images)
        say(prediction(folder / opened, checkpoint, source) if opened else "")
        return summary


def _nearness(error: float, precision: str) -> str:
    if precision == "int8":
        return f"mean difference of the scores from the network's {error:.3f}"
    return f"outputs within {error:.1e} of the network's"


def _images_to_quantise_on(options: ExportOptions, checkpoint: Checkpoint, image_size: sizes.ImageSize) -> list[Tensor]:
    """The images for int8 calibration, each float32 [1, C, H, W] in 0..1.

    Raises:
        UserError: no images are given, or none are found.
    """
    from secateur.data.config import unlabelled_images
    from secateur.deploy.int8 import calibration_images
    from secateur.families.family import family_of

    family = family_of(checkpoint)
    if options.images:
        config = unlabelled_images(options.images, checkpoint.names)
    elif options.data:
        config = family.open_data(options.data)
    else:
        raise UserError("int8 calibration needs images. Give --data data.yaml or --images images/.")
    split = family.split_for(checkpoint, config, "train", tell=True, objects=False)
    channels = checkpoint.architecture.channels
    return calibration_images(split, sizes.sides_of(image_size), options.calibration, channels=channels)


def _measured_on(options: ExportOptions, checkpoint: Checkpoint) -> Index | None:
    """The images for measuring int8 accuracy or limiting its drop; None if neither is requested or possible."""
    from secateur.families.context import known_data
    from secateur.families.detection.split import index_of
    from secateur.families.family import family_of

    asked = options.measure or options.export.accuracy_drop > 0
    family = family_of(checkpoint)
    if not asked or not options.data or options.export.precision != "int8" or not family.knows("predictor"):
        return None
    config = known_data(checkpoint, family.open_data(options.data), options.weights)
    return index_of(family.split(config, "val", tell=True), "int8")
