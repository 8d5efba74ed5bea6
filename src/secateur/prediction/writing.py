"""Passes predictions to all requested writers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

from secateur.errors import UserError
from secateur.prediction.detections import check_supervision
from secateur.prediction.files import crop_folders, json_line, write_crops, write_labels
from secateur.prediction.predicting import Prediction
from secateur.prediction.settings import DrawSettings, WriteSettings

Writer = Callable[[Prediction], None]


def check_drawing(settings: WriteSettings, view: bool) -> None:
    """Checks that supervision is installed if anything is drawn.

    Raises:
        UserError: supervision is not installed.
    """
    if settings.save or view:
        check_supervision("Drawing", ", or skip images and videos with --nosave")


@contextmanager
def opened_writers(
    folder: Path | None,
    names: Mapping[int, str],
    settings: WriteSettings,
    draw: DrawSettings,
    *,
    lines: TextIO | None = None,
    view: bool = False,
) -> Iterator[list[Writer]]:
    """The requested writers. Open videos are completed on exit.

    Args:
        folder: output folder; None if `settings` request no files.
        names: class names by id.
        settings: which files to write.
        draw: options for drawing boxes.
        lines: stream for JSON lines.
        view: show every image in a window.
    """
    with ExitStack() as stack:
        writers: list[Writer] = []
        if folder is not None and settings.save_txt:
            writers.append(lambda found: write_labels(folder / "labels", found, confidence=settings.save_conf))
        if folder is not None and settings.save_crop:
            folders = crop_folders(names)
            writers.append(lambda found: write_crops(folder / "crops", found, folders))
        if folder is not None and settings.save_json:
            writers.append(_lines(stack.enter_context(_line_file(folder / "predictions.jsonl")), names))
        if lines is not None:
            writers.append(_lines(lines, names))
        if view or (folder is not None and settings.save):
            writers.append(_drawer(stack, folder if settings.save else None, names, draw, view))
        yield writers


def _lines(stream: TextIO, names: Mapping[int, str]) -> Writer:
    """Prints one line per prediction and flushes it, for live readers and so that an interruption leaves complete
    lines.
    """

    def write(prediction: Prediction) -> None:
        print(json_line(prediction, names), file=stream, flush=True)

    return write


@contextmanager
def _line_file(file: Path) -> Iterator[TextIO]:
    try:
        with file.open("w", encoding="utf-8") as stream:
            yield stream
    except OSError as error:
        raise UserError(f"Cannot write {file}: {error.strerror or error}. Choose another --project.") from error


def _drawer(
    stack: ExitStack, folder: Path | None, names: Mapping[int, str], settings: DrawSettings, view: bool
) -> Writer:
    """Draws each prediction once, for the folder and for the window."""
    from secateur.prediction.drawing import Album, Drawing, window

    drawing = Drawing(names, settings)
    album = stack.enter_context(Album(folder)) if folder is not None else None
    show = window() if view else None

    def write(prediction: Prediction) -> None:
        drawn = drawing(prediction)
        if album is not None:
            album.add(prediction.frame, drawn)
        if show is not None:
            show(drawn)

    return write
