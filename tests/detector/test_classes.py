"""One notion of knowing classes: number, names and order."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from secateur.detector.classes import check_classes, knows_classes
from secateur.errors import UserError


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
        (("0", "1"), ("cat", "dog"), True),
        (("cat", "dog"), ("0", "1"), True),
        (("cat", "class1"), ("cat", "dog"), True),
        (("cat", "class1"), ("dog", "cat"), False),
        (("1", "0"), ("cat", "dog"), False),
    ],
)
def test_names_and_order_count(ours: tuple[str, ...], theirs: tuple[str, ...], known: bool) -> None:
    assert knows_classes(numbered(*ours), numbered(*theirs)) is known


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        (("cat",), "best.pt knows 2 classes but data.yaml has 1"),
        (("dog", "cat"), "in another order .class 0 is 'cat' there and 'dog' here"),
        (("cat", "cow"), "other classes than data.yaml .class 1 is 'dog' there and 'cow' here"),
    ],
)
def test_one_sentence_says_what_differs(theirs: tuple[str, ...], words: str) -> None:
    weights = Weights(numbered("cat", "dog"))
    check_classes(weights, {1: "dog", 0: "cat"}, "best.pt", "data.yaml")
    with pytest.raises(UserError, match=words) as error:
        check_classes(weights, numbered(*theirs), "best.pt", "data.yaml")
    assert "\n" not in str(error.value)
