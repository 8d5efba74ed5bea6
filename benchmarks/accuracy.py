"""Repeats a complete run with several seeds and reports mean and values of every row of its table.

    python benchmarks/accuracy.py --seeds 0 1 2 --json accuracy.json -- \\
        --weights yolov5n.pt --data data.yaml --img 320 --params 0.46 --flops 0.74

Arguments after `--` are options of `secateur run`. After an interruption, the same command resumes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from secateur.files import write_json

METRICS = ("P", "R", "mAP50", "mAP50-95")


def one_run(arguments: list[str], seed: int, project: Path) -> dict[str, Any]:
    """The summary for one seed; a completed run of this benchmark is not repeated."""
    done = project / f"seed{seed}.json"
    if not done.is_file():
        command = [sys.executable, "-m", "secateur", "run", *arguments, "--seed", str(seed), "--json"]
        command += ["--project", str(project), "--name", f"seed{seed}-"]
        result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if result.returncode:
            raise SystemExit(result.returncode)
        write_json(done, json.loads(result.stdout))
    return json.loads(done.read_text())


def aggregate(summaries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per stage and split: mean and values of each metric, and the cost of the network."""
    rows = []
    for position, first in enumerate(summaries[0]["table"]):
        records = [summary["table"][position] for summary in summaries]
        for split in ("metrics", "test"):
            if not first.get(split):
                continue
            row: dict[str, Any] = {"stage": first["stage"], "split": "val" if split == "metrics" else "test"}
            for name in METRICS:
                values = [record[split][name] for record in records]
                row[name] = statistics.mean(values)
                row[f"{name} of the seeds"] = values
            for name in ("parameters", "gflops"):
                row[name] = statistics.mean(record["model"][name] for record in records)
            row["latency_ms"] = statistics.median(record["latency_ms"] for record in records)
            rows.append(row)
    return sorted(rows, key=lambda row: row["split"] != "val")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--project", type=Path, default=Path("runs/accuracy"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    arguments = [word for word in options.arguments if word != "--"]
    rows = aggregate([one_run(arguments, seed, options.project) for seed in options.seeds])
    table = Table(title=f"Means over {len(options.seeds)} seeds (mAP50 of each in brackets)")
    for name in ("split", "stage", *METRICS, "params (M)", "GFLOPs", "ms"):
        table.add_column(name)
    for row in rows:
        seeds = " ".join(f"{value:.3f}" for value in row["mAP50 of the seeds"])
        figures = [f"{row[name]:.3f}" for name in METRICS]
        figures[2] += f" ({seeds})"
        cost = [f"{row['parameters'] / 1e6:.3f}", f"{row['gflops']:.3f}", f"{row['latency_ms']:.2f}"]
        table.add_row(row["split"], row["stage"], *figures, *cost)
    Console(width=150).print(table)
    if options.json:
        write_json(options.json, {"seeds": options.seeds, "arguments": arguments, "rows": rows})


if __name__ == "__main__":
    main()
