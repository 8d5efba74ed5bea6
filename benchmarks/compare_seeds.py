"""Does the confidence interval of one comparison contain the mean difference over several seeds?

    python benchmarks/compare_seeds.py --weights best.pt --data data.yaml [--seeds 0 1 2] -- --flops 0.5 --heal
    python benchmarks/compare_seeds.py --runs runs/run/exp runs/run/exp2 runs/run/exp3

The first form prunes once per seed with the options after `--`; the second reads completed runs of `secateur run` or
`secateur prune --data`. The interval of each run covers the sampling of images for this pair of networks; the mean over
seeds is the effect of the pruning method.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from secateur.cli import main as secateur
from secateur.evaluation.bootstrap import FIGURES
from secateur.files import read_json


def pruned(weights: str, data: str, seeds: list[int], more: list[str], root: Path) -> list[Path]:
    """Prunes once per seed; folders that already have a summary are reused."""
    folders = []
    for seed in seeds:
        place = root / f"seed-{seed}"
        if not (place / "summary.json").is_file():
            words = ["--project", str(root), "--name", place.name, "--seed", str(seed)]
            secateur(["prune", "--weights", weights, "--data", data, *words, *more])
        folders.append(place)
    return folders


def compared(folders: list[Path]) -> list[dict[str, Any]]:
    """One row per metric: the differences, their intervals, the mean, and whether each interval contains it."""
    found = []
    for folder in folders:
        difference = read_json(folder / "summary.json").get("difference")
        if difference is None:
            raise SystemExit(
                f"{folder} has no difference in its summary.json: it was not evaluated, or is from an earlier version."
            )
        found.append(difference)
    rows = []
    for figure in FIGURES:
        each = [difference[figure] for difference in found]
        mean = sum(one["change"] for one in each) / len(each)
        contains = [one["low"] <= mean <= one["high"] for one in each]
        rows.append({"figure": figure, "mean": mean, "each": each, "contains": contains})
    return rows


def main() -> None:
    """Prints one line per metric and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights")
    parser.add_argument("--data")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--root", type=Path, default=Path("runs/compare-seeds"))
    parser.add_argument("--runs", type=Path, nargs="+", default=[], help="folders of completed runs")
    parser.add_argument("--json", type=Path)
    parser.add_argument("more", nargs="*", help="options of secateur prune, after --")
    options = parser.parse_args()
    if not options.runs and not (options.weights and options.data):
        parser.error("give --weights and --data, or --runs")
    folders = options.runs or pruned(options.weights, options.data, options.seeds, options.more, options.root)
    rows = compared(folders)
    for row in rows:
        print(f"{row['figure']}: mean difference {row['mean']:+.4f} over {len(folders)} runs")
        for folder, one, inside in zip(folders, row["each"], row["contains"], strict=True):
            interval = f"{one['change']:+.4f} ({one['low']:+.4f} to {one['high']:+.4f})"
            print(f"  {folder}: {interval}, {'contains' if inside else 'does not contain'} the mean")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
