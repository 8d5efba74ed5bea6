"""Whether weights know the classes of a data set: the same number, the same names, in the same order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from secateur.errors import UserError

ONE_CLASS = "object"
"""Name of the only class of a detector that was trained with --single-cls on a data set of several classes."""


@runtime_checkable
class Named(Protocol):
    """A checkpoint or a network: it says which classes it knows."""

    @property
    def names(self) -> Mapping[int, str]:
        """Class id -> name."""


def knows_classes(names_of_weights: Mapping[int, str], names_of_data: Mapping[int, str]) -> bool:
    """Whether both have as many classes, of the same names in the same order; case and spaces do not count.

    They do count where two names of one list differ in nothing else: `Car` and `car` are then two classes. Where no
    name is known, readers make up "class0", "class1", ... for all classes; such a list fits every other, unless that
    uses one of these words for another class.
    """
    ours, theirs = _in_order(names_of_weights), _in_order(names_of_data)
    return len(ours) == len(theirs) and _first_difference(ours, theirs) is None


def class_order(names_of_weights: Mapping[int, str], names_of_data: Mapping[int, str]) -> tuple[int, ...] | None:
    """For every class of the data set its id in the weights; None where the names are not the same or not unique."""
    ours, theirs = _comparable(_in_order(names_of_weights), _in_order(names_of_data))
    if sorted(ours) != sorted(theirs) or len(set(ours)) < len(ours):
        return None
    places = {name: place for place, name in enumerate(ours)}
    return tuple(places[name] for name in theirs)


def moved_class(ours: Mapping[int, str], theirs: Mapping[int, str]) -> tuple[str, int, int] | None:
    """The first name of ours that the other has for another class: the name, and its id in both; None without one."""
    names = _in_order(ours)
    moved = _moved(*_comparable(names, _in_order(theirs)))
    return None if moved is None else (names[moved[0]], *moved)


def check_classes(
    checkpoint: Named, names: Mapping[int, str], weights: str, data_file: str, *, otherwise: str = ""
) -> None:
    """Refuses weights that do not know the classes of a data set.

    Args:
        checkpoint: what is to predict.
        names: class id -> name of the data set.
        weights: file of the weights, for the error.
        data_file: file of the data set, for the error.
        otherwise: what can be done instead; "" is a training on this data set.

    Raises:
        UserError: saying whether the number, the order or the names differ.
    """
    ours, theirs = _in_order(checkpoint.names), _in_order(names)
    advice = otherwise or "train it on this data set first, or give the data set it was trained on"
    if len(ours) != len(theirs):
        raise UserError(f"{weights} knows {len(ours)} classes but {data_file} has {len(theirs)}; {advice}.")
    place = _first_difference(ours, theirs)
    if place is None:
        return
    difference = f"class {place} is {ours[place]!r} there and {theirs[place]!r} here"
    if class_order(checkpoint.names, names) is not None:
        raise UserError(
            f"{weights} knows the classes of {data_file} in another order ({difference}); put names and labels into "
            f"the order of the weights, or {otherwise or 'train on this data set first'}."
        )
    if ours == [str(number) for number in range(len(ours))]:
        advice += f", or write nc: {len(ours)} instead of names: into it if the numbers only replace missing names"
    raise UserError(f"{weights} knows other classes than {data_file} ({difference}); {advice}.")


def class_named(word: str, names: Mapping[int, str]) -> int | None:
    """The id of the class of this name, or else of the only one that differs from it in nothing but case.

    Raises:
        UserError: there are several such classes.
    """
    exact = [number for number, name in names.items() if name == word]
    alike = [number for number, name in names.items() if name.casefold() == word.casefold()]
    if len(alike) > 1 and not exact:
        choice = " or ".join(repr(names[number]) for number in alike)
        raise UserError(f"Class {word!r} may be {choice}; write the name as the detector has it.")
    return next(iter(exact or alike), None)


def are_made_up(names: Mapping[int, str]) -> bool:
    """Whether these are the words that readers put where a file has no names at all."""
    return _is_made_up(_in_order(names))


def changed_class(before: Mapping[int, str], now: Mapping[int, str]) -> str:
    """What is not as it was in the classes of a data set, in words; "" where all is."""
    old, new = _in_order(before), _in_order(now)
    if len(old) != len(new):
        return f"the data set had {len(old)} classes and has {len(new)} now"
    place = _first_difference(old, new)
    return "" if place is None else f"class {place} was {old[place]!r} and is {new[place]!r} now"


def _in_order(names: Mapping[int, str]) -> list[str]:
    return [names[i] for i in sorted(names)]


def _first_difference(ours: Sequence[str], theirs: Sequence[str]) -> int | None:
    """The first class of two lists of the same length that has two names."""
    first, second = _comparable(ours, theirs)
    if _moved(first, second) is None and (_is_made_up(ours) or _is_made_up(theirs)):
        return None
    return next((place for place, (a, b) in enumerate(zip(first, second, strict=True)) if a != b), None)


def _is_made_up(names: Sequence[str]) -> bool:
    return list(names) == [f"class{place}" for place in range(len(names))]


def _moved(ours: list[str], theirs: list[str]) -> tuple[int, int] | None:
    """The places in both lists of the first name of ours that the other list has at another place alone."""
    places = {name: place for place, name in enumerate(theirs)}
    for place, name in enumerate(ours):
        if name in places and theirs[place : place + 1] != [name]:
            return place, places[name]
    return None


def _comparable(ours: Sequence[str], theirs: Sequence[str]) -> tuple[list[str], list[str]]:
    """Both lists without case and spaces, or as they are where that would make two names of one list equal."""
    plain = [_plain(name) for name in ours], [_plain(name) for name in theirs]
    if all(len(set(short)) == len(set(names)) for short, names in zip(plain, (ours, theirs), strict=True)):
        return plain
    return list(ours), list(theirs)


def _plain(name: str) -> str:
    """A name without case and spaces."""
    return "".join(name.split()).casefold()
