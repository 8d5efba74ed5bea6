"""Checks the pruning laws on every network of the package ultralytics. Prints a table and JSON.

    python benchmarks/ultralytics_laws.py [--networks yolo11n yolo26n-seg ...] [--json FILE]

Needs `pip install 'secateur[ultralytics]'`, onnx and onnxruntime. Networks have random tensors, three classes, and
images of 64 px. Each network is traced and compared with a copy: attributes of all modules, and tensors bit for bit.
Then it is cut to 70 and 50 % of its FLOPs, by random scores and by Fisher scores on the network's own outputs. For the
four cuts: the largest difference to the mask as a share of the largest output, in evaluation mode (float32) and in
training mode (float64, because norms over few values amplify rounding), and whether the predicted cost equals the
counted cost at two sizes. The last cut is saved and written as a `.pt`. A process that cannot import Secateur opens
this file with YOLO(), predicts, validates on a tiny data set, exports an ONNX file and compares its output. Then the
network is trained for one epoch through `secateur.ultralytics`; its shapes must not change. `rtdetr-l` is only cut, by
random scores.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.mkdtemp(prefix="ultralytics-"))
os.environ |= {"YOLO_VERBOSE": "false", "YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false"}

import numpy as np
import torch
import yaml
from PIL import Image
from torch import Tensor, nn

from secateur.errors import UserError
from secateur.evaluation.cost import count
from secateur.families.family import family_of
from secateur.families.loading import load_checkpoint
from secateur.families.outputs import tensors_of
from secateur.machine import processor
from secateur.networks.checkpoint import Checkpoint, save_checkpoint
from secateur.pruning.allocation import allocate
from secateur.pruning.budget import Budget
from secateur.pruning.graph import ChannelGraph, trace
from secateur.pruning.graph.trial import lively
from secateur.pruning.importance import divides_by_saving, score
from secateur.pruning.plan import Plan
from secateur.pruning.settings import Guards
from secateur.pruning.statistics import Statistics, collect
from secateur.pruning.surgery import cut, mask
from secateur.training.settings import TrainSettings

DETECTORS = ["yolov5nu", "yolov8n", "yolov9t", "yolov10n", "yolo11n", "yolo12n", "yolo26n"]
TASKS = {"seg": "segment", "pose": "pose", "obb": "obb", "cls": "classify"}
NAMES = [*DETECTORS, *(f"{name}-{task}" for name in ("yolov8n", "yolo11n", "yolo26n") for task in TASKS)]
MODELS = {"seg": "SegmentationModel", "pose": "PoseModel", "obb": "OBBModel", "cls": "ClassificationModel"}
TRAINERS = {"seg": "SegmentationTrainer", "pose": "PoseTrainer", "obb": "OBBTrainer", "cls": "ClassificationTrainer"}
CLASSES = ("disc", "square", "triangle")
SIDE, SHARES, TOLERANCE = 64, (0.7, 0.5), 1e-5
ALONE = """
import json, sys
class Refuse:
    def find_spec(self, name, *rest):
        if name.partition(".")[0] == "secateur":
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import numpy as np, onnxruntime, torch
from ultralytics import YOLO
file, data, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
torch.set_num_threads(1)
yolo = YOLO(file)
said = {"parameters": sum(p.numel() for p in yolo.model.parameters())}
image = np.random.default_rng(0).integers(0, 255, (size, size, 3)).astype(np.uint8)
said["predicted"] = len(yolo.predict(image, imgsz=size, conf=0.0, verbose=False))
result = YOLO(file).val(data=data, imgsz=size, batch=4, workers=0, plots=False, verbose=False, device="cpu")
said["fitness"] = float(result.fitness)
exported = YOLO(file).export(format="onnx", imgsz=size, device="cpu", simplify=False)
module = YOLO(file).model.float().fuse(verbose=False).eval()
x = torch.rand(1, 3, size, size)
with torch.no_grad():
    own = module(x)
while not isinstance(own, torch.Tensor):
    own = own[0]
