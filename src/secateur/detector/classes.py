"""Whether weights know the classes of a data set: the same number, the same names, in the same order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from secateur.errors import UserError


class Named(Protocol):
    """A checkpoint or a network: it says which classes it knows."""

    @property
    def names(self) -> Mapping[int, str]:
        """Class id -> name."""


def knows_classes(names_of_weights: Mapping[int, str], names_of_data: Mapping[int, str]) -> bool:
    """Whether both have as many classes, of the same names in the same order; case and spaces do not count.

    Names that are made up ("class0", "0" for class 0) say nothing, so they fit every name.
    """
    ours, theirs = _in_order(names_of_weights), _in_order(names_of_data)
    return len(ours) == len(theirs) and _first_difference(ours, theirs) is None


def check_classes(checkpoint: Named, names: Mapping[int, str], weights: str, data_file: str) -> None:
    """Refuses weights that do not know the classes of a data set.

    Args:
        checkpoint: what is to predict.
        names: class id -> name of the data set.
        weights: file of the weights, for the error.
        data_file: file of the data set, for the error.

    Raises:
        UserError: saying whether the number, the order or the names differ.
    """
    ours, theirs = _in_order(checkpoint.names), _in_order(names)
    if len(ours) != len(theirs):
        raise UserError(
            f"{weights} knows {len(ours)} classes but {data_file} has {len(theirs)}; "
            "train it on this data set first, or give the data set it was trained on."
        )
    place = _first_difference(ours, theirs)
    if place is None:
        return
    told = f"class {place} is {ours[place]!r} there and {theirs[place]!r} here"
    if sorted(map(_plain, ours)) == sorted(map(_plain, theirs)):
        raise UserError(
            f"{weights} knows the classes of {data_file} in another order ({told}); "
            "put names and labels into the order of the weights, or train on this data set first."
        )
    raise UserError(
        f"{weights} knows other classes than {data_file} ({told}); "
        "train it on this data set first, or give the data set it was trained on."
    )


def _in_order(names: Mapping[int, str]) -> list[str]:
    return [names[i] for i in sorted(names)]


def _first_difference(ours: Sequence[str], theirs: Sequence[str]) -> int | None:
    """The first class of two lists of the same length that has two names."""
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if _plain(a) != _plain(b) and not {_plain(a), _plain(b)} & {str(i), f"class{i}"}:
            return i
    return None


def _plain(name: str) -> str:
    """A name without case and spaces."""
    return "".join(name.split()).casefold()
