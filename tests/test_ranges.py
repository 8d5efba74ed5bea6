"""Every number that can be typed has a range, which is checked before anything is written."""

from __future__ import annotations

import dataclasses
import types
import typing
from pathlib import Path
from typing import Annotated, Any

import pytest

from commands_run import sentence
from secateur.commands import COMMANDS
from secateur.commands.data import Generate
from secateur.errors import UserError
from secateur.ranges import Between, check_ranges
from secateur.steps.step import STEPS

# Read from a file, which says where a value is wrong; or put into the settings of a step, which have the ranges.
ELSEWHERE = {"Hyp", "Replacing"}


def is_number(hint: Any) -> bool:
    if typing.get_origin(hint) is Annotated:
        return is_number(typing.get_args(hint)[0])
    if typing.get_origin(hint) in (typing.Union, types.UnionType, tuple):
        return any(is_number(inner) for inner in typing.get_args(hint))
    return hint in (int, float)


def without_range(kind: type[Any]) -> list[str]:
    hints = typing.get_type_hints(kind, include_extras=True)
    found = []
    for entry in dataclasses.fields(kind):
        hint = hints[entry.name]
        plain = typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint
        if dataclasses.is_dataclass(plain):
            found += without_range(plain) if plain.__name__ not in ELSEWHERE else []
        elif is_number(hint) and not any(isinstance(e, Between) for e in getattr(hint, "__metadata__", ())):
            found.append(f"{kind.__name__}.{entry.name}")
    return found


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_number_of_a_command_has_a_range(name: str) -> None:
    assert without_range(Generate if name == "data" else COMMANDS[name].options()) == []


@pytest.mark.parametrize("verb", sorted(STEPS))
def test_every_number_of_a_step_has_a_range(verb: str) -> None:
    assert without_range(STEPS[verb]) == []


@dataclasses.dataclass(frozen=True)
class Some:
    width: Annotated[int, Between(2, 4, also=0)] = 0
    shares: Annotated[tuple[float, ...], Between(0, 1)] = ()


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"width": 1}, "--width is 1; it must be from 2 to 4 (or 0)."),
        ({"width": 5}, "--width is 5; it must be from 2 to 4 (or 0)."),
        ({"width": 10**30}, "--width is a number with more than 24 digits; it must be from 2 to 4 (or 0)."),
        ({"shares": (0.5, float("nan"))}, "--shares is nan; it must be from 0 to 1."),
        ({"shares": ("1e-4",)}, "--shares is the text '1e-4'. YAML reads 1e-4 as text; write 1.0e-4."),
    ],
)
def test_what_is_outside_is_told(values: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError) as error:
        check_ranges(Some(**values))
    assert str(error.value) == told


@pytest.mark.parametrize("values", [{"width": 0}, {"width": 2}, {"width": 4}, {"shares": (0.0, 1.0)}])
def test_the_borders_and_the_other_number_are_taken(values: dict[str, Any]) -> None:
    check_ranges(Some(**values))


@pytest.mark.usefixtures("own_folder")
@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        ("train", "--workers", "-1"),
        ("val", "--workers", "-1"),
        ("prune", "--workers", "-1"),
        ("run", "--workers", "-1"),
        ("sweep", "--workers", "-1"),
        ("heal", "--workers", "99999"),
        ("train", "--img", "100000"),
        ("val", "--img", "100000"),
        ("run", "--img", "100000"),
        ("predict", "--img", "100000"),
        ("export", "--img", "100000"),
        ("bench", "--img", "100000"),
        ("latency", "--img", "-32"),
        ("train", "--seed", "-1"),
        ("prune", "--seed", "4294967296"),
        ("run", "--seed", "99999999999999999999"),
        ("demo", "--seed", "-5"),
        ("train", "--batch", "0"),
        ("run", "--batch", "0"),
        ("prune", "--batch", "0"),
        ("val", "--batch", "-2"),
        ("train", "--epochs", "0"),
        ("prune", "--min-share", "nan"),
        ("sparsify", "--rate", "inf"),
        ("finetune", "--distill-weight", "-1"),
        ("val", "--conf", "nan"),
        ("bench", "--rounds", "0"),
        ("export", "--opset", "-1"),
    ],
)
def test_numbers_out_of_range_are_one_sentence(
    command: str,
    option: str,
    value: str,
    tiny_weights: Path,
    tiny_data: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [command, option, value]
    if command != "demo":
        words += [str(tiny_weights)] if command == "bench" else ["--weights", str(tiny_weights)]
    if command in {"train", "val", "prune", "run", "sweep", "sparsify", "finetune", "heal"}:
        words += ["--data", str(tiny_data)]
    said = sentence(capsys, *words)
    assert " is " in said and "must be" in said and len(said) <= 300
    assert not Path("runs").exists()


@pytest.mark.usefixtures("own_folder")
@pytest.mark.parametrize(
    "words",
    [
        ("info", "{}", "--img", "1e10"),
        ("info", "{}", "--img", "10000000000"),
        ("info", "{}", "--img", "9" * 5000),
        ("recipes", "--x"),
        ("export", "--weights", "{}", "--opset", "1"),
        ("prune", "--weights", "{}", "--flops", "1e99"),
        ("prune", "--weights", "{}", "--params", "inf"),
        ("prune", "--weights", "{}", "--flops", "9" * 5000),
        ("prune", "--weights", "{}", "--rounds", "9" * 5000, "--flops", "0.5"),
        ("data", "generate", "out", "0"),
        ("data", "generate", "out", "8", "100000"),
    ],
)
def test_words_that_cannot_be_meant_are_one_sentence(
    words: tuple[str, ...], tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = sentence(capsys, *(word.format(tiny_weights) for word in words))
    assert len(said) <= 300
    assert not Path("runs").exists() and not Path("out").exists()
