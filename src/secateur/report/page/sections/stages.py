"""The table of stages: accuracy, size and speed of every network of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from secateur.report.page import wording as say
from secateur.report.page.blocks import Cell, DataTable, Section
from secateur.report.page.detections import record_of
from secateur.report.page.model import RunData, Stage, number
from secateur.report.page.sections.headline import judging

_COSTS: tuple[tuple[str, Callable[[Stage], float | None], Callable[[float | None], str]], ...] = (
    ("Params", lambda stage: stage.cost("parameters"), say.count),
    ("GFLOPs", lambda stage: stage.cost("gflops"), say.plain),
    ("MB", lambda stage: stage.cost("file_mb"), lambda value: say.plain(value, 3)),
    ("ms", lambda stage: stage.milliseconds, say.plain),
    ("Zeros", lambda stage: _zeros(stage), lambda value: say.share(value, 1)),
)


def stages(runs: Sequence[RunData]) -> Section:
    """One table per split over all runs; columns without values are omitted."""
    shown = [run for run in runs if run.stages]
    if not shown:
        return Section("stages", "Stages", absent="No run has evaluated a network yet.")
    blocks = [_table(shown, "metrics", "Validation split")]
    if any(stage.test for run in shown for stage in run.stages):
        blocks.append(_table(shown, "test", "Test split"))
    lead = "Every network of the run, with its change relative to the dense one. "
    lead += (
        "P and R are at the confidence with the best mean F1. MB is the size of the tensors in fp16. ms is the median "
    )
    lead += "latency per image, measured in interleaved rounds on one machine."
    return Section("stages", "Stages", lead, blocks)


def _zeros(stage: Stage) -> float | None:
    value = stage.cost("sparsity")
    return value if value is not None and value >= 0.005 else None


def _table(runs: Sequence[RunData], split: str, caption: str) -> DataTable:
    rows = [stage for run in runs for stage in run.stages]
    names = list(dict.fromkeys(n for run in runs for stage in run.stages for n in _scores(run, stage, split)))
    costs = [entry for entry in _COSTS if any(entry[1](stage) is not None for stage in rows)]
    titles = ["Stage", *names, *(title for title, _, _ in costs)]
    cells: list[list[Cell | str]] = []
    for run in runs:
        if len(runs) > 1:
            cells.append([Cell(run.label)])
        cells += [_row(run, stage, split, names, costs) for stage in run.stages]
    return DataTable(caption, titles, cells)


def _scores(run: RunData, stage: Stage, split: str) -> dict[str, float]:
    """Scores of a split, with COCO's AP by size if they were computed."""
    metrics = stage.metrics if split == "metrics" else stage.test
    by_size = (stage.record.get("ap_by_size") if split == "metrics" else None) or {}
    record = None if by_size else record_of(run, stage, "val" if split == "metrics" else split)
    if record is not None:
        by_size = record.ap_by_size
    found = {**metrics, **{name: value for name, value in by_size.items() if name not in metrics}}
    return {name: value for name, value in found.items() if number(value) is not None}


def _row(
    run: RunData, stage: Stage, split: str, names: Sequence[str], costs: Sequence[tuple[str, object, object]]
) -> list[Cell | str]:
    dense, final = run.dense, run.final
    look = "strong" if stage is final else "faint" if stage.compared else ""
    note = "for comparison" if stage.compared else ""
    cells: list[Cell | str] = [Cell(stage.title, note, look)]
    mine, first = _scores(run, stage, split), _scores(run, dense, split) if dense else {}
    for name in names:
        change = mine[name] - first[name] if name in mine and name in first and stage is not dense else None
        noted = name in judging(stage) or name.startswith("AP ")
        cells.append(Cell(_size_score(name, mine.get(name)), say.signed(change) if noted else "", look))
    for title, value, write in costs:
        assert callable(value) and callable(write)
        part = say.ratio(value(stage), value(dense)) if dense and stage is not dense and title != "Zeros" else None
        cells.append(Cell(write(value(stage)), say.share(part) if part is not None else "", look))
    return cells


def _size_score(name: str, value: float | None) -> str:
    """COCO uses −1 if no object has that size."""
    return say.MISSING if value is None or (name.startswith("AP ") and value < 0) else say.score(value)
