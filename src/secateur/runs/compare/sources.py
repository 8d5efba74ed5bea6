"""Inputs of a comparison: files to evaluate, or detections of earlier evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from secateur.deploy.runtimes import is_exported
from secateur.errors import UserError
from secateur.evaluation.record import record_file
from secateur.files import read_json, usable_path

SUMMARY = "summary.json"


@dataclass(frozen=True)
class GivenNetwork:
    """One network of a comparison.

    Attributes:
        given: as given by the user.
        name: name in tables, unique.
        record: detections of an earlier evaluation; None for a file to evaluate.
        model: the `model` entry of a run's summary; {} without one.
    """

    given: str
    name: str
    record: Path | None
    model: Mapping[str, Any]


def sources_of(given: tuple[str, ...], split: str) -> list[GivenNetwork]:
    """The inputs in the given order.

    Raises:
        UserError: there are fewer than two, one does not exist, or a folder has no detections of the split.
    """
    if len(given) < 2:
        raise UserError(
            "A comparison needs at least two networks: secateur compare dense.pt cut.onnx --data data.yaml."
        )
    short = _short(given)
    return [
        _source(
            word,
            short[word] if word not in given[:place] else f"{short[word]} ({given[:place].count(word) + 1})",
            split,
        )
        for place, word in enumerate(given)
    ]


def _short(given: Sequence[str]) -> dict[str, str]:
    """For each path, the shortest ending that distinguishes all of them."""
    paths = {word: PurePath(word).parts for word in given}
    count = 1
    while len({parts[-count:] for parts in paths.values()}) < len(paths) and count < max(map(len, paths.values())):
        count += 1
    return {word: "/".join(parts[-count:]).replace("//", "/") for word, parts in paths.items()}


def _source(word: str, name: str, split: str) -> GivenNetwork:
    path = usable_path(word, expand=True)
    if path.suffix == ".npz":
        if not path.is_file():
            raise UserError(f"{path} does not exist. Give the detections.npz of an evaluation, or the network itself.")
        return GivenNetwork(word, name, path, {})
    if path.is_dir() and not is_exported(path):
        record, model = _of_run(path, split)
        return GivenNetwork(word, name, record, model)
    return GivenNetwork(word, name, None, {})


def _of_run(folder: Path, split: str) -> tuple[Path, Mapping[str, Any]]:
    """The detections of a run's final network, or those in the folder itself, with the metadata of the network."""
    record, said = record_file(folder, split), _summary(folder)
    if not record.is_file():
        rows = said.get("table")
        names = [row["name"] for row in rows if _is_stage(row)] if isinstance(rows, list) else []
        record = record_file(folder / "evaluation" / names[-1], split) if names else record
    if not record.is_file():
        raise UserError(
            f"{folder} has no detections of the split {split}: it is not the folder of a run with an "
            "evaluation on it, or an earlier version wrote it. Give the network itself, and --data."
        )
    model = said.get("model")
    return record, model if isinstance(model, dict) else {}


def _is_stage(row: Any) -> bool:
    return isinstance(row, dict) and isinstance(row.get("name"), str) and "beside" not in row


def _summary(folder: Path) -> dict[str, Any]:
    said = read_json(folder / SUMMARY) if (folder / SUMMARY).is_file() else {}
    return said if isinstance(said, dict) else {}