session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
theirs = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])
said["onnx"] = float((own - theirs).abs().max() / own.abs().max())
print("SAID" + json.dumps(said))
"""
TRAINED = """
import sys, torch
import secateur.ultralytics
from ultralytics import YOLO
file, data, size, trainer, folder = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5]
torch.set_num_threads(1)
YOLO(file).train(
    trainer=getattr(secateur.ultralytics, trainer), data=data, epochs=1, imgsz=size, batch=4, workers=0, amp=False,
    plots=False, device="cpu", project=folder, name="trained", verbose=False, exist_ok=True,
)
before = torch.load(file, weights_only=False)["model"].state_dict()
after = torch.load(f"{folder}/trained/weights/last.pt", weights_only=False)["model"].state_dict()
same = {k: v.shape for k, v in before.items()} == {k: v.shape for k, v in after.items()}
moved = any(not torch.equal(before[k].float(), after[k].float()) for k in before if k.endswith("conv.weight"))
print("SAID" + ("true" if same and moved else "false"))
"""


def built(name: str, folder: Path) -> Any:
    """The network as Secateur reads it from a `.pt`."""
    import ultralytics
    from ultralytics.nn import tasks

    torch.manual_seed(0)
    kind = MODELS.get(name.partition("-")[2], "DetectionModel")
    model: Any = lively(getattr(tasks, kind)(f"{name}.yaml", nc=len(CLASSES), verbose=False))
    bins = getattr(getattr(model.model[-1], "dfl", None), "conv", None)
    if bins is not None:  # not learned: the distance of each bin
        bins.weight.data.copy_(torch.arange(bins.in_channels).view(1, -1, 1, 1))
    model.names = dict(enumerate(CLASSES))
    arguments = {"imgsz": SIDE, "box": 7.5, "cls": 0.5, "dfl": 1.5}
    content = {"model": model.half(), "ema": None, "train_args": arguments, "version": ultralytics.__version__}
    torch.save(content, folder / "dense.pt")
    return load_checkpoint(folder / "dense.pt").build()


def images(number: int, seed: int = 5) -> Tensor:
    """Random images [number, 3, 64, 64]."""
    return torch.rand((number, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(seed))


def same(first: Any, second: Any) -> bool:
    """Whether two objects are equal with all their content, tensors bit for bit."""
    if type(first) is not type(second):
        return False
    if isinstance(first, Tensor):
        kind = first.dtype == second.dtype and first.requires_grad == second.requires_grad
        return kind and first.shape == second.shape and torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    own = getattr(first, "__dict__", None)
    if (isinstance(own, dict) and not callable(first)) or isinstance(first, nn.Module):
        return same(vars(first), vars(second))
    return callable(first) or bool(first == second)


def difference(first: Any, second: Any) -> float:
    """Largest difference of two outputs, as a share of the largest value of each tensor."""
    pairs = zip(tensors_of(first), tensors_of(second), strict=True)
    return max(float((a - b).abs().max() / max(1.0, float(b.abs().max()))) for a, b in pairs)


def scores(network: Any, graph: ChannelGraph) -> Iterator[tuple[str, Any]]:
    """Random scores, and Fisher scores if the task's loss has finite gradients on random tensors."""
    yield "random", score("random", graph, Statistics({}))
    family = family_of(network)
    try:
        loss, targets = family.loss(network, TrainSettings()), family.own_labels(network, 0)(images(4))
        statistics = collect(
            network, graph, [(images(4), targets)], lambda net, batch: loss(net(batch[0]), batch[1], batch[0])[0]
        )
    except UserError as error:
        print(f"No Fisher scores of the next network: {error}")
        return
    yield "fisher", score("fisher", graph, statistics)


def cut_row(network: Any, graph: ChannelGraph, plan: Plan, small: Any) -> dict[str, Any]:
    """The properties of one cut."""
    silent = mask(network, graph, plan)
    row: dict[str, Any] = {
        "flops": plan.after.flops / plan.before.flops, "parameters": plan.after.parameters / plan.before.parameters
    }  # fmt: skip
    with torch.no_grad():
        row["eval"] = difference(small(images(2)), silent(images(2)))
        row["moved"] = difference(silent(images(2)), network(images(2)))
        double = images(4).double()
        row["train"] = difference(
            copy.deepcopy(small).double().train()(double), copy.deepcopy(silent).double().train()(double)
        )
    row["price"] = True
    for size in (640, (96, 160)):
        price, counted = graph.price(plan.keep(graph), size), count(small, size)
        row["price"] &= (price.parameters, price.flops) == (counted.parameters, counted.flops)
    return row


