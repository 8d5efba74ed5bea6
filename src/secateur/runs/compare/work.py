"""Runs a comparison: evaluates each network once, then computes everything from the records."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from secateur import sizes
from secateur.deploy.speed.comparison import side_by_side
from secateur.deploy.speed.timed import BenchSettings
from secateur.errors import UserError
from secateur.evaluation.bootstrap import Difference, check_alike
from secateur.evaluation.metrics import Metrics, measure
from secateur.evaluation.record import DetectionRecord, record_file
from secateur.evaluation.settings import ValSettings
from secateur.machine import cpu_threads, pick_device
from secateur.ranges import check_ranges
from secateur.report.disagreement import Disagreement, disagreements
from secateur.runs.compare.difference import resampled
from secateur.runs.compare.drawing import draw_disagreements
from secateur.runs.compare.options import CompareOptions
from secateur.runs.compare.sources import GivenNetwork, sources_of
from secateur.runs.compare.subject import Subject
from secateur.runs.compare.table import Compared, print_comparison
from secateur.runs.folders import Summary, require
from secateur.runs.pipeline import one_process
from secateur.runs.progress import Progress, digest, file_digest, key_of

LOG = logging.getLogger("secateur")
_LISTED = 100  # images of disagreement in the summary
_PRINTED = 5  # images of disagreement in the terminal


@dataclass(frozen=True)
class _Task:
    """A comparison whose files are open and compatible.

    Attributes:
        sources: in the given order, the reference first.
        subjects: files to evaluate, by the names of the sources.
        signature: digest of the images and labels of the evaluation; "" if nothing is evaluated.
    """

    options: CompareOptions
    device: torch.device
    sources: list[GivenNetwork]
    subjects: dict[str, Subject]
    signature: str


def compare_networks(options: CompareOptions) -> Summary:
    """`secateur compare`: prints the table and returns the summary. An interrupted comparison resumes.

    Raises:
        UserError: options or input are invalid, or networks were evaluated on other images, objects or classes.
    """
    one_process("compare")
    check_ranges(options)
    task = _opened(options)
    with Progress.open(options.place.root("compare"), options.place.name, _key(task)) as progress:
        return _compared(task, progress)


def _opened(options: CompareOptions) -> _Task:
    """Opens every file before the first evaluation."""
    sources = sources_of(options.files, options.task)
    device, subjects, signature = pick_device(options.device), {}, ""
    named: dict[str, Mapping[int, str]] = {}
    for source in sources:
        if source.record is not None:
            named[source.name] = DetectionRecord.load(source.record).names
            continue
        data_file = require(options.data, "--data", "data.yaml")
        subject = Subject.of(source.given, options.image_size, device, "fp32")
        subjects[source.name] = subject
        data = subject.data(data_file)
        named[source.name] = data.names
        if not signature:
            signature = subject.images(data, options.task, tell=True).signature()
    first = next(iter(named))
    for name, names in named.items():
        if list(names.values()) != list(named[first].values()):
            raise UserError(
                f"Cannot compare {first} with {len(named[first])} classes ({_few(named[first])}) and {name} "
                f"with {len(names)} ({_few(names)}). Give networks with the same classes in the same order."
            )
    return _Task(options, device, sources, subjects, signature)


def _few(names: Mapping[int, str]) -> str:
    return ", ".join(list(names.values())[:4]) + (", ..." if len(names) > 4 else "")


def _key(task: _Task) -> dict[str, str]:
    """Everything that the results depend on, by name."""
    options = {entry.name: getattr(task.options, entry.name) for entry in dataclasses.fields(task.options)}
    for name in ("place", "per_class"):
        del options[name]
    files = [task.options.data] if task.subjects else []
    contents = {f"the file {source.given}": _content(Path(source.record or source.given)) for source in task.sources}
    return key_of(options, contents | {"the images of --data": task.signature}, files)


def _content(path: Path) -> str:
    """Digest of a file, or of all files of a folder."""
    path = path.expanduser()
    if path.is_dir():
        return digest([(str(file.relative_to(path)), file_digest(file)) for file in sorted(path.rglob("*"))])
    return file_digest(path)


def _compared(task: _Task, progress: Progress) -> Summary:
    options, sources = task.options, task.sources
    LOG.info("Run folder: %s", progress.folder)
    records: dict[str, DetectionRecord] = {}
    for number, source in enumerate(sources, 1):
        record = _record(task, source, number, progress)
        if records:
            first = next(iter(records))
            check_alike(first, records[first], source.name, record)
        records[source.name] = record
    metrics = {name: _metrics(record) for name, record in records.items()}
    known = progress.step("differences", lambda: _differences(records, options))
    times = progress.step("times", lambda: _times(task)) if options.times and task.subjects else {}
    rows = [_row(source, task, metrics[source.name], records[source.name], known, times) for source in sources]
    lists = _disagreements(progress.folder, records, options)
    title = f"{len(records[sources[0].name])} images of the split {options.task}"
    print_comparison(rows, title, classes=options.per_class)
    for name, (found, folder) in lists.items():
        _say_disagreements(name, found, records[name], folder)
    print(f"Results are in {progress.folder}")
    summary: Summary = {
        "command": "compare",
        "task": options.task,
        "images": len(records[sources[0].name]),
        "reference": sources[0].name,
        "table": [row.to_dict() for row in rows],
        "disagreements": {
            name: [_entry(row, records[name]) for row in found[:_LISTED]] for name, (found, _) in lists.items()
        },
    }
    return progress.finish(summary)


def _record(task: _Task, source: GivenNetwork, number: int, progress: Progress) -> DetectionRecord:
    """The detections of a network, evaluated once and stored in the folder of the comparison."""
    if source.record is not None:
        return DetectionRecord.load(source.record)
    subject, options = task.subjects[source.name], task.options
    stem = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in Path(source.given).stem)
    file = record_file(progress.folder / "evaluation" / f"{number}-{stem[:80]}", options.task)

    def work() -> str:
        LOG.info("[%d/%d] %s", number, len(task.sources), subject.line)
        data = subject.data(options.data)
        settings = ValSettings(
            subject.image_size,
            options.batch_size,
            single_cls=data.one_class,
            workers=options.workers,
            detections=True,
        )
        scores = subject.evaluate(data, options.task, settings, task.device, tell=False)
        if not isinstance(scores.detections, DetectionRecord):
            raise UserError(f"{source.given} predicts no axis-aligned boxes, which a comparison needs.")
        scores.detections.save(file)
        return str(file.relative_to(progress.folder))

    return DetectionRecord.load(progress.folder / progress.step(f"evaluation {number}", work))


def _metrics(record: DetectionRecord) -> Metrics:
    """COCO metrics, computed in the same way for all networks."""
    return measure(
        record.truths, record.detections, record.shapes.astype(np.int64), record.names, max_det=record.max_det
    )


def _differences(records: Mapping[str, DetectionRecord], options: CompareOptions) -> dict[str, dict[str, Any]]:
    """The differences of every network to the first one, by name and metric, as plain data."""
    found = resampled(records, resamples=options.resamples, seed=options.seed)
    return {
        name: {figure: dataclasses.asdict(difference) for figure, difference in of_network.items()}
        for name, of_network in found.items()
    }


def _times(task: _Task) -> dict[str, Any]:
    """Latency and cost by file: milliseconds at batch 1, measured in interleaved rounds."""
    options = task.options
    settings = BenchSettings(
        (options.runtime,) if options.runtime else (),
        rounds=options.rounds,
        threads=options.threads or cpu_threads(),
    )
    by_file = {subject.weights: subject.image_size for subject in task.subjects.values()}
    measured = side_by_side(by_file, settings)
    return {
        name: {"ms": row.latency.median_ms, "speed": row.ratio, "runtime": row.runtime, "gflops": model["gflops"]}
        for name, (row, model) in measured.items()
    }


def _row(
    source: GivenNetwork,
    task: _Task,
    metrics: Metrics,
    record: DetectionRecord,
    known: Mapping[str, Any],
    times: Mapping[str, Any],
) -> Compared:
    subject, time = task.subjects.get(source.name), times.get(source.given) or {}
    model = dict(subject.model if subject is not None else source.model)
    if model.get("gflops") is None:
        model["gflops"] = time.get("gflops")
    return Compared(
        source.given,
        source.name,
        metrics,
        record.ap_by_size,
        model,
        None if subject is None else sizes.as_data(subject.image_size),
        time.get("ms"),
        time.get("speed"),
        time.get("runtime"),
        {figure: Difference(**values) for figure, values in known.get(source.name, {}).items()},
    )


def _disagreements(
    folder: Path, records: Mapping[str, DetectionRecord], options: CompareOptions
) -> dict[str, tuple[list[Disagreement], Path | None]]:
    """For every network but the first: its images with the largest disagreement first, and the folder of drawn ones."""
    (first, reference), *others = records.items()
    result: dict[str, tuple[list[Disagreement], Path | None]] = {}
    for number, (name, record) in enumerate(others, 2):
        found = disagreements(reference, record, options.conf)
        place = folder / "disagreements" / str(number)
        drawn = draw_disagreements(place, (first, reference), (name, record), found[: options.draw], options.conf)
        result[name] = found, place if drawn else None
    return result


def _say_disagreements(name: str, found: Sequence[Disagreement], record: DetectionRecord, folder: Path | None) -> None:
    if not found:
        print(f"{name} and the reference agree on every image.")
        return
    what = "objects lost or gained, false boxes removed or added"
    print(f"{name} disagrees with the reference on {len(found)} of {len(record)} images ({what}), most on:")
    for row in found[:_PRINTED]:
        print(f"  {record.files[row.image]}: {row.words()}")
    if folder is not None:
        print(f"  drawn in {folder}")


def _entry(row: Disagreement, record: DetectionRecord) -> dict[str, Any]:
    counts = dataclasses.asdict(row)
    del counts["image"]
    return {"image": record.files[row.image], "file": str(record.image_file(row.image)), "count": row.count, **counts}
