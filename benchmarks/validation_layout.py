"""How much faster is validation on a CPU in channels_last and cache-sized batches? yolov5n, 640 px, against NCHW at
32.

    python benchmarks/validation_layout.py [--weights yolov5n.pt] [--data coco128.yaml] [--json result.json]

Times inference (network and decoding) of the same images with both layouts, in interleaved rounds. With --data, it also
validates with both and compares mAP, on the images of the data set.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from secateur.data.config import load_data_config
from secateur.data.index import scan
from secateur.evaluation.settings import ValSettings
from secateur.evaluation.validate import auto_batch_size, validate
from secateur.families.detection.predictor import TorchPredictor
from secateur.families.loading import load_checkpoint
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import Topology
from secateur.files import write_json

Clock = Callable[[], float]


def run_once(
    network: Detector, images: torch.Tensor, batch_size: int, layout: torch.memory_format, clock: Clock
) -> float:
    """Seconds for the decoded predictions of all images uint8 [N, 3, H, W], including their conversion."""
    start = clock()
    with torch.inference_mode():
        for batch in images.split(batch_size):
            raw = network(batch.to(torch.float32, memory_format=layout).div_(255))
            network.decode_above(raw, ValSettings().nms.conf)
    return clock() - start


def measure(detector: Detector, size: int, images: int, rounds: int, clock: Clock) -> dict[str, Any]:
    """Median ms per image for both layouts, and the median ratio of the rounds."""
    pixels = torch.randint(0, 256, (images, 3, size, size), dtype=torch.uint8)
    fused = {"nchw": detector.fused(), "channels_last": detector.fused().to(memory_format=torch.channels_last)}
    ways = {
        "nchw": (32, torch.contiguous_format),
        "channels_last": (auto_batch_size(size, torch.device("cpu")), torch.channels_last),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, (batch_size, layout) in ways.items() if turn % 2 == 0 else reversed(ways.items()):
            taken = run_once(fused[name], pixels, batch_size, layout, clock)
            if turn:  # the first round is warm-up
                seconds[name].append(taken)
    ratios = np.asarray(seconds["nchw"]) / np.asarray(seconds["channels_last"])
    return {
        "ms_per_image": {name: 1000 * float(np.median(values)) / images for name, values in seconds.items()},
        "batch": {name: batch_size for name, (batch_size, _) in ways.items()},
        "ratio": float(np.median(ratios)),
        "ratios": [round(float(r), 3) for r in ratios],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", help="checkpoint; default: a random yolov5n")
    parser.add_argument("--data", help="data.yaml for comparing mAP")
    parser.add_argument("--split", default="val")
    parser.add_argument("--imgsz", type=int, default=640)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="0: PyTorch's choice")
    parser.add_argument(
        "--cpu-time", action="store_true", help=("measure CPU time, for loaded machines (with --threads 1)")
    )
    parser.add_argument("--json", type=Path, help="file for the result")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    detector = load_checkpoint(options.weights).build() if options.weights else Detector(Topology.from_yaml("yolov5n"))
    clock = time.process_time if options.cpu_time else time.perf_counter
    result = measure(detector.eval(), options.imgsz, options.images, options.rounds, clock)
    result |= {
        "clock": clock.__name__,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
    times, batch = result["ms_per_image"], result["batch"]
    print(f"{'way':<32}{'ms an image':>12}")
    print(f"{'NCHW, batch 32':<32}{times['nchw']:>12.1f}")
    print(f"{'channels_last, batch ' + str(batch['channels_last']):<32}{times['channels_last']:>12.1f}")
    print(f"ratio (median of {options.rounds} rounds): {result['ratio']:.2f}x")
    if options.data:
        index = scan(load_data_config(options.data), options.split)
        predictor = TorchPredictor(detector)
        auto = validate(predictor, index, ValSettings(image_size=options.imgsz))
        large = validate(predictor, index, ValSettings(image_size=options.imgsz, batch_size=32))
        result["mAP"] = {"auto": auto.to_dict(), "batch 32": large.to_dict()}
        print(f"mAP50 / mAP50-95: {auto.mAP50:.4f} / {auto.mAP50_95:.4f} in cache-sized batches, "
              f"{large.mAP50:.4f} / {large.mAP50_95:.4f} at batch 32")  # fmt: skip
    if options.json:
        write_json(options.json, result)


if __name__ == "__main__":
    main()
