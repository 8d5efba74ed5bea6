"""mAP of a detector at given shares of a cost, without training and without labels.

    python benchmarks/untrained.py yolov5n.pt coco128/data.yaml --images FOLDER [--img 640 416] [--cost flops]

The detector is pruned on unlabelled images and evaluated on `val` of the data set.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import secateur
from secateur.machine import processor


def main() -> None:
    """Prints a table, and writes it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights")
    parser.add_argument("data")
    parser.add_argument("--images", required=True, help="folder of the unlabelled images for pruning")
    parser.add_argument("--img", type=int, nargs="+", default=[640])
    parser.add_argument("--cost", choices=("params", "flops"), default="params")
    parser.add_argument("--keep", type=float, nargs="+", default=[0.95, 0.89, 0.78], help="shares of this cost")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(processor())
    whole, rows = secateur.load(options.weights), list[dict[str, Any]]()
    for size in options.img:
        dense = secateur.evaluate(whole, options.data, image_size=size)
        for share in [1.0, *options.keep]:
            start = time.perf_counter()
            budget = {options.cost: share}
            made = whole if share == 1 else secateur.prune(whole, images=options.images, image_size=size, **budget)
            seconds = time.perf_counter() - start
            found = dense if share == 1 else secateur.evaluate(made, options.data, image_size=size)
            accuracy = {"mAP50": found.values["mAP50"], "mAP50-95": found.value, "kept": found.value / dense.value}
            rows.append({"size": size, options.cost: share, **accuracy, "seconds": seconds})
            values = ", ".join(f"{name} {value:.3f}" for name, value in accuracy.items())
            print(f"{size} px, {share:.0%} of the {options.cost}: {values}, {seconds:.0f} s", flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