def most(graph: ChannelGraph) -> float:
    """Share of the parameters removed if every space keeps one unit."""
    keep = np.zeros(graph.units, dtype=bool)
    keep[[space.units[0] for space in graph.spaces]] = True
    return 1 - graph.price(keep).parameters / graph.price().parameters


def row_of(name: str, folder: Path) -> dict[str, Any]:
    """All properties of one network."""
    network = built(name, folder)
    with torch.no_grad():
        network(images(1))
    before, start = copy.deepcopy(network), time.process_time()
    graph = trace(network)
    row: dict[str, Any] = {"network": name, "seconds": time.process_time() - start, "units": graph.units}
    channels = sum(len(units) for units in graph.emitted.values())
    head = f"model.model.{len(network.model.model) - 1}."
    row |= {"unchanged": same(before, network), "most": most(graph), "channels": channels}
    row["frozen"] = {entry.layer: entry.by for entry in graph.frozen if not entry.layer.startswith(head)}
    row["free"] = sum(int((units >= 0).sum()) for units in graph.emitted.values()) / channels
    row["cuts"] = {}
    small = network
    for criterion, values in scores(network, graph):
        for share in SHARES:
            plan = allocate(
                graph, values, Budget("flops", share), Guards(min_share=0.01, round_to=1), image_size=SIDE,
                per_saving=divides_by_saving(criterion, "auto"),
            )  # fmt: skip
            small = cut(network, graph, plan)
            row["cuts"][f"{criterion} {share:.0%}"] = cut_row(network, graph, plan, small)
    save_checkpoint(Checkpoint.of(small, image_size=SIDE), folder / "pruned.safetensors")
    back = load_checkpoint(folder / "pruned.safetensors").build()
    with torch.no_grad():
        row["saved"] = difference(small(images(2)), back(images(2))) == 0
    family_of(small).write(small, folder / "pruned.pt", SIDE)
    data = data_set(name.partition("-")[2], folder / "data")
    row["alone"] = said(ALONE, folder, "pruned.pt", str(data), str(SIDE))
    row["parameters"] = row["alone"]["parameters"] == sum(tensor.numel() for tensor in small.parameters())
    trainer = TRAINERS.get(name.partition("-")[2], "Trainer")
    row["trained"] = said(TRAINED, folder, "pruned.pt", str(data), str(SIDE), trainer, str(folder))
    return row


def said(code: str, folder: Path, *arguments: str) -> Any:
    """The JSON output of a process; for a failure, its last line."""
    ran = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=folder, timeout=1200
    )
    lines = [line for line in ran.stdout.splitlines() if line.startswith("SAID")]
    if ran.returncode or not lines:
        raise RuntimeError(ran.stderr[-1500:])
    return json.loads(lines[0].removeprefix("SAID"))


def data_set(task: str, folder: Path) -> Path:
    """Eight images with one rectangle each, for training and validation, in the package's layout of a task."""
    generator = np.random.default_rng(0)
    for split in ("train", "val"):
        for number in range(8):
            kind = number % len(CLASSES)
            x, y, w, h = 0.5, 0.5, *generator.uniform(0.3, 0.6, 2)
            pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
            left, right, top, bottom = (round(SIDE * v) for v in (x - w / 2, x + w / 2, y - h / 2, y + h / 2))
            pixels[top:bottom, left:right] = generator.integers(60, 255, 3)
            of_class = folder / split / CLASSES[kind]
            place, labels = (
                (of_class, of_class) if task == "cls" else (folder / "images" / split, folder / "labels" / split)
            )
            place.mkdir(parents=True, exist_ok=True)
            labels.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(place / f"{number}.png")
            if task != "cls":
                box = [x, y, w, h]
                corners = [x - w / 2, y - h / 2, x + w / 2, y - h / 2, x + w / 2, y + h / 2, x - w / 2, y + h / 2]
                values = corners if task in ("seg", "obb") else box + [x, y, 2] * 17 if task == "pose" else box
                (labels / f"{number}.txt").write_text(" ".join(f"{value:g}" for value in [kind, *values]) + "\n")
    if task == "cls":
        return folder
    described: dict[str, Any] = {"path": str(folder), "train": "images/train", "val": "images/val"}
    described |= {"names": dict(enumerate(CLASSES))} | ({"kpt_shape": [17, 3]} if task == "pose" else {})
    (folder / "data.yaml").write_text(yaml.safe_dump(described))
    return folder / "data.yaml"


