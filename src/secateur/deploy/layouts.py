"""Which family reads the outputs of an exported file, and how: by what the file says, or by its answers.

What only gets a name in the refusal is one function in `LOOKS`.
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
    """How the outputs of an export of this package become answers; None where they are taken as they are.

    Args:
        takes: shape of its input, None for sides that are open.
        gives: shapes of its outputs.

    Raises:
        UserError: the family is not known here, or the outputs are not what the file says.
    """
    family, nc = family_named(metadata.family, path), len(metadata.names)
    opened = Opened(metadata.output, metadata.told, metadata.names, metadata.strides, takes, tuple(gives))
    try:
        if len(takes) != 4 or not gives or metadata.classes not in (0, nc):
            raise ValueError("other inputs, outputs or classes")
        return family.decoder(opened)
    except ValueError:
        raise UserError(
            f"{path} is not the export that its metadata describes ({metadata.output} output, {nc} classes): it maps "
            f"{sides(takes)} to {_listed(gives)}; export it anew."
        ) from None


def recognised(path: Path, takes: Shape, answer: Answer, metadata: Metadata) -> Decoder:
    """How a file of another program is read.

    Raises:
        UserError: no family reads it; the sentence says what it looks like.
    """
    if answer.outputs and not np.isfinite(answer.outputs[0]).all():
        raise UserError(f"{path} gives values that are not finite for a black image; export it anew.")
    found = [family.recognises(answer) for family in FAMILIES.values()]
    if metadata.task in ("", "detect"):
        for decoder in found:
            if not isinstance(decoder, str) and (decoder.final or not metadata.suppressed):
                return decoder
    told = _other_task(metadata) or _says_suppressed(metadata) or _masks(answer)
    near = next((words for words in found if isinstance(words, str) and words), "")
    look = told or near or next((said for looks in LOOKS if (said := looks(answer))), "no layout that Secateur knows")
    called = f" ({metadata.title})" if metadata.title else ""
    raise UserError(
        f"{path} is no file that Secateur reads{called}: it maps {sides(takes)} to "
        f"{_listed([output.shape for output in answer.outputs])}, {look}; {opens()}."
    )


def opens() -> str:
    """Which files are read, for sentences."""
    others = [family.opens for family in FAMILIES.values() if family.opens]
    return f"Secateur opens its own exports, {' and '.join(others)}" if others else "Secateur opens its own exports"


def sides(shape: Sequence[int | None]) -> str:
    """1 x 3 x 640 x 640; "any" for sides that are open."""
    return " x ".join("any" if side is None else str(side) for side in shape) or "an unknown shape"


def _listed(shapes: Sequence[Shape]) -> str:
    more = f" and {len(shapes) - 3} more outputs" if len(shapes) > 3 else ""
    return (", ".join(map(sides, shapes[:3])) or "nothing") + more


# What a file may look like that nothing reads, in words that follow "it maps ... to ...".


def _other_task(metadata: Metadata) -> str:
    return "" if metadata.task in ("", "detect") else f"and says that its task is {metadata.task}"


def _says_suppressed(metadata: Metadata) -> str:
    return "boxes after non-maximum suppression, as it says itself" if metadata.suppressed else ""


def _masks(answer: Answer) -> str:
    has_maps = any(output.ndim == 4 for output in answer.outputs[1:])
    rows = answer.outputs and answer.outputs[0].ndim == 3
    return "rows and masks, as segmentation networks give them" if rows and has_maps else ""


def _suppressed(answer: Answer) -> str:
    shapes = [output.shape for output in answer.outputs]
    boxes = any(shape[-1:] == (4,) for shape in shapes) and len(shapes) > 1
    kept = any(len(shape) in (2, 3) and shape[-1] in (6, 7) for shape in shapes)
    return "which looks like boxes after non-maximum suppression" if boxes or kept else ""


def _maps(answer: Answer) -> str:
    if not answer.outputs or any(output.ndim < 4 for output in answer.outputs):
        return ""
    return "maps of the head that are not decoded"


def _values(answer: Answer) -> str:
    flat = len(answer.outputs) == 1 and answer.outputs[0].ndim == 2
    return "one value a class for each image, as classification networks give them" if flat else ""


LOOKS: tuple[Callable[[Answer], str], ...] = (_suppressed, _maps, _values)
"""In this order; each gives "" where the answer does not look so."""
