"""The task and the result of a run, in one sentence each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from secateur.evaluation.bootstrap import FIGURES, Difference
from secateur.report.page import wording as say
from secateur.report.page.blocks import Block, Heading, KeyFigure, Lines, Paragraph, Section, Tiles
from secateur.report.page.detections import signature_of
from secateur.report.page.model import RunData, Stage
from secateur.report.page.sections.latency import scattered_times

_ASKED = {
    "prune": "Prune a trained network",
    "heal": "Heal a cut network",
    "sweep": "Measure accuracy at several pruning ratios",
    "train": "Train a network",
    "sparsify": "Train a network sparsely",
    "finetune": "Fine-tune a network",
    "demo": "Train a small network on generated images and prune it",
    "pareto": "Measure accuracy against latency at several budgets",
}
_AS_GOOD = 0.005
"""A score that decreases by at most this much counts as kept."""


def headline(runs: Sequence[RunData]) -> Section:
    """For every run, a sentence about the task, one about the result, and key figures; first, how the runs differ in
    data.
    """
    blocks: list[Block] = []
    different = different_data(runs)
    if different:
        blocks.append(Paragraph(different, "warning"))
    for run in runs:
        if len(runs) > 1:
            blocks.append(Heading(run.label))
        blocks += [Paragraph(asked(run), "asked"), Paragraph(came_out(run), "result")]
        tiles = tiles_of(run)
        if tiles:
            blocks.append(Tiles(f"Key figures of {run.label}", tiles))
        certain = difference_sentence(run)
        if certain:
            blocks.append(Paragraph(certain, "lead"))
        notices = notices_of(run)
        if notices:
            blocks.append(Lines(notices, label="Notes"))
    return Section("result", "Result", blocks=blocks)


def asked(run: RunData) -> str:
    """The task of the run."""
    recipe = run.summary.get("recipe") or run.about.get("recipe")
    what = f"Recipe {recipe}" if recipe else _ASKED.get(run.command, f"secateur {run.command}")
    parts = [what]
    if run.about.get("budget"):
        parts.append(f"budget {run.about['budget']}")
    weights = run.about.get("weights")
    if weights:
        parts.append(f"network {Path(str(weights)).name}")
    if run.data:
        splits = run.data.get("splits") or {}
        counts = say.joined(f"{count:,} {name}" for name, count in splits.items())
        parts.append(f"data {data_name(run)}" + (f" ({counts} images)" if counts else ""))
    size = run.about.get("image_size")
    if size:
        parts.append(f"{size} px" if isinstance(size, int) else f"{'x'.join(map(str, size))} px")
    return " · ".join(parts)


def data_name(run: RunData) -> str:
    """The display name of the data set."""
    file = Path(str(run.data.get("file") or "data set"))
    return file.parent.name if file.stem == "data" and file.parent.name else file.name


def came_out(run: RunData) -> str:
    """The result in one sentence."""
    dense, final = run.dense, run.final
    if run.command == "sweep":
        return _sweep_sentence(run)
    if dense is None:
        return "No network has been evaluated yet."
    if final is None:
        figures = _figures(dense)
        return f"The {_title(dense)} network has {figures}." if figures else "The network has no results yet."
    parts = [part for part in (accuracy_words(dense, final), cost_words(dense, final)) if part]
    return f"The {_title(final)} network {' '.join(parts)}."


def accuracy_words(dense: Stage, final: Stage) -> str:
    """The kept accuracy: "keeps 99.8 % of mAP50 (0.851 of 0.853)"; "" if nothing was evaluated."""
    parts = []
    for name in judging(final):
        before, after = dense.score(name), final.score(name)
        if before is not None and after is not None:
            kept = f"{100 * after / before:.1f} % of " if before else ""
            parts.append(f"{kept}{name} ({say.score(after)} of {say.score(before)})")
    more = all((final.score(name) or 0) > (dense.score(name) or 0) for name in judging(final))
    return f"{'reaches' if more else 'keeps'} {say.joined(parts)}" if parts else ""


def cost_words(dense: Stage, final: Stage) -> str:
    """The remaining cost: "with 48 % of the FLOPs, at 2.4 instead of 7.7 ms per image (3.2 times as fast)"."""
    parts = []
    for key, name in (("gflops", "FLOPs"), ("parameters", "parameters")):
        left = say.ratio(final.cost(key), dense.cost(key))
        if left is not None:
            parts.append(f"{say.share(left)} of the {name}")
    words = [f"with {say.joined(parts)}"] if parts else []
    before, after = dense.milliseconds, final.milliseconds
    if before and after:
        speed = before / after
        gain = f"{speed:.1f} times as fast" if speed >= 1.05 else "no faster" if speed >= 0.95 else "slower"
        words.append(f"at {say.plain(after)} instead of {say.plain(before)} ms per image ({gain})")
    return ", ".join(words)


def difference_sentence(run: RunData) -> str:
    """The significance of the change in accuracy, if the run resampled its images; otherwise ""."""
    found = run.summary.get("difference")
    if not isinstance(found, dict):
        return ""
    names = set(Difference.__dataclass_fields__)
    try:
        lines = [
            f"{figure} {Difference(**{name: value for name, value in found[figure].items() if name in names}).line()}"
            for figure in FIGURES
        ]
        return (
            f"Difference to {found['against']}: {'; '.join(lines)} (95 % intervals from resampling the "
            f"{found['images']} validation images)."
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return ""


def judging(stage: Stage) -> tuple[str, ...]:
    """Names of the scores by which a stage is judged: the recorded ones, otherwise the last two."""
    return tuple(stage.record.get("judged_by") or list(stage.metrics)[-2:])


def tiles_of(run: RunData) -> list[KeyFigure]:
    """Key figures before and after."""
    dense, final = run.dense, run.final
    if dense is None or run.command == "sweep":
        return []
    last, tiles = final or dense, []
    for name in judging(last):
        before, after = dense.score(name), last.score(name)
        if after is not None:
            tiles.append(_tile(name, before, after, say.score, final is not None, absolute=True))
    for key, name, write in (("gflops", "GFLOPs", say.plain), ("parameters", "Parameters", say.count)):
        after = last.cost(key)
        if after is not None:
            tiles.append(_tile(name, dense.cost(key), after, write, final is not None))
    if last.milliseconds is not None:
        tiles.append(_tile("Milliseconds", dense.milliseconds, last.milliseconds, say.plain, final is not None))
    return tiles


def _tile(
    name: str,
    before: float | None,
    after: float,
    write: Callable[[float | None], str],
    changed: bool,
    absolute: bool = False,
) -> KeyFigure:
    if not changed or before is None:
        return KeyFigure(name, write(after))
    if absolute:
        change, good = say.signed(after - before), after >= before - _AS_GOOD
    else:
        change, good = f"{say.signed(100 * (after / before - 1), 0)} %" if before else "", after < before
    return KeyFigure(name, write(after), write(before), change, "good" if good else "")


def notices_of(run: RunData) -> list[str]:
    """Notes that affect the interpretation of the figures: an incomplete run, damaged files, warnings."""
    lines = []
    if not run.ended:
        missing = run.missing
        left = (
            f"{say.joined(missing)} {'is' if len(missing) == 1 else 'are'} missing" if missing else "it can be resumed"
        )
        lines.append(f"The run has not ended: {left}. The page shows its results so far.")
    lines += run.unreadable
    lines += [str(note["warning"]) for note in run.notes.values() if isinstance(note, dict) and note.get("warning")]
    scattered = scattered_times(run)
    if scattered:
        lines.append(
            f"The times of {say.joined(scattered)} vary by more than a factor of two, probably due to background load. "
            "Measure again with secateur bench before relying on them."
        )
    return list(dict.fromkeys(lines))


def different_data(runs: Sequence[RunData]) -> str:
    """A sentence if the runs were evaluated on different images, so that their scores are not comparable; otherwise
    "".
    """
    kept = {run.label: signature for run in runs if (signature := signature_of(run))}
    # Compare the content if every run kept it, because it is more reliable than a file name.
    known = (
        kept if len(kept) == len(runs) else {run.label: str(run.data["file"]) for run in runs if run.data.get("file")}
    )
    if len(set(known.values())) < 2:
        return ""
    sets = [f"{run.label} on {data_name(run)}" for run in runs if run.label in known]
    return (
        f"The runs use different data sets ({say.joined(sets)}), so only their costs are comparable, not "
        "their scores. Images and classes are shown separately for each run."
    )


def _title(stage: Stage) -> str:
    return {"train": "trained", "sparsify": "sparsely trained", "finetune": "fine-tuned"}.get(stage.title, stage.title)


def _figures(stage: Stage) -> str:
    scores = [f"{name} {say.score(stage.score(name))}" for name in judging(stage) if stage.score(name) is not None]
    cost = [f"{say.plain(stage.cost('gflops'))} GFLOPs"] if stage.cost("gflops") is not None else []
    cost += [f"{say.count(stage.cost('parameters'))} parameters"] if stage.cost("parameters") is not None else []
    return say.joined([*scores, *cost])


def _sweep_sentence(run: RunData) -> str:
    rows = run.summary.get("table") or []
    if not rows:
        return "The sweep has not ended, so there is no table yet."
    cliff = run.summary.get("cliff")
    last = rows[-1]
    place = (
        (f"accuracy falls steeply beyond {say.share(cliff)}") if cliff is not None else "accuracy does not fall steeply"
    )
    name = next((key for key in rows[0] if key.startswith("mAP")), "")
    scores = f" ({name} {say.score(rows[0][name])} dense, {say.score(last[name])} at {say.share(last['percent'])})"
    return f"With channels removed and without repair, {place}{scores if name else ''}."
