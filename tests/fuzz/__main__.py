"""Long runs: `python tests/fuzz -n 10000`; one case again: `python tests/fuzz --reader pt --seed 123`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "families" / "yolov5")]

# Children are forked: one of them would wait for ever for threads that only its parent has.
os.environ["OMP_NUM_THREADS"] = "1"

import torch  # noqa: E402
from fuzz_campaign import Case, campaign, table  # noqa: E402
from fuzz_readers import READERS, make_bases  # noqa: E402


def main() -> None:
    """Runs the cases, shows how far it is, and ends with a table; exit code 1 where there is a finding."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=1000, help="cases of all readers together")
    parser.add_argument("--reader", choices=sorted(READERS), action="append", help="only this one (several at will)")
    parser.add_argument("--seed", type=int, help="one case again")
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"), help="folder for the files of findings")
    options = parser.parse_args()
    torch.set_num_threads(1)
    readers = options.reader or list(READERS)
    with tempfile.TemporaryDirectory() as folder:
        bases = make_bases(Path(folder))
    if options.seed is not None:
        cases = [Case(reader, options.seed) for reader in readers]
    else:
        each = -(-options.n // len(readers))
        cases = [Case(reader, options.first + number) for reader in readers for number in range(each)]
    outcomes, start = [], time.monotonic()
    for outcome in campaign(cases, bases):
        outcomes.append(outcome)
        if not outcome.fine:
            options.keep.mkdir(parents=True, exist_ok=True)
            suffix = Path(READERS[outcome.reader].file).suffix
            file = options.keep / f"{outcome.reader}-{outcome.seed}{suffix}"
            file.write_bytes(Case(outcome.reader, outcome.seed).content(bases))
            print(f"\r{outcome.reader} --seed {outcome.seed}: {outcome.end}: {outcome.words}", flush=True)
        if len(outcomes) % 20 == 0:
            rate = len(outcomes) / (time.monotonic() - start)
            print(f"\r{len(outcomes)} of {len(cases)} cases, {rate:.0f} a second ", end="", flush=True, file=sys.stderr)
    print(f"\n{table(outcomes)}")
    if options.seed is not None:
        print("\n".join(f"{outcome.reader}: {outcome.end}: {outcome.words}" for outcome in outcomes))
    raise SystemExit(any(not outcome.fine for outcome in outcomes))


if __name__ == "__main__":
    main()
