"""`secateur predict` and its synonym `secateur detect`: detects objects in images, videos and streams."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

from tyro.conf import Positional, arg

from secateur import sizes
from secateur.commands import Summary, command
from secateur.errors import PartlyDoneError, UserError
from secateur.prediction.settings import BoxSettings, DrawSettings, ReadSettings, WriteSettings
from secateur.ranges import BATCH, Advanced, Between
from secateur.runs.fields import Device, ImageSize
from secateur.runs.folders import OutputOptions, finish, require

if TYPE_CHECKING:
    from secateur.prediction.predicting import BoxFinder, Prediction
    from secateur.prediction.sources import Medium

logger = logging.getLogger("secateur")

_SHOWN = 8  # number of classes in the last line


@dataclass(frozen=True)
class PredictOptions:
    """Detect objects in images, videos, webcams and streams. Writes annotated images, label files, crops or JSON
    lines.
    """

    sources: Positional[tuple[str, ...]] = ()
    """Images, videos, folders, glob patterns, .txt lists, URLs, a webcam number, or - to read a list from standard
    input.
    """
    weights: Annotated[
        str, arg(help=("A checkpoint, an official model name such as yolov5n.pt, or an exported file."))
    ] = ""
    source: Advanced[tuple[str, ...]] = ()
    """Same as the positional arguments, under the name that YOLOv5's detect.py uses."""
    image_size: ImageSize = 0
    batch_size: Advanced[Annotated[int, arg(aliases=["--batch"]), Between(0, BATCH.most)]] = 0
    """Images per batch (0: chosen to fit the CPU cache, or 32 on a GPU)."""
    device: Device = "auto"
    precision: str = "fp32"
    """Precision of a checkpoint: fp32, bf16 or fp16. Exported files have a fixed precision."""
    view: bool = False
    """Show each image in a window. Requires an OpenCV build with GUI support."""
    jsonl: bool = False
    """Print one JSON line per image or frame on standard output, in the format of --save-json."""
    boxes: BoxSettings = field(default_factory=BoxSettings)
    read: Advanced[ReadSettings] = field(default_factory=ReadSettings)
    write: WriteSettings = field(default_factory=WriteSettings)
    draw: Advanced[DrawSettings] = field(default_factory=DrawSettings)
    place: OutputOptions = field(default_factory=OutputOptions)

    def __post_init__(self) -> None:
        if self.jsonl and self.place.json:
            raise UserError(
                "--jsonl and --json both write to standard output. Use only one of them (--save-json writes a file)."
            )


@command("detect", "same as predict, under YOLOv5's name", lambda: PredictOptions, order=96)
@command("predict", "detect objects in images, videos, webcams and streams", lambda: PredictOptions, order=95)
def predict(options: PredictOptions) -> Summary:
    """Runs the detector on all sources and writes results into a new folder."""
    from secateur.prediction.sources import find_media
    from secateur.prediction.writing import check_drawing

    weights = require(options.weights, "--weights", "best.pt")
    words = (*options.sources, *options.source)
    if not words:
        raise UserError(
            f"secateur predict needs at least one source, for example: secateur predict --weights {weights} images/."
        )
    check_drawing(options.write, options.view)
    media = find_media(words, sys.stdin)
    if not media:
        raise UserError("The list of images is empty. Give one path or URL per line.")
    finder, image_size = _box_finder(options, weights)
    with contextlib.ExitStack() as stack:
        told = _Tally(finder.predictor.names)
        # Keep the files that were written before a failure.
        place = options.place.new("predict", lambda: told.read > 0)
        folder = stack.enter_context(place) if options.write.anything() else None
        lines = sys.stdout if options.jsonl else None
        if lines is not None:  # standard output holds only JSON lines
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        _run(options, finder, media, folder, lines, told)
        if not told.read:
            raise UserError(told.nothing())
        print(told.line())
        summary: dict[str, Any] = {"command": "predict", "weights": weights, "image_size": sizes.as_data(image_size)}
        summary |= told.to_dict()
        if folder is not None:
            print(f"Results are in {folder}")
            summary = finish(folder, summary)
    if told.unreadable:
        raise PartlyDoneError(f"Cannot read {len(told.unreadable)} of {len(media)} sources.", summary)
    return summary


