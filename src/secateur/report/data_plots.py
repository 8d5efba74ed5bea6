"""Plots of a data set: label statistics and training batches with their boxes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur.report.figures import ACCENT, INK, class_colour, new_figure, save_figure, short

_OUTLINES = 500  # number of boxes drawn in the overlay
_SIDE = 1600  # size of a batch plot in pixels


def plot_labels(labels: NDArray[np.floating[Any]], names: Mapping[int, str], path: str | Path) -> Path:
    """Plots instances per class, box outlines, box centres and box sizes.

    Args:
        labels: float [n, 5]: class, x, y, width, height; boxes relative to the image.
        names: class names by id.
        path: file to write.
    """
    figure, axes = new_figure(12 if len(names) <= 30 else 18, 10, 2, 2)
    _bars(axes[0], labels[:, 0].astype(int), names)
    _outlines(axes[1], labels)
    _density(axes[2], labels[:, 1], labels[:, 2], ("x", "y"), "Centres (share of the image)")
    axes[2].invert_yaxis()
    _density(axes[3], labels[:, 3], labels[:, 4], ("width", "height"), "Sizes (share of the image)")
    figure.suptitle(f"{len(labels):,} boxes, {len(names)} classes")
    return save_figure(figure, path)


def _bars(axis: Any, classes: NDArray[np.integer[Any]], names: Mapping[int, str]) -> None:
    count = 1 + max([*names, *classes.tolist()], default=0)
    counts = np.bincount(classes, minlength=count)
    axis.bar(range(count), counts, color=[class_colour(c) for c in range(count)], width=0.8)
    size = 9 if count <= 12 else max(4.0, min(7.0, 400 / count))
    angle = 0 if count <= 5 else 90
    if count <= 120:
        ticks = [short(names.get(c, str(c))) for c in range(count)]
        axis.set_xticks(range(count), ticks, rotation=angle, fontsize=size)
    if count <= 12:
        for position, value in enumerate(counts):
            axis.annotate(f"{value:,}", (position, value), ha="center", va="bottom", fontsize=9)
    elif counts.max() > 50 * max(np.median(counts), 1):
        axis.set_yscale("symlog", linthresh=10)  # one class may outnumber all others
    axis.set_xlim(-0.6, count - 0.4)
    axis.grid(False, axis="x")
    axis.set_title("Instances per class")


def _outlines(axis: Any, labels: NDArray[np.floating[Any]]) -> None:
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    picks = labels[np.linspace(0, len(labels) - 1, min(len(labels), _OUTLINES)).astype(int)]
    patches = [Rectangle((-w / 2, -h / 2), w, h) for _, _, _, w, h in picks]
    colours = [class_colour(int(c)) for c in picks[:, 0]]
    axis.add_collection(PatchCollection(patches, facecolor="none", edgecolor=colours, linewidth=0.6, alpha=0.6))
    axis.set(xlim=(-0.52, 0.52), ylim=(-0.52, 0.52), aspect="equal", xticks=(), yticks=())
    axis.spines[:].set_visible(True)
    axis.set_title(f"Centred boxes{f' ({_OUTLINES} of them)' if len(labels) > _OUTLINES else ''}")


def _density(axis: Any, x: NDArray[Any], y: NDArray[Any], names: tuple[str, str], title: str) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    shades = LinearSegmentedColormap.from_list("shades", ["#ffffff", ACCENT, INK])
    counts, _, _ = np.histogram2d(x, y, bins=50, range=((0, 1), (0, 1)))
    # Square root: otherwise a few crowded cells would leave the rest white.
    axis.imshow(np.sqrt(counts.T), origin="lower", extent=(0, 1, 0, 1), cmap=shades, aspect="equal")
    axis.set(xlabel=names[0], ylabel=names[1], title=title)
    axis.grid(False)


def plot_batch(
    images: NDArray[np.uint8],
    targets: NDArray[np.floating[Any]],
    names: Mapping[int, str],
    path: str | Path,
    most: int = 16,
) -> Path:
    """Plots a grid of network inputs with their boxes and class names.

    Args:
        images: uint8 [B, 3, H, W] RGB, or [B, 1, H, W] grey.
        targets: float [T, 6]: image in the batch, class, x, y, width, height; boxes relative to the network image.
        names: class names by id.
        path: file to write.
        most: maximum number of images.
    """
    images = images[:most]
    columns = max(1, math.ceil(math.sqrt(len(images))))
    rows = max(1, math.ceil(len(images) / columns))
    height, width = images.shape[2:]
    scale = min(1.0, _SIDE / (columns * width), _SIDE / (rows * height))
    dpi = 100
    figure, axes = new_figure(columns * width * scale / dpi, rows * height * scale / dpi, rows, columns)
    figure.set_layout_engine(None)
    for place, axis in enumerate(axes):
        row, column = divmod(place, columns)
        axis.set_position((column / columns, 1 - (row + 1) / rows, 1 / columns, 1 / rows))
        axis.set_axis_off()
    for number, (axis, image) in enumerate(zip(axes, images, strict=False)):
        # matplotlib would draw a single channel in false colours.
        rgb = np.repeat(image, 3, axis=0) if len(image) == 1 else image
        axis.imshow(rgb.transpose(1, 2, 0), aspect="auto", interpolation="antialiased")
        axis.set(xlim=(0, width), ylim=(height, 0))
        _boxes(axis, targets[targets[:, 0] == number], names, width, height)
        axis.plot([0, width, width], [height, height, 0], color="white", linewidth=2)
    return save_figure(figure, path, dpi)


def _boxes(axis: Any, rows: NDArray[Any], names: Mapping[int, str], width: int, height: int) -> None:
    from matplotlib.patches import Rectangle

    for _, label, x, y, w, h in rows.tolist():
        colour = class_colour(int(label))
        left, top = (x - w / 2) * width, (y - h / 2) * height
        axis.add_patch(Rectangle((left, top), w * width, h * height, fill=False, edgecolor=colour, linewidth=1.4))
        axis.text(
            max(left, 0),
            max(top, 0),
            short(names.get(int(label), str(int(label)))),
            fontsize=6.5,
            color="white",
            va="bottom" if top > 0.04 * height else "top",
            clip_on=True,
            bbox={"facecolor": colour, "edgecolor": "none", "pad": 0.8},
        )
