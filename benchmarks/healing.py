"""Accuracy of a detector at a share of its FLOPs without training, by method, and after healing.

    python benchmarks/healing.py --weights best.pt --data data.yaml [--img 320] [--shares 0.8 0.6 0.5] [--labels none]
        [--ways one-shot savings paired rounds rebuilt depth heal] [--seeds 0] [--steps auto|400] [--minutes 10]
        [--json out.json]

    one-shot   scores of the dense detector (taylor), norms re-estimated half way: the method of version 0.1
    savings    the same, with scores divided by the cost that a channel saves
    paired     fisher in one shot, norms corrected against the dense detector
    rounds     the same in rounds of 5 %
    rebuilt    the same, and layers that lost inputs get new weights
    depth      the same, and complete bottlenecks compete with channels: the default of `prune`
    heal       then trained to reproduce the dense detector's outputs; the row also has the number of steps, the
               training time in seconds, and why it ended

Every method is evaluated on `val` and, if it exists, on `test`. With `--labels none`, the labels of the training images
are not read. Rows in an existing JSON file are not measured again. Compare seconds only as ratios on one machine.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from secateur.checkpoints.channels import prune
from secateur.checkpoints.heal import heal
from secateur.checkpoints.pace import NOTES
from secateur.data.config import load_data_config, unlabelled_images
from secateur.distillation.settings import HealSettings
from secateur.families.context import Context
from secateur.families.evaluation import evaluate, usable_size
from secateur.families.loading import load_checkpoint
from secateur.files import read_json
from secateur.networks.checkpoint import Checkpoint
from secateur.pruning.options import ChannelSettings, budget_options
from secateur.pruning.plan import Plan
from secateur.pruning.settings import CliffSettings, Guards, RepairSettings, RoundSettings, ScoreSettings

REESTIMATE = {"rounds": RoundSettings("1"), "repair": RepairSettings(norms="reestimate")}
NORMS_ONLY = RepairSettings(reconstruct=False)
WAYS: dict[str, dict[str, Any]] = {
    "one-shot": {**REESTIMATE, "score": ScoreSettings("taylor", per_saving="never")},
    "savings": {**REESTIMATE, "score": ScoreSettings("taylor")},
    "paired": {"rounds": RoundSettings("1"), "repair": NORMS_ONLY},
    "rounds": {"rounds": RoundSettings(depth=False), "repair": NORMS_ONLY},
    "rebuilt": {"rounds": RoundSettings(depth=False)},
    "depth": {},
}


def main() -> None:
    """Prints one row per method, share and seed, and writes them as JSON after each."""
    options = _options()
    whole, data = load_checkpoint(options.weights), load_data_config(options.data)
    context = Context(usable_size(whole, options.img), data=data, workers=options.workers)
    if options.labels == "none":
        context = replace(context, unlabelled=unlabelled_images(options.images or options.data, whole.names))
    rows = json.loads(options.json.read_text()) if options.json and options.json.exists() else []
    known = {(row["way"], row["share"], row["seed"]) for row in rows}
    if ("dense", 1.0, 0) not in known:
        rows.append({"way": "dense", "share": 1.0, "seed": 0, "seconds": 0.0, **figures(whole, context)})
    for row in rows:
        show(row)
    for seed in options.seeds:
        here = replace(context, seed=seed)
        for share in options.shares:
            for row in measured(
                whole, here, share, [w for w in options.ways if (w, share, seed) not in known], options
            ):
                rows.append(row)
                show(row)
                if options.json:
                    options.json.write_text(json.dumps(rows, indent=1) + "\n")


def measured(whole: Checkpoint, context: Context, share: float, ways: list[str], options: argparse.Namespace) -> Any:
    """The rows of one share."""
    last: Checkpoint | None = None
    for way in [way for way in ways if way != "heal"]:
        start = time.perf_counter()
        last, plan = cut_by(whole, context, share, way, options)
        took = time.perf_counter() - start
        yield row_of(way, share, context, plan, took, last)
    if "heal" in ways:
        if last is None:
            last, plan = cut_by(whole, context, share, "depth", options)
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            settings = HealSettings(heal_steps=options.steps, heal_minutes=options.minutes, heal_lr=options.lr)
            healed = load_checkpoint(heal(last, whole, context, settings, Path(folder)).best)
            noted = read_json(Path(folder) / NOTES)
        yield row_of("heal", share, context, plan, time.perf_counter() - start, healed) | {"healing": noted}


def cut_by(
    whole: Checkpoint, context: Context, share: float, way: str, options: argparse.Namespace
) -> tuple[Checkpoint, Plan]:
    """The cut and repaired detector of one method."""
    settings = ChannelSettings(
        budget=budget_options()(**{options.cost: str(share)}),
        guards=Guards(round_to=options.round_to),
        cliff=CliffSettings(cliff=False),
        **WAYS[way],
    )
    small, pruned = prune(whole, context, settings)
    return small, pruned.plan


def row_of(way: str, share: float, context: Context, plan: Plan, seconds: float, made: Checkpoint) -> dict[str, Any]:
    """All results of one detector."""
    return {
        "way": way,
        "share": share,
        "seed": context.seed,
        "seconds": seconds,
        "flops": plan.after.flops / plan.before.flops,
        "parameters": plan.after.parameters / plan.before.parameters,
        "blocks": list(plan.removed_blocks),
        **figures(made, context),
    }


def figures(checkpoint: Checkpoint, context: Context) -> dict[str, Any]:
    """mAP50 and mAP50-95 on val and test."""
    assert context.data is not None
    splits = [split for split in ("val", "test") if split in context.data.splits]
    found = {split: evaluate(checkpoint, context, split) for split in splits}
    return {split: [metrics.mAP50, metrics.mAP50_95] for split, metrics in found.items()}


def show(row: dict[str, Any]) -> None:
    """Prints one line."""
    accuracy = "  ".join(
        f"{split} {row[split][0]:.3f}/{row[split][1]:.3f}" for split in ("val", "test") if split in row
    )
    size = f"FLOPs {row.get('flops', 1):.3f} parameters {row.get('parameters', 1):.3f}"
    healing = row.get("healing", {})
    end = f"  {healing['steps']} steps ({healing['reason']})" if healing else ""
    print(
        f"{row['way']:<9} {row['share']:.2f} seed {row['seed']}  {size}  {accuracy}  {row['seconds']:.0f} s{end}",
        flush=True,
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--img", type=int, default=0)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    parser.add_argument("--cost", default="flops")
    parser.add_argument("--ways", nargs="+", default=[*WAYS, "heal"], choices=[*WAYS, "heal"])
    parser.add_argument("--labels", default="data", choices=["data", "none"])
    parser.add_argument("--images", default="")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=lambda word: word if word == "auto" else int(word), default="auto")
    parser.add_argument("--minutes", type=float, default=HealSettings.heal_minutes)
    parser.add_argument("--lr", type=float, default=HealSettings.heal_lr)
    parser.add_argument("--round-to", type=int, default=8)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
