"""What do the checks of a checkpoint cost? Two versions of the code load the same files in interleaved rounds.

    git worktree add ../before COMMIT
    python benchmarks/loading.py --before ../before/src best.pt [more.pt ...] [--rounds 25] [--json out.json]

Each version runs in a separate process. The first load is ignored. Prints medians and the ratio of the two versions.
Files that the older version rejects are skipped with a message.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from secateur.machine import processor

SOURCE = Path(__file__).resolve().parents[1] / "src"
CHILD = """
import sys, time
import torch
from secateur.families.loading import load_checkpoint
torch.set_num_threads(1)
print("ready", flush=True)
for line in sys.stdin:
    start = time.perf_counter()
    try:
        load_checkpoint(line.strip()).build()
        print(time.perf_counter() - start, flush=True)
    except Exception as error:
        print("refused:", " ".join(str(error).split()), flush=True)
"""


class Version:
    """A process that loads files with one version of the code."""

    def __init__(self, source: Path) -> None:
        environment = os.environ | {"PYTHONPATH": str(source.resolve())}
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        if self._line() != "ready":
            raise SystemExit(f"{source} does not contain an importable Secateur.")

    def load(self, file: Path) -> float | str:
        """Seconds, or the reason for a failure."""
        assert self.process.stdin
        print(file.resolve(), file=self.process.stdin, flush=True)
        line = self._line()
        return line if line.startswith("refused") else float(line)

    def _line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()


def main() -> None:
    """Prints one row per file, and writes them as JSON."""
    options = _options()
    versions = [Version(options.before), Version(SOURCE)]
    rows = []
    print(f"{processor()}\n{'file':<50}  before (ms)  now (ms)  ratio")
    for file in options.files:
        times: list[list[float]] = [[], []]
        for turn in range(options.rounds + 1):
            found = [version.load(file) for version in versions[:: 1 if turn % 2 else -1]][:: 1 if turn % 2 else -1]
            if any(isinstance(one, str) for one in found):
                print(f"{file.name:<50}  {found[0] if isinstance(found[0], str) else found[1]}"[:160])
                break
            if turn:
                for kept, one in zip(times, found, strict=True):
                    kept.append(float(one))
        else:
            before, now = map(statistics.median, times)
            rows.append({"file": file.name, "before_ms": 1000 * before, "now_ms": 1000 * now, "ratio": now / before})
            print(f"{file.name:<50}  {1000 * before:>11.1f}  {1000 * now:>8.1f}  {now / before:>5.2f}", flush=True)
    if rows:
        print(f"median of the ratios: {statistics.median(row['ratio'] for row in rows):.2f}")
    if options.json:
        options.json.write_text(json.dumps({"machine": processor(), "rows": rows}, indent=2) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--before", type=Path, required=True, help="folder that contains the earlier package secateur")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
