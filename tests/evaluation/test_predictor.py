"""What a predictor may answer, and what is refused."""

from __future__ import annotations

import pytest
import torch

from secateur.evaluation.nms import Candidates
from secateur.evaluation.predictor import AnswerError, check_boxes, check_candidates

BOXES = [[6.0, 6.0, 10.0, 10.0], [8.0, 8.0, 8.0, 8.0]]
SCORES = [[0.9, 0.0], [1.05, -0.05]]
EXPORTED = "a.onnx", "export it anew"


def good() -> Candidates:
    return Candidates(torch.tensor(BOXES), torch.tensor(SCORES))


def refused(fault: str) -> pytest.RaisesExc[AnswerError]:
    return pytest.raises(AnswerError, match=rf"^a\.onnx returns {fault}; export it again\.$")


@pytest.mark.parametrize(
    ("place", "value", "fault"),
    [
        (0, float("nan"), "values that are not finite"),
        (3, float("inf"), "values that are not finite"),
        (5, float("-inf"), "values that are not finite"),
        (2, 7.99, "a box of negative width or height"),
        (3, -9.0, "a box of negative width or height"),
        (4, 2.7, r"scores outside 0\.\.1"),
        (5, -1.2, r"scores outside 0\.\.1"),
    ],
)
def test_candidates_that_cannot_be_boxes_are_refused(place: int, value: float, fault: str) -> None:
    nothing = Candidates(torch.zeros(0, 4), torch.zeros(0, 2))
    check_candidates([good(), nothing, good()], *EXPORTED)
    check_candidates([nothing], *EXPORTED)
    bad = good()
    (bad.boxes if place < 4 else bad.scores)[1, place % 4] = value
    with refused(fault) as caught:
        check_candidates([good(), nothing, bad], *EXPORTED)
    assert caught.value.image == 2
    assert f"{fault.replace(chr(92), '')} for b.jpg; export it anew." in str(caught.value.named("b.jpg"))


def test_large_numbers_are_no_fault_by_their_sum() -> None:
    boxes = torch.tensor([[-3e38, -3e38, 3e38, 3e38]]).repeat(9, 1)
    boxes[:4] = 3e38
    check_candidates([Candidates(boxes, torch.ones(9, 3))], *EXPORTED)


@pytest.mark.parametrize(
    ("place", "value", "fault"),
    [
        (2, 7.99, "a box of negative width or height"),
        (4, 2.7, r"scores outside 0\.\.1"),
        (5, -1.0, "a class id without a name"),
        (5, 2.0, "a class id without a name"),
        (5, float("nan"), "a class id without a name"),
    ],
)
def test_final_boxes_that_cannot_be_any_are_refused(place: int, value: float, fault: str) -> None:
    final = torch.cat([*good()], 1)[:, :6]
    final[:, 5] = torch.tensor([0.0, 1.0])
    check_boxes([final, final[:0]], 2, *EXPORTED)
    bad = final.clone()
    bad[1, place] = value
    with refused(fault) as caught:
        check_boxes([final, bad], 2, *EXPORTED)
    assert caught.value.image == 1
