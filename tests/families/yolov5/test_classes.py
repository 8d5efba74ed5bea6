"""One notion of knowing classes: number, names and order."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from secateur.errors import UserError
from secateur.networks.classes import changed_class, check_classes, class_named, class_order, knows_classes


@dataclass(frozen=True)
class Weights:
    names: dict[int, str]


def numbered(*names: str) -> dict[int, str]:
    return dict(enumerate(names))


@pytest.mark.parametrize(
    ("ours", "theirs", "known"),
    [
        (("cat", "dog"), ("cat", "dog"), True),
        (("Cat", "traffic light"), ("cat", "TrafficLight "), True),
        (("cat", "dog"), ("dog", "cat"), False),
        (("cat", "dog"), ("cat", "tree"), False),
        (("cat", "dog"), ("cat",), False),
        (("cat", "dog"), ("cat", "dog", "cow"), False),
        (("class0", "class1"), ("cat", "dog"), True),
        (("cat", "dog"), ("class0", "class1"), True),
        (("class0", "class1", "class2"), ("cat", "dog", "class2"), True),
        # Only where all names are missing are they made up; these were given.
        (("class0", "class1"), ("class1", "class0"), False),
        (("class0", "class1"), ("class1", "class2"), False),
        (("cat", "class1"), ("cat", "dog"), False),
        (("0", "1"), ("0", "1"), True),
        (("0", "1"), ("1", "0"), False),
        (("0", "1"), ("cat", "dog"), False),
        (("cat", "dog"), ("0", "1"), False),
        (tuple("0123456789"), tuple("1234567890"), False),
        (tuple("0123456789"), tuple("abcdefghij"), False),
        # Case is all that tells two classes of one list apart.
        (("Car", "car"), ("Car", "car"), True),
        (("Car", "car"), ("car", "Car"), False),
        (("Car", "car"), ("Car", "bus"), False),
        (("Car", "bus"), ("Car", "car"), False),
        (("Car", "car", "Bus"), ("Car", "car", "bus"), False),
        (("Car", "bus"), ("car", "bus"), True),
    ],
)
def test_names_and_order_count(ours: tuple[str, ...], theirs: tuple[str, ...], known: bool) -> None:
    assert knows_classes(numbered(*ours), numbered(*theirs)) is known


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        (("cat",), "best.pt has 2 classes, but data.yaml has 1"),
        (("dog", "cat"), "in another order .class 0 is 'cat' in the weights and 'dog' in the data set"),
        (("cat", "cow"), "other classes than data.yaml .class 1 is 'dog' in the weights and 'cow' in the data set"),
    ],
)
def test_one_sentence_says_what_differs(theirs: tuple[str, ...], words: str) -> None:
    weights = Weights(numbered("cat", "dog"))
    check_classes(weights, {1: "dog", 0: "cat"}, "best.pt", "data.yaml")
    with pytest.raises(UserError, match=words) as error:
        check_classes(weights, numbered(*theirs), "best.pt", "data.yaml")
    assert "\n" not in str(error.value)


def test_names_that_are_numbers_and_stand_for_none_have_a_way_out() -> None:
    with pytest.raises(UserError, match="write nc: 2 instead of names: into it"):
        check_classes(Weights(numbered("0", "1")), numbered("cat", "dog"), "best.pt", "data.yaml")
    check_classes(Weights(numbered("0", "1")), numbered("class0", "class1"), "best.pt", "data.yaml")


@pytest.mark.parametrize(
    ("ours", "theirs", "order"),
    [
        (("cat", "dog", "cow"), ("Cow", "cat", "dog"), (2, 0, 1)),
        (("Car", "car"), ("car", "Car"), (1, 0)),
        (("cat", "dog"), ("cat", "cow"), None),
        (("cat", "dog"), ("dog", "cat", "cow"), None),
        (("cat", "cat"), ("cat", "cat"), None),
        (tuple("0123456789"), tuple("1234567890"), (1, 2, 3, 4, 5, 6, 7, 8, 9, 0)),
    ],
)
def test_where_classes_in_another_order_are_to_be_found(
    ours: tuple[str, ...], theirs: tuple[str, ...], order: tuple[int, ...] | None
) -> None:
    assert class_order(numbered(*ours), numbered(*theirs)) == order


def test_what_changed_is_said() -> None:
    assert changed_class(numbered("cat", "dog"), numbered("Cat", "dog")) == ""
    assert changed_class(numbered("cat", "dog"), numbered("dog", "cat")) == "class 0 was 'cat' and now is 'dog'"
    assert changed_class(numbered("cat"), numbered("cat", "dog")) == "the data set had 1 classes and now has 2"


def test_a_name_finds_its_class_in_another_case_where_there_is_but_one() -> None:
    names = numbered("Car", "car", "Bus")
    assert [class_named(word, names) for word in ("Car", "car", "bus", "tram")] == [0, 1, 2, None]
    with pytest.raises(UserError, match="Class 'CAR' may be 'Car' or 'car'"):
        class_named("CAR", names)
