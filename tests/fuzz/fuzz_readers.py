"""What is fuzzed: for each kind of file a small sound one, how it is damaged, and what reads it."""

from __future__ import annotations

import dataclasses
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import torch
import yaml
from detector_files import as_stock, fake_class, tiny
from fuzz_mutations import (
    Mutation,
    of_bytes,
    of_head,
    of_json,
    of_pickle,
    of_rows,
    of_safetensors,
    of_words,
    of_xml,
    of_yaml,
    of_zip,
)
from torch import nn

from latency_subjects import table_of
from secateur.data.config import load_data_config
from secateur.data.convert import coco_to_yolo, voc_to_yolo
from secateur.data.image_lists import read_list
from secateur.data.images import SUFFIXES, read_image
from secateur.data.index import scan
from secateur.data.synthetic import generate
from secateur.deploy.exporters import export
from secateur.deploy.runtimes import open_predictor
from secateur.deploy.settings import ExportSettings
from secateur.families.hyp import load_hyp
from secateur.families.loading import load_checkpoint
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import Topology
from secateur.files import read_json, write_json
from secateur.networks.checkpoint import Checkpoint, save_checkpoint
from secateur.pruning.allocation import Worth, allocate
from secateur.pruning.budget import Budget
from secateur.pruning.graph import trace
from secateur.pruning.latency.table import LatencyTable
from secateur.pruning.plan import Plan
from secateur.pruning.rounds import State
from secateur.runs.recipes.recipe import load_recipe
from secateur.runs.recipes.resolve import resolve
from secateur.runs.training_run import restored
from secateur.steps.train import Train
from secateur.training.state import random_state, read_state, write_state
from tiny_network import TINY

Bases = dict[str, bytes]
RECIPE = {
    "name": "own",
    "summary": "some steps",
    "source": "here",
    "stages": [
        {"train": {"epochs": 2, "when": "always"}},
        {"repeat": {"rounds": 2, "stages": [{"prune": {"flops": "0.5", "criterion": "gamma", "min_share": 0.1}}]}},
        {"finetune": {"epochs": 3, "distill": "bce", "target_sparsity": 0.5}},
        {"export": {"format": "onnx", "opset": 17}},
    ],
}


@dataclass(frozen=True)
class Reader:
    """One kind of file.

    Attributes:
        file: its name in the folder of a case.
        mutations: what is done to it.
        read: reads it there; may raise UserError and nothing else.
    """

    file: str
    mutations: tuple[Mutation, ...]
    read: Callable[[Path], object]


def _checkpoint(file: Path) -> None:
    checkpoint = load_checkpoint(file)
    detector = checkpoint.build()
    repr(checkpoint)
    with torch.no_grad():
        detector(torch.zeros(1, 3, 64, 64))


def _data(file: Path) -> None:
    config = load_data_config(file)
    for split in config.splits:
        scan(config, split)


def _labels(file: Path) -> None:
    _data(file.parents[2] / "data.yaml")


def _image(file: Path) -> None:
    _data(file.parents[2] / "data.yaml")
    read_image(str(file))


def _list(file: Path) -> None:
    read_list(file, file.parent, SUFFIXES)


def _recipe(file: Path) -> None:
    common = {"image_size": 64, "batch_size": 8, "seed": 0, "workers": 0, "device": "cpu"}
    resolve(load_recipe(file), {}, common, trained=False)


def _topology(file: Path) -> None:
    with torch.device("meta"):
        Detector(Topology.from_yaml(file))


def _predictor(file: Path) -> None:
    predictor = open_predictor(file, torch.device("cpu"))
    predictor.predict(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))


def _coco(file: Path) -> None:
    coco_to_yolo(file, file.parent / "converted", images=file.parent / "images" / "train")


def _voc(file: Path) -> None:
    voc_to_yolo(file.parent, file.parent / "converted")


YAML = (of_yaml,)
READERS: dict[str, Reader] = {
    "pt": Reader("stock.pt", (of_zip, of_zip, of_zip, of_bytes), _checkpoint),
    "pt-legacy": Reader("legacy.pt", (of_pickle, of_bytes), _checkpoint),
    "safetensors": Reader("own.safetensors", (of_safetensors,), _checkpoint),
    "data": Reader("data.yaml", YAML, _data),
    "hyp": Reader("hyp.yaml", YAML, load_hyp),
    "recipe": Reader("recipe.yaml", YAML, _recipe),
    "topology": Reader("model.yaml", YAML, _topology),
    "labels": Reader("labels/train/00000.txt", (of_rows,), _labels),
    "list": Reader("train.txt", (of_rows, of_bytes), _list),
    "image": Reader("images/train/00000.jpg", (of_head, of_bytes), _image),
    "deep": Reader("images/train/00002.png", (of_head, of_bytes), _image),
    "coco": Reader("instances.json", (of_json,), _coco),
    "voc": Reader("voc/00000.xml", (of_xml,), _voc),
    "state": Reader("state.pt", (of_zip, of_bytes), lambda file: read_state(file.parent)),
    "record": Reader("options.json", (of_json,), lambda file: restored(file.parent)),
    "rounds": Reader("rounds.json", (of_json,), lambda file: State.from_dict(read_json(file))),
    "plan": Reader("plan.json", (of_json,), lambda file: Plan.from_dict(read_json(file))),
    "table": Reader("table.json", (of_json,), LatencyTable.load),
    "onnx": Reader("model.onnx", (of_bytes, of_head), _predictor),
    "torchscript": Reader("model.torchscript", (of_zip, of_bytes), _predictor),
}


