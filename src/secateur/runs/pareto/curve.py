"""`secateur pareto`: checks the options, computes the points, and writes the table, the files and the conclusions."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from secateur.checkpoints.training import Methods, contents
from secateur.deploy.speed.rounding import decided_guards
from secateur.deploy.speed.timed import check_runtimes
from secateur.distillation.settings import DistillSettings
from secateur.errors import UserError
from secateur.evaluation.tradeoff import DENSE, CurvePoint, dominated, front, knee
from secateur.families.family import family_of
from secateur.families.hyp import load_hyp
from secateur.files import write_json, write_text
from secateur.machine import cpu_threads, processor
from secateur.ranges import check_ranges
from secateur.report.figures import plots_available
from secateur.report.page import PAGE, leave_page
from secateur.report.tradeoff import curve_csv, curve_table, knee_sentence, plot_curve, winner_sentences
from secateur.runs.ending.next_line import after_cut, export_of, say
from secateur.runs.folders import Summary, require
from secateur.runs.pareto.course import ParetoCourse, ParetoTask
from secateur.runs.pareto.networks import ParetoNetwork, opened
from secateur.runs.pareto.options import ParetoOptions, budgets_of
from secateur.runs.pareto.references import references
from secateur.runs.pipeline import one_process
from secateur.runs.progress import Progress, key_of
from secateur.scores import Scores
from secateur.training.settings import TrainSettings

LOG = logging.getLogger("secateur")


def pareto(options: ParetoOptions) -> Summary:
    """Cuts every network to every budget, heals and fine-tunes if requested, measures, and writes the curve.

    An interrupted command resumes. Files of all points are in points/; files of the dense networks are not moved.

    Raises:
        UserError: options or input are invalid; checked before anything is written.
    """
    one_process("pareto")
    check_ranges(options)
    require("".join(options.weights), "--weights", "best.pt")
    require(options.data, "--data", "data.yaml")
    budgets = budgets_of(options.budgets, options.cost)
    others = references(options.reference)
    methods = Methods(distill=DistillSettings(distill=options.distill))
    if options.distill and not options.finetune:
        raise UserError("--distill applies to the fine-tuning. Add --finetune with the number of epochs.")
    [runtime] = check_runtimes((options.latency.runtime,) if options.latency.runtime else ())
    guards = decided_guards(options.guards, options.latency, milliseconds=options.cost == "ms")
    networks = opened(options, budgets, guards)
    training = _training(options, networks, methods)
    task = ParetoTask(options, networks, guards, training, methods)
    with Progress.open(options.place.root("pareto"), options.place.name, _key(task)) as progress:
        for sentence in (sentence for network in networks for sentence in network.skipped):
            LOG.warning(sentence)
        course = ParetoCourse(task, progress)
        points, times = course.run()
        course.tidy()
        return Ending(task, progress, runtime, others).write(_timed(points, times))


def _training(options: ParetoOptions, networks: Sequence[ParetoNetwork], methods: Methods) -> TrainSettings | None:
    """Settings of the fine-tuning, or None. Created in any case, because this also checks batch size, workers and seed.

    Raises:
        UserError: a value is out of range, or the method does not fit a network.
    """
    training = TrainSettings(
        epochs=max(options.finetune, 1),
        batch_size=options.batch_size,
        image_size=networks[0].context.image_size,
        seed=options.seed,
        workers=options.workers,
        device=options.device,
        hyp=load_hyp(options.hyp),
    )
    if not options.finetune:
        return None
    for network in networks:
        family = family_of(network.checkpoint)
        training.hyp.read(family.hyp)
        methods.check(training, family)
    return training


def _key(task: ParetoTask) -> dict[str, str]:
    """Everything that the results depend on, by name."""
    options, first = task.options, task.networks[0]
    record = dataclasses.asdict(options) | {"image_size": first.context.image_size}
    record["guards"] = dataclasses.asdict(task.guards)
    del record["place"]
    family, data = family_of(first.checkpoint), first.context.require_data("A curve")
    names = [name for name in ("train", "val") if name in data.splits]
    found = contents({name: family.split(data, name, objects=False) for name in names})
    if first.context.unlabelled is not None:
        found["the images"] = family.split(first.context.unlabelled, "train").signature()
    files = (*options.weights, options.data, options.hyp, options.reference, options.latency.latency_table)
    return key_of(record, found, files)


def _timed(points: Sequence[Mapping[str, Any]], times: Mapping[str, float]) -> list[dict[str, Any]]:
    """The points in the format of pareto.json, per network from the largest to the smallest.

    A healed or fine-tuned network has the latency of the cut one, because it has the same shapes.
    """
    found, ms = [], 0.0
    for point in points:
        ms = times.get(point["label"], ms)
        scores, model = Scores.from_record(point["scores"]), point["model"]
        found.append(
            {name: point[name] for name in ("label", "network", "kind")}
            | {"mAP50": scores.values.get("mAP50"), "mAP50_95": scores.values.get("mAP50-95")}
            | {"accuracy": scores.fitness, "figures": {name: scores.values[name] for name in scores.judged_by}}
            | {"parameters": model["parameters"], "gflops": model["gflops"], "mb": model["file_mb"]}
            | {"ms": ms, "file": point["file"]}
        )
    networks = list(dict.fromkeys(point["network"] for point in found))
    return sorted(found, key=lambda point: (networks.index(point["network"]), point["kind"] != DENSE, -point["gflops"]))


@dataclasses.dataclass(frozen=True)
class Ending:
    """The output of a curve."""

    task: ParetoTask
    progress: Progress
    runtime: str
    references: Sequence[Mapping[str, Any]]

    def write(self, points: list[dict[str, Any]]) -> Summary:
        """Writes the files, prints the table and the conclusions, and returns the summary."""
        folder, options = self.progress.folder, self.task.options
        figures = list(points[0]["figures"])
        curve = [CurvePoint(p["label"], p["network"], p["kind"], p["ms"], p["accuracy"]) for p in points]
        found, less = knee(curve), dominated(curve)
        label = found.label if found is not None else None
        best = [point.label for point in front(curve)]
        sentences = [knee_sentence(curve, found), *winner_sentences(curve, figures[-1])]
        record = {
            "points": [*points, *(self.reference(point) for point in self.references)],
            "knee": label,
            "figure": figures[-1],
            "front": best,
            "dominated": less,
            "answers": sentences,
            "skipped": [sentence for network in self.task.networks for sentence in network.skipped],
            "image_size": self.task.networks[0].context.image_size,
            "data": options.data,
            "machine": processor(),
            "runtime": self.runtime,
            "threads": options.latency.threads or cpu_threads(),
        }
        write_json(folder / "pareto.json", record)
        write_text(folder / "pareto.csv", curve_csv(points))
        if plots_available():
            plot_curve(points, self.references, figures, folder / "pareto.png", knee=label)
        print(curve_table(points, figures, label, less))
        print("\n".join([*record["skipped"], *sentences]))
        chosen = next(point for point in points if point["label"] == (label or best[-1]))
        first = self.progress.parts[f"row {self.task.networks[0].label}"]
        metrics = Scores.from_record(first["scores"]).to_dict()
        result = self.progress.finish(
            {"command": "pareto", "metrics": metrics, "model": first["model"], "speed_ms": {}, "table": points}
            | {name: value for name, value in record.items() if name != "points"}
        )
        page = f", {PAGE}" if leave_page(folder) else ""
        print(f"Wrote table and plot to {folder}: pareto.csv, pareto.json{', pareto.png' * plots_available()}{page}.")
        say(self.next_line(chosen))
        return result

    def reference(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """A reference point in the format of the other points."""
        nothing = dict.fromkeys(("network", "accuracy", "parameters", "gflops", "mb", "file"))
        return {**nothing, **point, "kind": "reference", "figures": {}}

    def next_line(self, point: Mapping[str, Any]) -> str:
        """The suggested next command for a point, ready to paste."""
        file = Path(point["file"]) if point["kind"] == "dense" else self.progress.folder / point["file"]
        network = next(one for one in self.task.networks if one.label == point["network"])
        if point["kind"] in ("pruned", "healed"):
            return after_cut(file, network.checkpoint, data=self.task.options.data)
        return export_of(file)
