"""Accuracy on selected classes at half the FLOPs: for one class, for eight, and for all.

    python benchmarks/only_classes.py --weights yolov5n.pt --data coco128/data.yaml [--img 320] [--flops 0.5]
        [--steps 200] [--json out.json] [--keep folder]

The labels of the training images are not read. Everything is evaluated on `val`, for the selected classes:

    all           the detector of all classes
    all, cut      cut to the share of its FLOPs and repaired, no training
    all, healed   then healed
    dense         narrowed to the selected classes (`--classes`): identical outputs for these
    cut           cut to the share of its FLOPs and repaired, no training
    healed        then healed

Detectors and measurements that exist in the folder (`--keep`) are reused.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from secateur.checkpoints.channels import prune
from secateur.checkpoints.heal import heal
from secateur.data.config import load_data_config, unlabelled_images
from secateur.distillation.settings import HealSettings
from secateur.families.context import Context
from secateur.families.evaluation import describe, evaluate, usable_size
from secateur.families.loading import load_checkpoint
from secateur.families.only_classes import only_classes
from secateur.networks.checkpoint import Checkpoint, save_checkpoint
from secateur.pruning.options import ChannelSettings, budget_options
from secateur.pruning.settings import CliffSettings

JOBS = {
    "person": ("person",),
    "vehicles": ("bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"),
}


@dataclass(frozen=True)
class Bench:
    """Settings for making and evaluating the detectors.

    Attributes:
        keep: folder of the detectors and of the measurements.
    """

    context: Context
    share: str
    steps: int
    keep: Path

    def made(self, name: str, whole: Checkpoint) -> dict[str, Checkpoint]:
        """The detector cut and repaired, and healed, by the names of their rows."""
        context = replace(self.context, unlabelled=replace(self.context.unlabelled, names=whole.names))  # type: ignore[type-var]
        cut = self._once(f"{name}-cut", lambda _: self._cut(whole, context))
        settings = HealSettings(heal_steps=self.steps)
        healed = self._once(
            f"{name}-healed", lambda folder: load_checkpoint(heal(cut, whole, context, settings, folder).best)
        )
        return {"cut": cut, "healed": healed}

    def _cut(self, whole: Checkpoint, context: Context) -> Checkpoint:
        settings = ChannelSettings(budget=budget_options()(flops=self.share), cliff=CliffSettings(cliff=False))
        return prune(whole, context, settings)[0]

    def _once(self, name: str, make: Any) -> Checkpoint:
        file = self.keep / f"{name}.safetensors"
        if not file.is_file():
            start = time.perf_counter()
            with tempfile.TemporaryDirectory() as folder:
                save_checkpoint(make(Path(folder)), file)
            print(f"made {name} in {time.perf_counter() - start:.0f} s", flush=True)
        return load_checkpoint(file)

    def measured(self, name: str, made: Checkpoint) -> dict[str, Any]:
        """The cost of a detector, and mAP50 and mAP50-95 of each class on `val`."""
        file = self.keep / f"{name}.json"
        if not file.is_file():
            classes = {row.name: [row.mAP50, row.mAP50_95] for row in evaluate(made, self.context).per_class}
            file.write_text(json.dumps({**describe(made, self.context.image_size), "classes": classes}) + "\n")
        found: dict[str, Any] = json.loads(file.read_text())
        return found


def main() -> None:
    """Prints a table, and writes it as JSON."""
    options = _options()
    options.keep.mkdir(parents=True, exist_ok=True)
    whole, data = load_checkpoint(options.weights), load_data_config(options.data)
    unlabelled = unlabelled_images(options.data, whole.names)
    context = Context(usable_size(whole, options.img), data=data, workers=0, unlabelled=unlabelled)
    bench = Bench(context, options.flops, options.steps, options.keep)
    detectors = {"all": {"dense": whole, **bench.made("all", whole)}}
    for job in options.jobs:
        narrow = only_classes(whole, JOBS[job])
        detectors[job] = {"dense": narrow, **bench.made(job, narrow)}
    rows = []
    for job in options.jobs:
        for group in ("all", job):
            for stage, made in detectors[group].items():
                rows.append(_row(job, group, stage, bench.measured(f"{group}-{stage}", made)))
                print(_line(rows[-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


def _row(job: str, group: str, stage: str, measured: dict[str, Any]) -> dict[str, Any]:
    """The means over the selected classes that have objects."""
    rows = [measured["classes"][name] for name in JOBS[job] if name in measured["classes"]]
    mean50, mean = (sum(row[place] for row in rows) / len(rows) for place in (0, 1))
    cost = {"GFLOPs": measured["gflops"], "parameters": measured["parameters"]}
    title = stage if group == job else "all" if stage == "dense" else f"all, {stage}"
    return {"job": job, "stage": title, **cost, "mAP50": mean50, "mAP50-95": mean}


def _line(row: dict[str, Any]) -> str:
    accuracy = f"mAP50 {row['mAP50']:.3f}  mAP50-95 {row['mAP50-95']:.3f}"
    return f"{row['job']:<9} {row['stage']:<12} {row['GFLOPs']:.3f} GFLOPs  {row['parameters']:>9,}  {accuracy}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--img", type=int, default=320)
    parser.add_argument("--flops", default="0.5")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument(
        "--keep", type=Path, default=Path("only-classes"), help="folder of the detectors and of the measurements"
    )
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
