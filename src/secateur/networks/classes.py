"""Compares the classes of weights and data sets: number, names and order."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from secateur.errors import UserError, shown

ONE_CLASS = "object"
"""Name of the only class of a detector trained with --single-cls on a data set with several classes."""


@runtime_checkable
class Named(Protocol):
    """A checkpoint or a network with class names."""

    @property
    def names(self) -> Mapping[int, str]:
        """Class id -> name."""


def knows_classes(names_of_weights: Mapping[int, str], names_of_data: Mapping[int, str]) -> bool:
    """Whether both have the same number of classes, with the same names in the same order, ignoring case and spaces.

    Case and spaces count if two names of one list differ only in them: `Car` and `car` are then two classes. If names
    are unknown, readers use the placeholders "class0", "class1", ...; such a list matches every other one, unless that
    uses one of these words for another class.
    """
    ours, theirs = _in_order(names_of_weights), _in_order(names_of_data)
    return len(ours) == len(theirs) and _first_difference(ours, theirs) is None


def class_order(names_of_weights: Mapping[int, str], names_of_data: Mapping[int, str]) -> tuple[int, ...] | None:
    """For every class of the data set, its id in the weights; None if the names differ or are not unique."""
    ours, theirs = _comparable(_in_order(names_of_weights), _in_order(names_of_data))
    if sorted(ours) != sorted(theirs) or len(set(ours)) < len(ours):
        return None
    places = {name: place for place, name in enumerate(ours)}
    return tuple(places[name] for name in theirs)


def moved_class(ours: Mapping[int, str], theirs: Mapping[int, str]) -> tuple[str, int, int] | None:
    """The first name that both lists have with different ids: the name, and both ids; None if there is none."""
    names = _in_order(ours)
    moved = _moved(*_comparable(names, _in_order(theirs)))
    return None if moved is None else (names[moved[0]], *moved)


def check_classes(
    checkpoint: Named, names: Mapping[int, str], weights: str, data_file: str, *, otherwise: str = ""
) -> None:
    """Checks that weights have the classes of a data set.

    Args:
        checkpoint: the network.
        names: class id -> name of the data set.
        weights: file of the weights, for the error message.
        data_file: file of the data set, for the error message.
        otherwise: alternative for the user; "": training on this data set.

    Raises:
        UserError: they do not; the message states whether the number, the order or the names differ.
    """
    ours, theirs = _in_order(checkpoint.names), _in_order(names)
    advice = otherwise or "train it on this data set first, or use the data set it was trained on"
    if len(ours) != len(theirs):
        raise UserError(f"{weights} has {len(ours)} classes, but {data_file} has {len(theirs)}. To fix this, {advice}.")
    place = _first_difference(ours, theirs)
    if place is None:
        return
    difference = f"class {place} is {ours[place]!r} in the weights and {theirs[place]!r} in the data set"
    if class_order(checkpoint.names, names) is not None:
        raise UserError(
            f"{weights} has the classes of {data_file} in another order ({difference}). Put names and labels into "
            f"the order of the weights, or {otherwise or 'train on this data set first'}."
        )
    if ours == [str(number) for number in range(len(ours))]:
        advice += f", or write nc: {len(ours)} instead of names: into it if the numbers are only placeholders"
    raise UserError(f"{weights} has other classes than {data_file} ({difference}). To fix this, {advice}.")


def class_named(word: str, names: Mapping[int, str]) -> int | None:
    """Id of the class with this name, or of the only class that differs from it only in case.

    Raises:
        UserError: there are several such classes.
    """
    exact = [number for number, name in names.items() if name == word]
    alike = [number for number, name in names.items() if name.casefold() == word.casefold()]
    if len(alike) > 1 and not exact:
        choice = " or ".join(repr(names[number]) for number in alike)
        raise UserError(f"Class {word!r} may be {choice}. Write the name exactly as in the detector.")
    return next(iter(exact or alike), None)


def class_ids(words: Sequence[str | int], names: Mapping[int, str]) -> list[int]:
    """Ids of classes given by id or name: a number is an id, a text is a name or otherwise an id.

    Raises:
        UserError: there is no such class; the message lists similar names.
    """
    ids = []
    for word in words:
        number = word if isinstance(word, int) else class_named(word, names)
        if number is None:
            number = int(word) if isinstance(word, str) and word.isdecimal() else -1
        if number not in names:
            raise UserError(f"There is no class {shown(word)}. {_near(word, names)}.")
        ids.append(number)
    return ids


def some_classes(words: Sequence[str | int], names: Mapping[int, str]) -> tuple[int, ...]:
    """Ids of some of the classes of a detector (`--classes`), in the given order.

    Args:
        words: ids and names; one string may hold several, separated by commas.

    Raises:
        UserError: a class does not exist or is listed twice, or no classes or all classes are listed.
    """
    known = set(names.values())
    parts = [part for word in words for part in ([word] if word in known else _separated(word))]
    ids = class_ids(parts, names)
    twice = next((number for place, number in enumerate(ids) if number in ids[:place]), None)
    if twice is not None:
        raise UserError(f"--classes has {shown(names[twice])} (class {twice}) twice. Name each class once.")
    if not ids:
        raise UserError("--classes is empty. Set names or ids, such as --classes person car.")
    if len(ids) == len(names):
        every = "the only class" if len(names) == 1 else f"all {len(names)} classes"
        raise UserError(f"--classes contains {every} of the detector, so there is nothing to remove. Omit the option.")
    return tuple(ids)


def _separated(word: str | int) -> list[str | int]:
    if isinstance(word, int):
        return [word]
    return [part.strip() for part in word.split(",") if part.strip()]


def _near(word: str | int, names: Mapping[int, str]) -> str:
    """Names of classes similar to a wrong word, or some of all names."""
    if isinstance(word, str) and are_made_up(names):
        return f"The detector has no class names. Use ids, 0 to {len(names) - 1}"
    known = {name.casefold(): f"{number} {name}" for number, name in names.items()}
    text = str(word).casefold()
    near = [known[name] for name in difflib.get_close_matches(text, known, n=4, cutoff=0.6)]
    near += [entry for name, entry in known.items() if len(text) > 2 and text in name and entry not in near]
    if near:
        return f"Similar names: {', '.join(near[:6])}"
    some = ", ".join(f"{number} {name}" for number, name in list(names.items())[:5])
    return f"The detector has {len(names)} classes: {some}" + (", ..." if len(names) > 5 else "")


def are_made_up(names: Mapping[int, str]) -> bool:
    """Whether these are the placeholders that readers use if a file has no names."""
    return _is_made_up(_in_order(names))


def changed_class(before: Mapping[int, str], now: Mapping[int, str]) -> str:
    """Describes a change in the classes of a data set; "" if there is none."""
    old, new = _in_order(before), _in_order(now)
    if len(old) != len(new):
        return f"the data set had {len(old)} classes and now has {len(new)}"
    place = _first_difference(old, new)
    return "" if place is None else f"class {place} was {old[place]!r} and now is {new[place]!r}"


def _in_order(names: Mapping[int, str]) -> list[str]:
    return [names[i] for i in sorted(names)]


def _first_difference(ours: Sequence[str], theirs: Sequence[str]) -> int | None:
    """The first index at which two lists of the same length differ."""
    first, second = _comparable(ours, theirs)
    if _moved(first, second) is None and (_is_made_up(ours) or _is_made_up(theirs)):
        return None
    return next((place for place, (a, b) in enumerate(zip(first, second, strict=True)) if a != b), None)


def _is_made_up(names: Sequence[str]) -> bool:
    return list(names) == [f"class{place}" for place in range(len(names))]


def _moved(ours: list[str], theirs: list[str]) -> tuple[int, int] | None:
    """Indices in both lists of the first name that both have at different positions."""
    places = {name: place for place, name in enumerate(theirs)}
    for place, name in enumerate(ours):
        if name in places and theirs[place : place + 1] != [name]:
            return place, places[name]
    return None


def _comparable(ours: Sequence[str], theirs: Sequence[str]) -> tuple[list[str], list[str]]:
    """Both lists without case and spaces, or unchanged if that would make two names of one list equal."""
    pair = [plain(name) for name in ours], [plain(name) for name in theirs]
    if all(len(set(short)) == len(set(names)) for short, names in zip(pair, (ours, theirs), strict=True)):
        return pair
    return list(ours), list(theirs)


def plain(name: str) -> str:
    """A name without case and spaces."""
    return "".join(name.split()).casefold()
