"""Image sizes: one number for a square, or height and width; reading and formatting."""

from __future__ import annotations

import re
from typing import Any

from secateur.errors import UserError, shown

Sides = tuple[int, int]
"""Height and width of an image in pixels."""
ImageSize = int | Sides
"""Side of a square image in pixels, or height and width."""

_ONE = re.compile(r"[+-]?\d+")
_TWO = re.compile(r"([+-]?\d+)(?:\s*[xX×*,]\s*|\s+)([+-]?\d+)")
_MOST = 24
"""Longest text that is read as a size, in characters; more digits are a typing error."""


def read_size(value: Any, option: str = "--img") -> ImageSize:
    """An image size from user input: 640, "640", "384x640", "384,640" or (384, 640).

    Args:
        value: an integer, a text, or two integers; 0 means automatic.
        option: option name for the error message.

    Raises:
        UserError: the value is not an image size.

    >>> read_size("640"), read_size("384x640"), read_size([384, 640])
    (640, (384, 640), (384, 640))
    """
    if isinstance(value, str):
        numbers = _numbers(value)
    elif isinstance(value, tuple | list):
        numbers = [_whole(entry) for entry in value]
    else:
        numbers = [_whole(value)]
    if len(numbers) == 1 and numbers[0] is not None:
        return numbers[0]
    # A single number may be 0; two numbers are both sides.
    if len(numbers) == 2 and numbers[0] and numbers[1]:
        return numbers[0], numbers[1]
    given = " ".join(value.split()) if isinstance(value, str) and len(value) <= _MOST else shown(value)
    raise UserError(
        f"{option} takes one number or height and width, for example 640 or 384 640; not {given or 'nothing'}."
    )


def sides_of(size: ImageSize) -> Sides:
    """Height and width."""
    return (size, size) if isinstance(size, int) else size


def square_as_one(size: ImageSize) -> ImageSize:
    """One number if height and width are equal, otherwise the pair."""
    height, width = sides_of(size)
    return height if height == width else (height, width)


def in_words(size: ImageSize) -> str:
    """The size as text: "640", or "384 x 640"."""
    size = square_as_one(size)
    return str(size) if isinstance(size, int) else f"{size[0]} x {size[1]}"


def as_data(size: ImageSize) -> int | list[int]:
    """The size as JSON data: one number, or height and width."""
    size = square_as_one(size)
    return size if isinstance(size, int) else list(size)


def _numbers(text: str) -> list[int | None]:
    text = text.strip()
    for opening, closing in (("[", "]"), ("(", ")")):
        if text.startswith(opening) and text.endswith(closing):
            text = text[1:-1].strip()
    if len(text) > _MOST:
        return []
    found = [text] if _ONE.fullmatch(text) else list(match.groups()) if (match := _TWO.fullmatch(text)) else []
    return [int(word) for word in found]


def _whole(value: Any) -> int | None:
    """An integer of any type as Python's `int`; None for everything else."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        return None
    number: int = value.__index__()
    return number
