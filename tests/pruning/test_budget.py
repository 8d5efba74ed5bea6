"""Budgets: what is read as a share or an amount, what is refused, and how rounds approach them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from secateur.errors import UserError
from secateur.pruning.budget import Budget, budgets_from


@pytest.mark.parametrize(
    ("cost", "text", "amount", "share"),
    [
        ("percent", "0.3", 0.3, True),
        ("percent", "30%", 0.3, True),
        ("params", "2M", 2e6, False),
        ("params", "800k", 8e5, False),
        ("params", "1768000", 1768000, False),
        ("params", 1768000, 1768000, False),
        ("params", 0.4, 0.4, True),
        ("params", "0.9 M", 9e5, False),
        ("params", "2M parameters", 2e6, False),
        ("flops", "3.2G", 3.2e9, False),
        ("flops", "3.2 GFLOPs", 3.2e9, False),
        ("flops", "2e9", 2e9, False),
        ("flops", " 50% ", 0.5, True),
        ("flops", "99.9%", 0.999, True),
        ("size", "2MB", 2, False),
        ("size", "800 KB", 0.8, False),
        ("size", "1.5 MiB", 1.572864, False),
        ("size", "0.5MB", 0.5, False),
        ("size", "1500000B", 1.5, False),
        ("size", "2m", 2, False),
        ("size", "0.5", 0.5, True),
        ("size", "50%", 0.5, True),
    ],
)
def test_parse(cost: str, text: str | float, amount: float, share: bool) -> None:
    budget = Budget.parse(cost, text)
    assert (budget.amount, budget.share) == (pytest.approx(amount), share)


@pytest.mark.parametrize("cost", ["params", "flops"])
@pytest.mark.parametrize("text", ["1", "1.0", 1, 1.0, "3", "100", "0.5k"])
def test_a_slip_is_no_amount(cost: str, text: str | float) -> None:
    """--params 1 kept one parameter."""
    with pytest.raises(
        UserError, match=rf"--{cost} {text} is neither a share nor a number of .*0\.5 or 50%.* such as "
    ):
        Budget.parse(cost, text)


@pytest.mark.parametrize(
    ("cost", "text", "words"),
    [
        ("percent", "0", "not between 0 and 1; write the share of units to remove such as 0.3 or 30%"),
        ("percent", "1", "not between 0 and 1"),
        ("percent", "1.5", "not between 0 and 1"),
        ("percent", "30", "not between 0 and 1"),
        ("percent", "2M", "not between 0 and 1"),
        ("percent", "-1", "not between 0 and 1"),
        ("percent", "nan", "not a number"),
        ("flops", "half", "not a number; write a share of the dense network such as 0.5 or 50%, or a number of FLOPs"),
        ("flops", "", "not a number"),
        ("flops", "G", "not a number"),
        ("flops", "-2G", "neither a share nor a number of FLOPs"),
        ("flops", "100%", "not between 0 and 1"),
        ("flops", "150%", "not between 0 and 1"),
        ("flops", "-0.5", "not between 0 and 1"),
        ("params", "0", "not between 0 and 1"),
        ("params", "inf", "neither a share nor a number of parameters"),
        ("seconds", "3", "Unknown cost 'seconds'; choose one of flops, fps, ms, params, percent, size"),
    ],
)
def test_parse_refuses(cost: str, text: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        Budget.parse(cost, text)
    assert str(error.value).count(". ") == 0, "one sentence"


def test_images_a_second_are_milliseconds() -> None:
    assert Budget.parse("fps", "30") == Budget.parse("fps", "30 fps") == Budget("ms", 1000 / 30, share=False)
    assert Budget.parse("fps", 0.5) == Budget("ms", 2000, share=False)
    for text in ("50%", "half", "0", "-3"):
        with pytest.raises(UserError, match=rf"--fps {text} is not a number( of fps)?; write a number of fps"):
            Budget.parse("fps", text)


def test_a_kind_of_file_follows_a_colon() -> None:
    budget = Budget.parse("size", "2MB:ONNX-int8")
    assert budget == Budget("size", 2, share=False, file="onnx-int8")
    assert str(budget) == "size 2 MB (onnx-int8)" and Budget.from_dict(budget.to_dict()) == budget
    assert Budget.parse("size", "0.5:yolov5") == Budget("size", 0.5, file="yolov5")
    assert str(Budget.parse("size", "0.5")) == "size 0.5" and "file" not in Budget("size", 0.5).to_dict()
    assert budget.at_round(1, 2, {"size": 8}) == Budget("size", 4, share=False, file="onnx-int8")
    for text, words in (("2MB:", "has no kind of file"), ("2", "without a unit"), ("0:onnx", "not between 0 and 1")):
        with pytest.raises(UserError, match=words):
            Budget.parse("size", text)
    with pytest.raises(UserError, match="is not a number"):
        Budget.parse("flops", "2G:onnx-int8")


def test_a_budget_of_its_own() -> None:
    with pytest.raises(UserError, match="not between 0 and 1"):
        Budget("flops", 1.0)
    with pytest.raises(UserError, match="not positive"):
        Budget("flops", -1.0, share=False)


def test_budgets_that_are_given() -> None:
    texts = {"percent": None, "params": "", "flops": "50%"}
    assert budgets_from(texts) == [Budget("flops", 0.5)]
    assert budgets_from({}) == []
    assert [str(b) for b in budgets_from({"percent": 0.3, "params": "2M"})] == ["percent 0.3", "params 2,000,000"]


def test_plain_data() -> None:
    for budget in (Budget("flops", 0.5), Budget("params", 2e6, share=False), Budget("seconds", 0.8, share=False)):
        assert Budget.from_dict(json.loads(json.dumps(budget.to_dict()))) == budget
    # Of files in which the amount alone told shares.
    assert Budget.from_dict({"kind": "flops", "amount": 0.5}) == Budget("flops", 0.5)
    assert Budget.from_dict({"kind": "flops", "amount": 2e9}) == Budget("flops", 2e9, share=False)


def test_rounds_approach_by_equal_factors() -> None:
    reference = {"params": 8e6, "flops": 1.0, "percent": 1.0}
    amounts = [Budget("params", 1e6, share=False).at_round(i, 3, reference) for i in (1, 2, 3)]
    assert [b.amount for b in amounts] == pytest.approx([4e6, 2e6, 1e6]) and amounts[-1].amount == 1e6
    kept = [Budget("flops", 0.125).at_round(i, 3, reference) for i in (1, 2, 3)]
    assert [b.amount for b in kept] == pytest.approx([0.5, 0.25, 0.125]) and all(b.share for b in kept)
    gone = [Budget("percent", 0.875).at_round(i, 3, reference).amount for i in (1, 2, 3)]
    assert gone == pytest.approx([0.5, 0.75, 0.875])
    large = Budget("params", 9e6, share=False)
    assert large.at_round(1, 3, reference) == large, "over the dense network: nothing goes"


def test_options_import_no_torch() -> None:
    code = (
        "import sys, secateur.pruning.settings, secateur.pruning.budget as b;"
        "b.budgets_from({'flops': '0.5'}); print([m for m in ('torch', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
