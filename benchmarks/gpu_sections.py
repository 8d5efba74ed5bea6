"""The sections of `benchmarks/gpu.py`: each returns figures, and checks against the CPU with their tolerances."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from secateur.checkpoints.channels import prune
from secateur.checkpoints.heal import heal
from secateur.checkpoints.training import train_checkpoint
from secateur.data.config import load_data_config
from secateur.data.synthetic import SHAPES, generate
from secateur.deploy.exporters import export
from secateur.deploy.runtimes import open_predictor
from secateur.deploy.settings import ExportSettings
from secateur.distillation.settings import HealSettings
from secateur.evaluation.latency import random_images
from secateur.evaluation.settings import ValSettings
from secateur.evaluation.validate import validate
from secateur.families.context import Context
from secateur.families.detection.split import index_of
from secateur.families.evidence import FamilyEvidence
from secateur.families.family import family_of, predictor_of
from secateur.families.hyp import load_hyp
from secateur.families.loading import load_checkpoint
from secateur.families.starting import starting_point
from secateur.machine import pick_device, processor
from secateur.networks.checkpoint import Checkpoint
from secateur.pruning import rounds as rounds_module
from secateur.pruning.options import ChannelSettings, budget_options
from secateur.pruning.prune import Kept
from secateur.pruning.settings import CliffSettings, RoundSettings, ScoreSettings
from secateur.training.settings import TrainSettings

CPU = torch.device("cpu")
CLASSES = 4


@dataclass(frozen=True)
class Check:
    """A difference from the CPU and its tolerance. On a GPU, convolutions compute in TF32 (10 bits)."""

    name: str
    value: float
    most: float
    ok: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ok", self.value <= self.most)  # NaN fails the comparison


def result(device: torch.device, figures: dict[str, Any], checks: list[Check]) -> dict[str, Any]:
    """The result of a section."""
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    return {
        "device": where,
        "torch": torch.__version__,
        "figures": figures,
        "checks": [asdict(check) for check in checks],
    }


def validation(options: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds per image, in fp16 on a GPU; boxes in fp32 compared with the CPU."""
    device, size = pick_device(options.device), 128 if options.small else 640
    batch, count = (4, 8) if options.small else (32, 256)
    fresh = network("yolov5n" if options.small else "yolov5x")
    checkpoint = load_checkpoint(options.weights) if options.weights else fresh
    with generated(size, count) as data:
        index = index_of(family_of(checkpoint).split(load_data_config(data), "train"), "A benchmark")
        settings = ValSettings(image_size=size, batch_size=batch, rectangular=False, coco=False, plots=False)
        settings = replace(settings, workers=0 if options.small else 8)
        if checkpoint.nc != CLASSES:
            settings = replace(settings, single_cls=True)
        half = predictor_of(checkpoint, device, "fp16" if device.type == "cuda" else "fp32")
        validate(half, index.select(range(min(count, 2 * batch))), settings, progress=False)  # warm-up
        began = time.perf_counter()
        scores = validate(half, index, settings, progress=False)
        whole = time.perf_counter() - began
        figures = {f"{name}_ms": value for name, value in scores.speed_ms.items()}
        figures |= {"images_per_second": count / whole, "batch": batch, "size": size, "gigabytes": peak(device)}
    figures |= layouts(checkpoint, device, batch, size)
    images = random_images(size, 2)
    ours, theirs = (answers(checkpoint, where, "fp32", images) for where in (device, CPU))
    checks = compared("fp32", ours, theirs, size)
    if device.type == "cuda":
        checks += compared("fp16", answers(checkpoint, device, "fp16", images), theirs, size, looser=5)
    return result(device, figures, checks)


def layouts(checkpoint: Checkpoint, device: torch.device, batch: int, size: int) -> dict[str, float]:
    """Milliseconds per image of the bare network in both memory layouts, in fp16 on a GPU; there, channels_last is also
    timed with cuDNN's kernel search.
    """
    bare, found = checkpoint.build().to(device).eval(), dict[str, float]()
    half = device.type == "cuda"
    ways = [("nchw", torch.contiguous_format), ("nhwc", torch.channels_last)]
    for name, layout in [*ways, *([("nhwc_searched", torch.channels_last)] if half else [])]:
        bare.to(memory_format=layout)
        images = random_images(size, batch).to(device).contiguous(memory_format=layout)

        def call(images: Tensor = images) -> None:
            with torch.inference_mode(), torch.autocast(device.type, torch.float16, enabled=half):
                bare(images)

        with torch.backends.cudnn.flags(enabled=True, benchmark="searched" in name):
            found[f"bare_{name}_ms"] = 1000 * timed(call, device, 3 if batch < 32 else 10) / batch
    return found


