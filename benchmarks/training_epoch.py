"""Measures the time of a complete training epoch relative to bare forward and backward passes on the same batches.

An epoch is everything that `fit` does between two epoch ends without evaluation: loader, augmentation, loss, clipping,
optimizer, EMA, a gamma penalty on every norm, results, checkpoints, resumable state. The bare passes use the same
batches, loaded in advance, with the same kind of detector and the sum of the outputs as loss. Both are measured
alternately in one process, for NCHW fp32, channels_last fp32 and channels_last bf16, in several rounds; medians are
compared.

    python benchmarks/training_epoch.py --data data.yaml --out training_epoch.json
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from secateur.data.augment import Augmentation
from secateur.data.batches import TrainBatches, train_batches
from secateur.data.config import load_data_config
from secateur.data.dataset import Batch, DetectionDataset
from secateur.data.index import scan
from secateur.data.synthetic import generate
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import Topology
from secateur.files import write_json
from secateur.pruning.graph import trace
from secateur.sparsity.channels.gamma import GammaPenalty
from secateur.sparsity.settings import SparsifySettings
from secateur.training.hooks import Hook
from secateur.training.loop import fit
from secateur.training.optimization.precision import fast_bf16_on_cpu
from secateur.training.run import TrainingRun
from secateur.training.settings import TrainSettings

VARIANTS = {
    "NCHW fp32": {"channels_last": False, "amp": "off"},
    "channels_last fp32": {"channels_last": True, "amp": "off"},
    "channels_last bf16": {"channels_last": True, "amp": "bf16"},
}


@dataclass
class Times:
    """Seconds of each round."""

    epoch: list[float]
    bare: list[float]


class Clock(Hook):
    """Times the second epoch from one epoch end to the next, and the bare passes outside this interval."""

    def __init__(self, detector: Detector, batches: Sequence[Batch], settings: TrainSettings) -> None:
        self.detector, self.batches, self.settings = detector, batches, settings
        self.started = self.epoch = self.bare = 0.0

    def epoch_end(self, run: TrainingRun) -> None:
        """The first epoch is warm-up."""
        synchronise()
        if run.epoch == 0:
            bare_passes(self.detector, self.batches[:2], self.settings)
            begun = time.perf_counter()
            bare_passes(self.detector, self.batches, self.settings)
            self.bare = time.perf_counter() - begun
            self.started = time.perf_counter()
        else:
            self.epoch = time.perf_counter() - self.started


def synchronise() -> None:
    """Waits for a CUDA device's queue."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def bare_passes(detector: Detector, batches: Sequence[Batch], settings: TrainSettings) -> None:
    """Forward and backward passes of loaded batches only."""
    device = next(detector.parameters()).device
    layout = torch.channels_last if settings.channels_last else torch.contiguous_format
    for batch in batches:
        images = batch.images.to(device).contiguous(memory_format=layout).float().div_(255)
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.amp == "bf16"):
            raw = detector(images)
        torch.autograd.backward([level.float().sum() for level in raw])
        detector.zero_grad(set_to_none=True)
    synchronise()


def measure_round(
    name: str, classes: int, batches: TrainBatches, loaded: Sequence[Batch], base: TrainSettings
) -> tuple[float, float]:
    """Seconds of one complete epoch and of its bare passes."""
    settings = replace(base, **VARIANTS[name])  # type: ignore[arg-type]
    topology = Topology.from_yaml("yolov5n", nc=classes)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    layout = torch.channels_last if settings.channels_last else torch.contiguous_format
    bare = Detector(topology).train().to(device).to(memory_format=layout)  # type: ignore[call-overload]
    detector = Detector(topology)
    clock = Clock(bare, loaded, settings)
    with tempfile.TemporaryDirectory() as folder:
        hooks = [GammaPenalty(SparsifySettings(rate=1e-4), trace(detector).norms), clock]
        fit(detector, batches, settings, folder=Path(folder), hooks=hooks)
    return clock.epoch, clock.bare


def main() -> None:
    """Measures, prints a table, writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="data.yaml; the default generates a data set of 200 images")
    parser.add_argument("--image-size", type=int, default=320)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--images", type=int, default=200, help="size of the generated data set")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("training_epoch.json"))
    options = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        config = load_data_config(options.data or generate(Path(folder), images=(options.images, 1, 1)))
        index = scan(config, "train", progress=False)
        settings = TrainSettings(
            epochs=2, batch_size=options.batch_size, image_size=options.image_size, workers=options.workers
        )
        augmentation = Augmentation.from_hyp(settings.hyp.to_dict())
        dataset = DetectionDataset(index, options.image_size, augmentation=augmentation)
        batches = train_batches(dataset, options.batch_size, seed=0, workers=options.workers)
        loaded = list(batches.epoch(1))
        names = [name for name in VARIANTS if "bf16" not in name or torch.cuda.is_available() or fast_bf16_on_cpu()]
        times = {name: Times([], []) for name in names}
        for _ in range(options.rounds):
            for name in names:
                epoch, bare = measure_round(name, config.nc, batches, loaded, settings)
                times[name].epoch.append(epoch)
                times[name].bare.append(bare)
    report(times, len(index), options, console)


def report(times: dict[str, Times], images: int, options: argparse.Namespace, console: Console) -> None:
    """One row per variant: medians, the overhead, and the gain over NCHW fp32."""
    title = f"yolov5n, {options.image_size} px, batch {options.batch_size}, {images} images, {options.rounds} rounds"
    table = Table("variant", "epoch s", "bare s", "epoch / bare", "NCHW fp32 / this", title=title)
    reference = statistics.median(times["NCHW fp32"].epoch)
    rows = {}
    for name, taken in times.items():
        epoch, bare = statistics.median(taken.epoch), statistics.median(taken.bare)
        # The ratio of each round compares measurements close in time, which background load affects equally.
        overhead = statistics.median(e / b for e, b in zip(taken.epoch, taken.bare, strict=True))
        rows[name] = {"epoch_s": epoch, "bare_s": bare, "overhead": overhead, "gain": reference / epoch}
        rows[name] |= {"epochs_s": taken.epoch, "bares_s": taken.bare}  # type: ignore[dict-item]
        table.add_row(name, f"{epoch:.2f}", f"{bare:.2f}", f"{overhead:.2f}", f"{reference / epoch:.2f}")
    console.print(table)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu, {torch.get_num_threads()} threads"
    write_json(options.out, {"title": title, "torch": torch.__version__, "device": device, "variants": rows})
    console.print(f"written to {options.out}")


if __name__ == "__main__":
    main()
