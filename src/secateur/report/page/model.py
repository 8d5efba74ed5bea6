"""Reads a run folder into plain data for the report page, whether the run has ended or not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from secateur.errors import UserError
from secateur.files import read_json, usable_path

SUMMARY, PROGRESS, ABOUT, PARETO = "summary.json", "progress.json", "about.json", "pareto.json"
TRAININGS = ("train", "sparsify", "finetune")
"""Commands whose run folder holds one training."""
_ROW = "row "


@dataclass(frozen=True)
class Stage:
    """An evaluated network of a run.

    Attributes:
        name: file name without extension; "" if the run has only this network.
        title: title of its row.
        record: the row as recorded by the run.
        folder: folder with the files of its evaluation.
        compared: whether it is only for comparison, such as a control, and not a stage of the run's own network.
    """

    name: str
    title: str
    record: Mapping[str, Any]
    folder: Path
    compared: bool = False

    @property
    def metrics(self) -> Mapping[str, float]:
        """Scores on the validation split by name; empty if nothing was evaluated."""
        return self.record.get("metrics") or {}

    @property
    def test(self) -> Mapping[str, float]:
        """Scores on the test split by name; empty without one."""
        return self.record.get("test") or {}

    @property
    def model(self) -> Mapping[str, float]:
        """Parameters, GFLOPs, zeros and megabytes."""
        return self.record.get("model") or {}

    @property
    def classes(self) -> Sequence[Mapping[str, Any]]:
        """One plain dictionary per class."""
        return self.record.get("per_class") or ()

    @property
    def milliseconds(self) -> float | None:
        """Median latency per image; None if it was not measured."""
        return self.record.get("latency_ms")

    def score(self, name: str) -> float | None:
        """One score on the validation split, or None."""
        return number(self.metrics.get(name))

    def cost(self, name: str) -> float | None:
        """One entry of `model`, or None."""
        return number(self.model.get(name))


@dataclass(frozen=True)
class RunData:
    """A run folder as plain data.

    Attributes:
        folder: folder of the run.
        label: name on the page, unique there.
        summary: summary.json; empty if the run has not ended.
        parts: results of completed parts by name.
        about: command line, versions, machine, data and settings; empty for a run of an earlier version.
        stages: evaluated networks in order.
        unreadable: messages about damaged files.
    """

    folder: Path
    label: str
    summary: Mapping[str, Any]
    parts: Mapping[str, Any]
    about: Mapping[str, Any]
    stages: tuple[Stage, ...]
    unreadable: list[str] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        """Whether the run wrote its summary."""
        return bool(self.summary)

    @property
    def command(self) -> str:
        """The command of the run; "run" if unknown."""
        return str(self.summary.get("command") or self.about.get("command") or "run")

    @property
    def own(self) -> tuple[Stage, ...]:
        """The stages of the run's own network, the dense one first."""
        return tuple(stage for stage in self.stages if not stage.compared)

    @property
    def dense(self) -> Stage | None:
        """The network that all others are compared with; None if nothing was evaluated."""
        return self.own[0] if self.own else None

    @property
    def final(self) -> Stage | None:
        """The final network, or the last one so far; None if it is the dense network or there is none."""
        return self.own[-1] if len(self.own) > 1 else None

    @cached_property
    def notes(self) -> Mapping[str, Any]:
        """Notes of steps by name."""
        found: dict[str, Any] = {}
        for part in self.parts.values():
            if isinstance(part, dict) and isinstance(part.get("notes"), dict):
                found |= part["notes"]
        return found

    @property
    def missing(self) -> list[str]:
        """The planned steps that are not complete, as the run describes them."""
        if self.ended:
            return []
        planned = self.about.get("steps") or []
        return [str(step["words"]) for step in planned if step["part"] not in self.parts]

    @property
    def data(self) -> Mapping[str, Any]:
        """The data set: file, root, splits, signatures, classes; empty if unknown."""
        return self.about.get("data") or {}

    def json(self, name: str) -> Any:
        """The content of a JSON file of the run; None if it is missing, or if it is damaged, which is recorded."""
        file = self.folder / name
        if not file.is_file():
            return None
        try:
            return read_json(file)
        except UserError as error:
            if str(error) not in self.unreadable:
                self.unreadable.append(str(error))
            return None

    def files(self, name: str) -> list[Path]:
        """The files with this name in the run's folder and its subfolders, oldest first."""
        found = [file for pattern in (name, f"*/{name}") for file in self.folder.glob(pattern) if file.is_file()]
        return sorted(found, key=lambda file: (file.stat().st_mtime, str(file)))


