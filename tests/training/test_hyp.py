"""Files of hyper-parameters: what is refused, in one sentence that names the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostile_yaml import HOSTILE, check_sentence
from secateur.errors import UserError
from secateur.families.hyp import load_hyp


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(name: str, tmp_path: Path) -> None:
    file = tmp_path / "hyp.yaml"
    file.write_bytes(b"lr0: 0.01\n" + HOSTILE[name])
    with pytest.raises(UserError) as caught:
        load_hyp(file)
    check_sentence(caught.value, "hyp.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "lr0: .inf",
        "lr0: .nan",
        "lr0: -1",
        "lr0: 1e999",
        f"lr0: 1{'0' * 390}",
        f"lr0: '1{'0' * 5000}'",
        "lr0: true",
        "lr0: [0.1]",
        "lr0: {a: 1}",
        "lr0: 2024-01-01",
        "lr0: ~",
        f"lr0: {'x' * 6000}",
        f"{'x' * 6000}: 1",
        "1: 2",
        "~: 2",
        "2024-01-01: 2",
        "true",
        "- lr0",
        "",
    ],
)
def test_values_that_are_no_numbers_are_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "hyp.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        load_hyp(file)
    check_sentence(caught.value, "hyp.yaml")
