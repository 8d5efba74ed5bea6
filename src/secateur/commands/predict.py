"""`secateur predict`, also `secateur detect`: boxes in images, videos and streams."""

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

_SHOWN = 8  # classes in the last line


@dataclass(frozen=True)
class PredictOptions:
    """Find objects in images, videos, webcams and streams: images with boxes, label files, crops, lines of JSON."""

    sources: Positional[tuple[str, ...]] = ()
    """Images, videos, folders, patterns, .txt lists, URLs, the number of a webcam, or - (a list from stdin)."""
    weights: Annotated[str, arg(help="A checkpoint, an official name such as yolov5n.pt, or an exported file.")] = ""
    source: Advanced[tuple[str, ...]] = ()
    """The same, as YOLOv5's detect.py names it."""
    image_size: ImageSize = 0
    batch_size: Advanced[Annotated[int, arg(aliases=["--batch"]), Between(0, BATCH.most)]] = 0
    """Images in a batch (0: sized for the cache on CPU, 32 on a GPU)."""
    device: Device = "auto"
    precision: str = "fp32"
    """fp32, bf16 or fp16, of a checkpoint; an exported file has its own."""
    view: bool = False
    """Show each image in a window, if this OpenCV has windows."""
    jsonl: bool = False
    """Print a line of JSON for each image or frame on standard output, as --save-json writes them to a file."""
    boxes: BoxSettings = field(default_factory=BoxSettings)
    read: Advanced[ReadSettings] = field(default_factory=ReadSettings)
    write: WriteSettings = field(default_factory=WriteSettings)
    draw: Advanced[DrawSettings] = field(default_factory=DrawSettings)
    place: OutputOptions = field(default_factory=OutputOptions)

    def __post_init__(self) -> None:
        if self.jsonl and self.place.json:
            raise UserError("--jsonl and --json both want standard output; choose one (--save-json writes a file).")


@command("detect", "the same as predict, under YOLOv5's name", lambda: PredictOptions, order=96)
@command("predict", "find objects in images, videos, webcams and streams", lambda: PredictOptions, order=95)
def predict(options: PredictOptions) -> Summary:
    """Asks for boxes in everything that the sources name; what is written goes into a fresh folder."""
    from secateur.prediction.sources import find_media
    from secateur.prediction.writing import check_drawing

    weights = require(options.weights, "--weights", "best.pt")
    words = (*options.sources, *options.source)
    if not words:
        raise UserError(f"secateur predict needs something to look at: secateur predict --weights {weights} images/.")
    check_drawing(options.write, options.view)
    media = find_media(words, sys.stdin)
    if not media:
        raise UserError("The list of images is empty; give one path or URL a line.")
    finder, image_size = _box_finder(options, weights)
    with contextlib.ExitStack() as stack:
        told = _Tally(finder.predictor.names)
        # What was written before a failure is kept.
        place = options.place.new("predict", lambda: told.read > 0)
        folder = stack.enter_context(place) if options.write.anything() else None
        lines = sys.stdout if options.jsonl else None
        if lines is not None:  # and nothing else
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
        raise PartlyDoneError(f"{len(told.unreadable)} of {len(media)} sources cannot be read.", summary)
    return summary


def _box_finder(options: PredictOptions, weights: str) -> tuple[BoxFinder, sizes.ImageSize]:
    """The opened weights with what the options want to know, and the size of their images."""
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
    """Reads, asks and writes, one batch after the other; a live stream ends with Ctrl-C."""
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
    """What was read and found, for the last lines and the summary."""

    def __init__(self, names: Mapping[int, str]) -> None:
        self.images = self.frames = 0
        self.unreadable: list[str] = []
        self._names, self._boxes = names, Counter[int]()
        self._start = time.perf_counter()

    @property
    def read(self) -> int:
        """Images and frames."""
        return self.images + self.frames

    def add(self, prediction: Prediction) -> None:
        self.images += prediction.frame.number is None
        self.frames += prediction.frame.number is not None
        self._boxes.update(prediction.boxes[:, 5].int().tolist())

    def skip(self, medium: Medium, reason: str) -> None:
        self.unreadable.append(f"{medium}: {reason}.")

    def nothing(self) -> str:
        """The sentence for a prediction that has read nothing."""
        if len(self.unreadable) == 1:
            return self.unreadable[0]
        return f"None of the {len(self.unreadable)} sources can be read; the first is {self.unreadable[0]}"

    def line(self) -> str:
        """299 images, 1 unreadable; 12 boxes: 8 person, 4 dog; 31.2 a second."""
        counts = ((self.images, "images"), (self.frames, "frames"), (len(self.unreadable), "unreadable"))
        read = ", ".join(f"{count} {what}" for count, what in counts if count)
        found = ", ".join(f"{count} {self._name(number)}" for number, count in self._boxes.most_common(_SHOWN))
        more = len(self._boxes) - _SHOWN
        boxes = f"{self._boxes.total()} boxes{': ' if found else ''}{found}"
        boxes += f" and {more} classes more" if more > 0 else ""
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