def transformer_row() -> dict[str, Any]:
    """RT-DETR: backbone and encoder are cut by random scores; in the decoder, layers that read positions are kept."""
    from ultralytics.nn import tasks

    torch.manual_seed(0)
    network: Any = lively(tasks.RTDETRDetectionModel("rtdetr-l.yaml", nc=len(CLASSES), verbose=False))
    before, start = copy.deepcopy(network), time.process_time()
    graph = trace(network, images(1))
    row: dict[str, Any] = {"network": "rtdetr-l", "seconds": time.process_time() - start, "units": graph.units}
    channels = sum(len(units) for units in graph.emitted.values())
    row |= {"unchanged": same(before, network), "most": most(graph), "channels": channels, "cuts": {}}
    row["frozen"] = {entry.layer: entry.by for entry in graph.frozen}
    row["free"] = sum(int((units >= 0).sum()) for units in graph.emitted.values()) / channels
    values = score("random", graph, Statistics({}))
    for share in SHARES:
        plan = allocate(graph, values, Budget("flops", share), Guards(min_share=0.01, round_to=1), image_size=SIDE)
        small, silent = cut(network, graph, plan), mask(network, graph, plan)
        result: dict[str, Any] = {"flops": plan.after.flops / plan.before.flops}
        result["parameters"] = plan.after.parameters / plan.before.parameters
        result["price"] = plan.after.parameters == sum(tensor.numel() for tensor in small.parameters())
        with torch.no_grad():
            result["eval"] = difference(small(images(1)), silent(images(1)))
            result["moved"] = difference(silent(images(1)), network(images(1)))
            double = images(2).double()
            result["train"] = difference(*(net.double().train().predict(double) for net in (small, silent)))
        row["cuts"][f"random {share:.0%}"] = result
    return row


HEADER = "| network | units | free channels | parameters that can go | trace, CPU s | eval | train | price | file |"


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    cuts = row["cuts"].values()
    worst = [max(result[mode] for result in cuts) for mode in ("eval", "train")]
    ran = "cut only" if "alone" not in row else f"runs, ONNX {row['alone']['onnx']:.0e}"
    return (
        f"| {row['network']} | {row['units']} | {row['free']:.1%} | {row['most']:.1%} | {row['seconds']:.1f} | "
        f"{worst[0]:.0e} | {worst[1]:.0e} | {all(result['price'] for result in cuts)} | {ran} |"
    )


def broken(row: dict[str, Any]) -> bool:
    """Whether a property is violated, or a cut is meaningless because it equals the dense network."""
    cuts = row["cuts"].values()
    held = all(r["price"] and max(r["eval"], r["train"]) <= TOLERANCE and r["moved"] > 10 * TOLERANCE for r in cuts)
    file = "alone" not in row or (
        row["saved"]
        and row["parameters"]
        and row["trained"]
        and row["alone"]["onnx"] < 1e-3
        and row["alone"]["predicted"]
    )
    return not (held and file and row["unchanged"])


def main() -> int:
    """Prints the table; returns 1 if a property is violated."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=[*NAMES, "rtdetr-l"])
    parser.add_argument("--json", type=Path, help="JSON file to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(processor())
    print(HEADER, flush=True)
    rows: list[dict[str, Any]] = []
    for name in options.networks:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(transformer_row() if name == "rtdetr-l" else row_of(name, Path(folder)))
        print(line(rows[-1]) + (" BROKEN" if broken(rows[-1]) else ""), flush=True)
        if options.json:
            options.json.write_text(json.dumps({"processor": processor(), "rows": rows}, indent=1) + "\n")
    return int(any(map(broken, rows)))


if __name__ == "__main__":
    sys.exit(main())
