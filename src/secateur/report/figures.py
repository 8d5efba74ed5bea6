"""Shared plotting functions: figures without global state, colours, saving."""

from __future__ import annotations

import importlib.util
import logging
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secateur.errors import UserError
from secateur.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger("secateur")

# Colours that are distinct on white and on photographs; class c has colour c modulo their number.
PALETTE = (
    "#d1495b", "#2e86ab", "#edae49", "#3c896d", "#8f5db7", "#e76f51", "#00798c", "#b5838d", "#7a9e1f", "#4361ee",
    "#c2185b", "#6d6875", "#f4a261", "#118ab2", "#9c6644", "#457b9d", "#bc4b51", "#5b8e7d", "#8d6a9f", "#3a5a40",
)  # fmt: skip
INK, FAINT, ACCENT, SECOND = "#22303c", "#c3cad1", "#2e86ab", "#d1495b"
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.edgecolor": "#8a949e",
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e9ec",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "savefig.facecolor": "white",
}


def plots_available(notice: bool = True) -> bool:
    """Whether matplotlib is installed. If not, and `notice` is set, logs once what to install."""
    if importlib.util.find_spec("matplotlib") is not None:
        return True
    if notice:
        _tell_once()
    return False


@cache
def _tell_once() -> None:
    logger.warning("matplotlib is not installed: no plots (pip install 'secateur[plots]').")


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, list[Any]]:
    """A figure (size in inches) and its axes, row by row.

    Raises:
        UserError: matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("Plots need matplotlib: pip install 'secateur[plots]'.") from None
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
    return figure, list(axes.flat)


def save_figure(figure: Figure, path: str | Path, dpi: int = 150) -> Path:
    """Writes a figure in the format of the file extension and returns the path.

    Raises:
        UserError: the file cannot be written.
    """
    import matplotlib

    path = Path(path)
    with matplotlib.rc_context(STYLE), atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=dpi, format=path.suffix.lstrip(".") or "png")
    return path


def class_colour(class_id: int) -> str:
    """The colour of a class, the same in every plot."""
    return PALETTE[class_id % len(PALETTE)]


def short(name: str, length: int = 18) -> str:
    """A class name shortened to fit next to an axis."""
    return name if len(name) <= length else name[: length - 1] + "…"