if find_spec("openvino"):
    READERS["openvino"] = Reader("x_openvino_model/model.xml", (of_xml,), lambda file: _predictor(file.parent))
if find_spec("ncnn") and find_spec("pnnx"):
    READERS["ncnn"] = Reader("x_ncnn_model/model.ncnn.param", (of_words,), lambda file: _predictor(file.parent))
    READERS["metadata"] = Reader("x_ncnn_model/metadata.yaml", YAML, lambda file: _predictor(file.parent))


def make_bases(folder: Path) -> Bases:
    """Writes the sound files into a folder; their bytes by relative names."""
    generate(folder, images=(2, 1, 1), size=64, classes=3)
    cv2.imwrite(str(folder / "images/train/00001.png"), cv2.imread(str(folder / "images/train/00001.jpg")))
    deep = cv2.imread(str(folder / "images/train/00001.jpg")).astype(np.uint16) * 16
    cv2.imwrite(str(folder / "images/train/00002.png"), deep)
    (folder / "train.txt").write_text("images/train/00000.jpg\n# half\n\ndata\\images\\train\\00001.jpg 1,2,3,4,0\n")
    detector = tiny(3)
    save_checkpoint(Checkpoint.of(detector), folder / "own.safetensors")
    graph = trace(detector)
    order = np.arange(float(graph.units))
    plan = allocate(graph, order, Budget("percent", 0.2))
    write_json(folder / "plan.json", plan.to_dict())
    write_json(folder / "rounds.json", State(2, order, Worth(order, order), plan).to_dict())
    table_of(graph).save(folder / "table.json")
    stock = _stock(detector)
    torch.save(stock, folder / "stock.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes without source, which the stand-ins are
        torch.save(stock, folder / "legacy.pt", _use_new_zipfile_serialization=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == "models"]:
        del sys.modules[name]  # no reader is to find them
    export(detector, folder / "model.onnx", 64, ExportSettings())
    export(detector, folder / "model.torchscript", 64, ExportSettings(format="torchscript"))
    for name in {reader.file.split("/")[0] for reader in READERS.values() if "_model/" in reader.file}:
        export(detector, folder / name, 64, ExportSettings(format=name.split("_")[1]))
    (folder / "hyp.yaml").write_text("lr0: 0.01\nlrf: 0.1\nmosaic: 1.0\nanchor_t: 4.0\nwarmup_epochs: 3.0\n")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    (folder / "model.yaml").write_text(yaml.safe_dump(TINY))
    _annotations(folder)
    _run(folder, detector)
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def _annotations(folder: Path) -> None:
    """The same box as COCO and VOC write it."""
    images = [{"id": 1, "file_name": "00000.jpg", "width": 64, "height": 64}]
    boxes = [{"id": 1, "image_id": 1, "category_id": 3, "bbox": [1.0, 2.0, 30.0, 40.0], "iscrowd": 0}]
    write_json(
        folder / "instances.json", {"images": images, "categories": [{"id": 3, "name": "a"}], "annotations": boxes}
    )
    (folder / "voc").mkdir()
    (folder / "voc" / "00000.jpg").write_bytes((folder / "images/train/00000.jpg").read_bytes())
    (folder / "voc" / "00000.xml").write_text(
        "<annotation><filename>00000.jpg</filename><size><width>64</width><height>64</height></size><object>"
        "<name>a</name><difficult>0</difficult><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>40</ymax>"
        "</bndbox></object></annotation>"
    )


def _run(folder: Path, detector: Detector) -> None:
    """What a training keeps, to go on from it."""
    step = dataclasses.asdict(Train())
    step["train"].pop("hyp")
    step["train"].pop("own")
    write_json(folder / "options.json", {"command": "train", "options": {"data": "data.yaml", **step}})
    optimizer = torch.optim.SGD(detector.parameters(), lr=0.1, momentum=0.9)
    tensors = {"model": detector.state_dict(), "optimizer": optimizer.state_dict(), "generators": [random_state()]}
    write_state(folder, {"settings": step["train"], "rows": [{"epoch": 0}], "run": {"epoch": 1}} | tensors)


def _stock(detector: Detector) -> dict[str, object]:
    """The detector as YOLOv5 saves one."""
    model = fake_class("models.yolo", "DetectionModel")()
    layers = nn.Sequential()
    for number, block in enumerate(detector.model):
        twin = as_stock(block)
        twin.i, twin.f, twin.type = number, list(detector.topology.blocks[number].sources), type(block).__name__
        layers.add_module(str(number), twin)
    layers[-1].stride = torch.tensor(detector.strides)
    model.model, model.names = layers, ["a", "b", "c"]
    rows = [[list(b.sources), b.repeats, b.kind, list(b.args)] for b in detector.topology.blocks]
    head = [rows[-1][0], 1, "Detect", ["nc", "anchors"]]
    model.yaml = {"nc": 3, "depth_multiple": 1.0, "width_multiple": 1.0, "channel_multiple": 1, "ch": 3,
                  "anchors": [[1.0] * 4] * 2,
                  "activation": "nn.SiLU()", "backbone": rows[:-1], "head": [head]}  # fmt: skip
    return {"epoch": 3, "model": model, "ema": None, "optimizer": None}
