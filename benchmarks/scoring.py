"""What do per-image gradients cost? Scoring of all channels against plain training passes, in interleaved rounds.

    python benchmarks/scoring.py --weights yolov5n.pt --data coco128.yaml [--img 320] [--images 256] [--rounds 5]

Scoring is `statistics.collect` with the loss of every image separately. A plain pass is forward and backward of the
same batches of 16 with gradients of all weights, in the same precision. Reports the ratio of the medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from secateur.data.config import load_data_config
from secateur.families.context import Context
from secateur.families.evidence import FamilyEvidence
from secateur.families.loading import load_checkpoint
from secateur.families.yolov5.loss import DetectionLoss
from secateur.families.yolov5.model import Detector
from secateur.machine import cpu_threads, processor
from secateur.pruning.graph import trace
from secateur.pruning.statistics import collect
from secateur.training.hyp import Hyp
from secateur.training.optimization.precision import choose_precision, full_precision


def main() -> None:
    """Prints both times and their ratio."""
    options = _options()
    torch.set_num_threads(cpu_threads())
    detector = load_checkpoint(options.weights).build().to(memory_format=torch.channels_last)
    assert isinstance(detector, Detector)
    context = Context(options.img, data=load_data_config(options.data), workers=0)
    evidence = FamilyEvidence(context, detector)
    count, batches = -(-options.images // 16), []
    for number in range(count):  # small data sets are read more than once
        batches += list(evidence.batches(16).epoch(number))
    batches = batches[:count]
    graph, term = trace(detector), DetectionLoss(detector, Hyp(), options.img)
    losses = evidence.loss(detector)
    fast = choose_precision("auto", context.device.type) == "bf16"

    def plain() -> None:
        detector.eval().requires_grad_(True)
        for batch in batches:
            with torch.autocast(context.device.type, dtype=torch.bfloat16, enabled=fast):
                raw = detector(evidence.prepared(batch))
            term([full_precision(level) for level in raw], batch.targets)[0].backward()
            detector.zero_grad(set_to_none=True)

    def scoring() -> None:
        collect(detector, graph, batches, losses)

    ways: dict[str, Callable[[], None]] = {"plain": plain, "scoring": scoring}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(options.rounds + 1):
        for name, work in ways.items():
            start = time.perf_counter()
            work()
            if turn:  # the first turn warms up
                times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in times.items()}
    result = {"images": 16 * count, "img": options.img, **medians, "ratio": medians["scoring"] / medians["plain"]}
    print(processor())
    print(f"plain {medians['plain']:.2f} s, scoring {medians['scoring']:.2f} s, ratio {result['ratio']:.2f}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--img", type=int, default=320)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