def training(options: argparse.Namespace) -> dict[str, Any]:
    """The time of the second epoch; the first loss and the norm of its gradient in fp32 compared with the CPU."""
    device, size = pick_device(options.device), 64 if options.small else 640
    checkpoint = network("yolov5n" if options.small else "yolov5s")
    batch, count = (8, 16) if options.small else (64, 512)
    with generated(size, count) as data, tempfile.TemporaryDirectory() as folder:
        config = load_data_config(data)
        settings = TrainSettings(
            epochs=2, batch_size=batch, image_size=size, workers=0 if options.small else 8, device=options.device,
            hyp=load_hyp("scratch-low"), val_every=0, tensorboard=False,
        )  # fmt: skip
        stamps: list[float] = []
        context = Context(size, device, config, batch, settings.workers)
        with noted(stamps):
            fitted = train_checkpoint(checkpoint, context, settings, Path(folder))
        last = {key: value for key, value in fitted.rows[-1].items() if key.startswith("train/")}
        checks = [Check("losses that are not finite", float(sum(value != value for value in last.values())), 0)]
        checks += first_step(checkpoint, config, size, device)
    epoch = stamps[-1] - stamps[-2]
    return result(device, {"epoch_s": epoch, "images_per_second": count / epoch, "batch": batch, "size": size,
                           "gigabytes": peak(device)}, checks)  # fmt: skip


def first_step(checkpoint: Checkpoint, config: Any, size: int, device: torch.device) -> list[Check]:
    """The loss of one batch and the norm of its gradient, both relative."""
    found = []
    for where in (device, CPU):
        detector = checkpoint.build().to(where)
        evidence = FamilyEvidence(Context(size, where, config, 4, 0), detector)
        loss = family_of(detector).loss(detector, TrainSettings(image_size=size))
        batch = next(iter(evidence.batches(4).epoch(0)))
        value = loss(detector.eval()(evidence.prepared(batch)), batch.targets.to(where), evidence.prepared(batch))[0]
        value.backward()
        norm = torch.nn.utils.get_total_norm([p.grad for p in detector.parameters() if p.grad is not None])
        found.append((float(value.detach()), float(norm)))
    (loss, norm), (loss_cpu, norm_cpu) = found
    return [
        Check("loss of a batch, relative", abs(loss / loss_cpu - 1), 5e-3),
        Check("norm of its gradient, relative", abs(norm / norm_cpu - 1), 3e-2),
    ]