def _box_finder(options: PredictOptions, weights: str) -> tuple[BoxFinder, sizes.ImageSize]:
    """The detector with the requested options, and its image size."""
    from secateur.deploy.opening import open_detector
    from secateur.evaluation.validate import auto_batch_size
    from secateur.machine import pick_device
    from secateur.prediction.predicting import BoxFinder

    device = pick_device(options.device)
    predictor, size = open_detector(weights, device, options.precision, options.image_size)
    batch_size = options.batch_size or auto_batch_size(size, predictor.device)
    return BoxFinder(predictor, size, options.boxes, batch_size), size


def _run(
    options: PredictOptions,
    finder: BoxFinder,
    media: list[Medium],
    folder: Path | None,
    lines: TextIO | None,
    told: _Tally,
) -> None:
    """Reads, predicts and writes batch by batch. Ctrl-C ends a live stream."""
    from secateur.prediction.media import read_media
    from secateur.prediction.progress import bar
    from secateur.prediction.writing import opened_writers

    names = finder.predictor.names
    with (
        opened_writers(folder, names, options.write, options.draw, lines=lines, view=options.view) as writers,
        bar(media) as advance,
    ):

        def skipped(medium: Medium, reason: str) -> None:
            told.skip(medium, reason)
            if len(media) > 1:
                logger.warning(told.unreadable[-1])
            advance(None)

        live = False
        try:
            for prediction in finder.predictions(read_media(media, options.read, skipped)):
                live = prediction.frame.medium.live
                for write in writers:
                    write(prediction)
                told.add(prediction)
                advance(prediction.frame)
        except KeyboardInterrupt:
            if not live:
                raise


class _Tally:
    """Counts of what was read and detected, for the last lines and the summary."""

    def __init__(self, names: Mapping[int, str]) -> None:
        self.images = self.frames = 0
        self.unreadable: list[str] = []
        self._names, self._boxes = names, Counter[int]()
        self._start = time.perf_counter()

    @property
    def read(self) -> int:
        """Number of images and frames."""
        return self.images + self.frames

    def add(self, prediction: Prediction) -> None:
        self.images += prediction.frame.number is None
        self.frames += prediction.frame.number is not None
        self._boxes.update(prediction.boxes[:, 5].int().tolist())

    def skip(self, medium: Medium, reason: str) -> None:
        self.unreadable.append(f"{medium}: {reason}.")

    def nothing(self) -> str:
        """The error message if no source was readable."""
        if len(self.unreadable) == 1:
            return self.unreadable[0]
        return f"Cannot read any of the {len(self.unreadable)} sources. The first one: {self.unreadable[0]}"

    def line(self) -> str:
        """The last line, such as `299 images, 1 unreadable; 12 boxes: 8 person, 4 dog; 31.2 a second.`"""
        counts = ((self.images, "images"), (self.frames, "frames"), (len(self.unreadable), "unreadable"))
        read = ", ".join(f"{count} {what}" for count, what in counts if count)
        found = ", ".join(f"{count} {self._name(number)}" for number, count in self._boxes.most_common(_SHOWN))
        more = len(self._boxes) - _SHOWN
        boxes = f"{self._boxes.total()} boxes{': ' if found else ''}{found}"
        boxes += f" and {more} more classes" if more > 0 else ""
        return f"{read}; {boxes}; {self.read / self._seconds():.1f} a second."

    def to_dict(self) -> Summary:
        return {
            "pictures": self.images,
            "frames": self.frames,
            "unreadable": self.unreadable,
            "boxes": {self._name(number): count for number, count in self._boxes.most_common()},
            "per_second": self.read / self._seconds(),
        }

    def _name(self, number: int) -> str:
        return self._names.get(number, str(number))

    def _seconds(self) -> float:
        return max(time.perf_counter() - self._start, 1e-9)