def number(value: Any) -> float | None:
    """A finite number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < float("inf") else None


def read_runs(folders: Sequence[str | Path]) -> list[RunData]:
    """Reads run folders and labels them by their names.

    Raises:
        UserError: no folder is given, one is given twice, or one does not contain a run.
    """
    if not folders:
        raise UserError("No run is given. Give a run folder, for example secateur report runs/run/exp.")
    places = [_folder(folder) for folder in folders]
    resolved = [place.resolve() for place in places]
    twice = next((place for place, real in zip(places, resolved, strict=True) if resolved.count(real) > 1), None)
    if twice is not None:
        raise UserError(f"The run {twice} is given twice. Give each run once.")
    return [_read(place, label) for place, label in zip(places, _labels(resolved), strict=True)]


def _folder(path: str | Path) -> Path:
    folder = usable_path(path)
    if folder.is_file() and folder.name == SUMMARY:
        folder = folder.parent
    if not folder.is_dir():
        raise UserError(f"The run folder {folder} does not exist. Give the folder of a run, such as runs/run/exp.")
    return folder


def _labels(folders: Sequence[Path]) -> list[str]:
    """The shortest path endings that distinguish the runs."""
    depth = 1
    while depth < 4:
        labels = ["/".join(folder.parts[-depth:]) for folder in folders]
        if len(set(labels)) == len(labels):
            return labels
        depth += 1
    return [str(folder) for folder in folders]


def _read(folder: Path, label: str) -> RunData:
    """Reads one folder.

    Raises:
        UserError: it is not the folder of a run, or contains nothing that a page can show.
    """
    unreadable: list[str] = []
    summary, progress, about = (_mapping(folder / name, unreadable) for name in (SUMMARY, PROGRESS, ABOUT))
    parts = progress.get("steps") if isinstance(progress.get("steps"), dict) else {}
    stages = _stages(folder, summary, parts or {}, about)
    run = RunData(folder, label, summary, parts or {}, about, stages, unreadable)
    if not summary and not stages and not run.files("results.csv") and not (folder / PARETO).is_file():
        reason = f": {unreadable[0]}" if unreadable else f": it has no {SUMMARY} and no completed part."
        raise UserError(f"{folder} does not contain a run{reason} Give the folder that the command printed at its end.")
    return run


def _mapping(file: Path, unreadable: list[str]) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        found = read_json(file)
    except UserError as error:
        unreadable.append(str(error))
        return {}
    if isinstance(found, dict):
        return found
    unreadable.append(f"{file} contains {json.dumps(found)[:40]} instead of named values.")
    return {}


def _stages(
    folder: Path, summary: Mapping[str, Any], parts: Mapping[str, Any], about: Mapping[str, Any]
) -> tuple[Stage, ...]:
    """The evaluated networks: from the table if there is one, otherwise from the completed parts."""
    names = [name.removeprefix(_ROW) for name in parts if name.startswith(_ROW)]
    rows: list[Any] = list(summary.get("table") or []) or [parts[f"{_ROW}{name}"] for name in names]
    rows = [row for row in rows if isinstance(row, dict) and isinstance(row.get("stage"), str)]
    if not rows and summary.get("command") == "sweep":
        return (Stage("dense", "dense", {**summary, "table": None}, _evaluation(folder, "dense")),)
    if not rows and summary.get("model"):
        return (Stage("", str(summary.get("command") or about.get("command") or "network"), summary, folder),)
    if len(names) != len(rows):
        names = [str(row.get("name") or row["stage"]) for row in rows]
    return tuple(
        Stage(name, row["stage"], row, _evaluation(folder, name), "beside" in row)
        for name, row in zip(names, rows, strict=True)
    )


def _evaluation(folder: Path, name: str) -> Path:
    place = folder / "evaluation" / name
    return place if name and place.is_dir() else folder