def rounds(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds per round to half the FLOPs; the kept units of a small network compared with the CPU."""
    device, size = pick_device(options.device), 64 if options.small else 320
    images = 16 if options.small else 128
    with generated(size, images) as data:
        config = load_data_config(data)
        context = Context(size, device, config, 16, 0)
        stamps = [time.perf_counter()]
        with noted(stamps, rounds_module, "write_json"):
            _, pruned = halved(network("yolov5n" if options.small else "yolov5l"), context, images)
        times = [after - before for before, after in pairwise(stamps)]
        contexts = [Context(64, where, config, 16, 0) for where in (device, CPU)]
        plans = [halved(network("yolov5n"), here, 16, few=True)[1].plan for here in contexts]
    mine, other = ({layer.name: set(layer.kept) for layer in plan.layers} for plan in plans)
    same = sum(len(mine[name] & other[name]) for name in mine)
    checks = [
        Check("FLOPs left", pruned.plan.after.flops / pruned.plan.before.flops, 0.505),
        Check("share of kept channels that the CPU drops", 1 - same / sum(map(len, other.values())), 0.1),
    ]
    figures = {"seconds": sum(times), "rounds": len(times), "seconds_a_round": sum(times) / max(len(times), 1)}
    return result(device, figures | {"size": size, "gigabytes": peak(device)}, checks)


def healing(options: argparse.Namespace) -> dict[str, Any]:
    """Steps with teacher and student; the held-out loss, and the loss of the first batch compared with the CPU."""
    device, size = pick_device(options.device), 64 if options.small else 320
    steps, batch, images = (4, 4, 24) if options.small else (400, 16, 256)
    dense = network("yolov5n" if options.small else "yolov5s")
    with generated(size, images) as data, tempfile.TemporaryDirectory() as folder:
        config = load_data_config(data)
        context = Context(size, device, config, batch, 0 if options.small else 8, dense=dense)
        cut, _ = halved(dense, replace(context, workers=0), 16, few=True)
        began = time.perf_counter()
        healed = heal(cut, dense, context, HealSettings(heal_steps=steps, heal_batch=batch), Path(folder))
        seconds = time.perf_counter() - began
        done = len(healed.rows) * (steps // max(healed.epochs, 1)) if healed.rows else 0
        losses = [row["val/loss"] for row in healed.rows if "val/loss" in row]
    values = [imitation(cut, dense, size, where) for where in (device, CPU)]
    checks = [
        Check("held-out loss, last over first", losses[-1] / losses[0], 1.05),
        Check("loss of a batch, relative", abs(values[0] / values[1] - 1), 1e-2),
    ]
    figures = {"seconds": seconds, "steps": done, "images_per_second": done * batch / seconds, "size": size}
    return result(device, figures | {"gigabytes": peak(device)}, checks)


def imitation(cut: Checkpoint, dense: Checkpoint, size: int, device: torch.device) -> float:
    """The loss of outputs and features of one batch of noise."""
    family, student = family_of(cut), cut.build().to(device)
    train = TrainSettings(image_size=size, hyp=load_hyp("finetune").completed(family.hyp))
    imitate = family.imitation(family.healing.filled(HealSettings()), student, cut, dense, train)
    imitate.watch(student)
    images = random_images(size, 2).to(device)
    total, _ = imitate(student.eval()(images), images.new_zeros((0, 6)), images)
    return float(total.detach())


def exports(options: argparse.Namespace) -> dict[str, Any]:
    """Files exported from the network on the device, run on it if a runtime supports it, compared with the network on
    the CPU.
    """
    device, size = pick_device(options.device), 64 if options.small else 640
    checkpoint, figures, checks = network("yolov5n" if options.small else "yolov5s"), dict[str, Any](), list[Check]()
    images = random_images(size, 1)
    expected = answers(checkpoint, CPU, "fp32", images)
    with tempfile.TemporaryDirectory() as folder:
        for name, ending in (("onnx", "onnx"), ("torchscript", "torchscript")):
            began = time.perf_counter()
            file = Path(folder) / f"network.{ending}"
            written = export(checkpoint.build().to(device), file, size, ExportSettings(format=name))
            figures[f"{name}_write_s"] = time.perf_counter() - began
            opened = open_predictor(written.path, device)
            figures[f"{name}_runs_on"] = str(opened.device)
            found = opened.infer(images.to(opened.device), -1.0)[0]
            checks += compared(name, found, expected, size)
            moved = images.to(opened.device)
            call = lambda opened=opened, moved=moved: opened.infer(moved, 0.25)  # noqa: E731
            figures[f"{name}_images_per_second"] = 1 / timed(call, opened.device, 10)
    return result(device, figures, checks)


SECTIONS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "validation": validation, "training": training, "rounds": rounds, "healing": healing, "exports": exports,
}  # fmt: skip


def network(cfg: str) -> Checkpoint:
    """A fresh network, identical on every machine."""
    return starting_point("", cfg, dict(enumerate(list(SHAPES)[:CLASSES])), 0)


def halved(whole: Checkpoint, context: Context, images: int, *, few: bool = False) -> tuple[Checkpoint, Any]:
    """A network cut to half its FLOPs by default, or in two rounds."""
    settings = ChannelSettings(
        budget=budget_options()(flops="0.5"),
        cliff=CliffSettings(cliff=False),
        score=ScoreSettings(statistics_images=images),
        rounds=RoundSettings("2") if few else RoundSettings(),
    )
    with tempfile.TemporaryDirectory() as folder:
        return prune(whole, context, settings, Kept(Path(folder)))


def answers(checkpoint: Checkpoint, device: torch.device, precision: str, images: Tensor) -> tuple[Tensor, Tensor]:
    """Corners and scores of all candidates of the first image, on the CPU; images are float32 [B, 3, H, W] in 0..1."""
    boxes, scores = predictor_of(checkpoint, device, precision).infer(images.to(device), -1.0)[0]
    return boxes.float().cpu(), scores.float().cpu()


def compared(name: str, mine: Sequence[Tensor], other: Sequence[Tensor], size: int, looser: float = 1) -> list[Check]:
    """Corners and scores of all candidates."""
    return [
        difference(f"corners, {name}, px", mine[0], other[0], looser * 0.005 * size),
        difference(f"scores, {name}", mine[1], other[1], looser * 2e-3),
    ]


def difference(name: str, mine: Tensor, other: Tensor, most: float) -> Check:
    """The largest difference of two tensors; infinite if their shapes differ."""
    mine = mine.float().cpu()
    same = mine.shape == other.shape
    return Check(name, float((mine - other).abs().max()) if same else float("inf"), most)


def timed(call: Callable[[], Any], device: torch.device, runs: int) -> float:
    """Median seconds per call, after three warm-up calls."""
    times = []
    for _ in range(runs + 3):
        wait(device)
        began = time.perf_counter()
        call()
        wait(device)
        times.append(time.perf_counter() - began)
    return sorted(times[3:])[runs // 2]


def wait(device: torch.device) -> None:
    """Waits until the device has completed all work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak(device: torch.device) -> float | None:
    """Peak memory of the device since the process started, in gigabytes; None on the CPU."""
    return torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else None


@contextmanager
def generated(size: int, count: int) -> Iterator[Path]:
    """A data set with this number of training images, drawn at up to 320 px, because they are scaled anyway."""
    with tempfile.TemporaryDirectory() as folder:
        yield generate(folder, images=(count, 8, 0), size=min(size, 320), classes=CLASSES)


@contextmanager
def noted(stamps: list[float], module: Any = None, name: str = "") -> Iterator[None]:
    """Records the time whenever a function of a module is called; without a module, at the end of every epoch."""
    from secateur.training import results

    owner, function = (module, name) if module is not None else (results.RunLog, "end")
    before = getattr(owner, function)

    def note(*words: Any) -> Any:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        stamps.append(time.perf_counter())
        return before(*words)

    setattr(owner, function, note)
    try:
        yield
    finally:
        setattr(owner, function, before)
