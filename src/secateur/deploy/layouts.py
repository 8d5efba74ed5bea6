"""Finds the decoder for the outputs of an exported file, from its metadata or from its outputs.

A layout that is only named in the error message is one function in `LOOKS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from secateur.deploy.metadata import Metadata
from secateur.errors import UserError
from secateur.families.family import FAMILIES, family_named
from secateur.families.outputs import Answer, Decoder, Opened, Shape


def own_decoder(path: Path, metadata: Metadata, takes: Shape, gives: Sequence[Shape]) -> Decoder | None:
    """The decoder for an export of this package; None if the outputs are returned without decoding.

    Args:
        path: the file.
        metadata: its metadata.
        takes: shape of its input, None for dynamic dimensions.
        gives: shapes of its outputs.

    Raises:
        UserError: the family is unknown, or the outputs do not match the metadata.
    """
    family, nc = family_named(metadata.family, path), len(metadata.names)
    opened = Opened(metadata.output, metadata.told, metadata.names, metadata.strides, takes, tuple(gives))
    try:
        if len(takes) != 4 or not gives or metadata.classes not in (0, nc):
            raise ValueError("other inputs, outputs or classes")
        return family.decoder(opened)
    except ValueError:
        raise UserError(
            f"{path} does not match its metadata ({metadata.output} output, {nc} classes): it maps "
            f"{sides(takes)} to {_listed(gives)}. Export it again."
        ) from None


def recognised(path: Path, takes: Shape, answer: Answer, metadata: Metadata) -> Decoder:
    """The decoder for a file of another program; the outputs of `answer` have any shape.

    Raises:
        UserError: no family can decode it; the message describes its layout.
    """
    if answer.outputs and not np.isfinite(answer.outputs[0]).all():
        raise UserError(f"{path} returns NaN or infinite values for a black image. Export it again.")
    found = [family.recognises(answer) for family in FAMILIES.values()]
    if metadata.task in ("", "detect"):
        for decoder in found:
            if not isinstance(decoder, str) and (decoder.final or not metadata.suppressed):
                return decoder
    told = _other_task(metadata) or _says_suppressed(metadata) or _masks(answer)
    near = next((words for words in found if isinstance(words, str) and words), "")
    look = told or near or next((said for looks in LOOKS if (said := looks(answer))), "an unknown layout")
    called = f" ({metadata.title})" if metadata.title else ""
    raise UserError(
        f"Cannot read {path}{called}: it maps {sides(takes)} to "
        f"{_listed([output.shape for output in answer.outputs])}, {look}. {opens()}."
    )


def opens() -> str:
    """The supported files, for messages."""
    others = [family.opens for family in FAMILIES.values() if family.opens]
    return f"Secateur opens its own exports, {' and '.join(others)}" if others else "Secateur opens its own exports"


def sides(shape: Sequence[int | None]) -> str:
    """A shape as text: `1 x 3 x 640 x 640`, with "any" for dynamic dimensions."""
    return " x ".join("any" if side is None else str(side) for side in shape) or "an unknown shape"


def _listed(shapes: Sequence[Shape]) -> str:
    more = f" and {len(shapes) - 3} more outputs" if len(shapes) > 3 else ""
    return (", ".join(map(sides, shapes[:3])) or "nothing") + more


# Names of unsupported layouts, worded to follow "it maps ... to ...".


def _other_task(metadata: Metadata) -> str:
    return "" if metadata.task in ("", "detect") else f"and states the task {metadata.task}"


def _says_suppressed(metadata: Metadata) -> str:
    return "boxes after non-maximum suppression, according to its metadata" if metadata.suppressed else ""


def _masks(answer: Answer) -> str:
    has_maps = any(output.ndim == 4 for output in answer.outputs[1:])
    rows = answer.outputs and answer.outputs[0].ndim == 3
    return "rows and masks, as in segmentation networks" if rows and has_maps else ""


def _suppressed(answer: Answer) -> str:
    shapes = [output.shape for output in answer.outputs]
    boxes = any(shape[-1:] == (4,) for shape in shapes) and len(shapes) > 1
    kept = any(len(shape) in (2, 3) and shape[-1] in (6, 7) for shape in shapes)
    return "probably boxes after non-maximum suppression" if boxes or kept else ""


def _maps(answer: Answer) -> str:
    if not answer.outputs or any(output.ndim < 4 for output in answer.outputs):
        return ""
    return "feature maps of the head without decoding"


def _values(answer: Answer) -> str:
    flat = len(answer.outputs) == 1 and answer.outputs[0].ndim == 2
    return "one value per class and image, as in classification networks" if flat else ""


LOOKS: tuple[Callable[[Answer], str], ...] = (_suppressed, _maps, _values)
"""Applied in this order; each function returns "" if the outputs do not have its layout."""
