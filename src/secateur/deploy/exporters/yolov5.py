"""YOLOv5's own `.pt`, which unmodified ultralytics/yolov5 (v6.0 to v7.0) loads: any widths, and none of its code."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from secateur.deploy.check import check_outputs, output_error, probes
from secateur.deploy.exporters import EXPORTERS, Exported, Exporter
from secateur.deploy.settings import ExportSettings
from secateur.detector.architecture import DetectionNetwork
from secateur.detector.formats.stock import read_stock
from secateur.detector.formats.stock_writer import write_stock
from secateur.detector.model import Detector
from secateur.errors import UserError
from secateur.files import atomic_write

CANNOT_TRAIN = (
    "YOLOv5's val.py, detect.py and export.py take this file; its train.py does not keep the cut: it builds a network "
    "anew from a YAML, which has no words for the widths inside a block. Train with secateur finetune."
)


def write(network: DetectionNetwork, path: Path, size: tuple[int, int], settings: ExportSettings) -> Exported:
    """Writes the file, reads it back and compares; see `export`."""
    if not isinstance(network, Detector):
        raise UserError("Only a detector of the YOLOv5 family can be written as a checkpoint of YOLOv5.")
    detector = copy.deepcopy(network).cpu().float().eval()
    with atomic_write(path) as temporary:
        write_stock(detector, temporary, max(size), torch.float16 if _fits_half(detector) else torch.float32)
        again = _read(temporary)

        def run(images: NDArray[Any]) -> NDArray[Any]:
            with torch.inference_mode():
                return again.predict(torch.from_numpy(images)).numpy()

        error = output_error(detector, run, probes(1, detector.topology.channels, size))
        check_outputs(error, "The file read back", path, "please report this detector")
        megabytes = temporary.stat().st_size / 1e6
    notes = (CANNOT_TRAIN,) if _is_cut(detector) else ()
    return Exported(path, error, size, 0, megabytes, notes=notes)


def _read(path: Path) -> Detector:
    stock = read_stock(path)
    detector = Detector(stock.topology, stock.names)
    detector.set_tensors(stock.tensors)
    return detector.eval()


def _fits_half(detector: Detector) -> bool:
    """Whether float16 holds its tensors without loss, as it does those of a training's final files."""
    return all(torch.equal(tensor.half().float(), tensor.float()) for tensor in detector.state_dict().values())


def _is_cut(detector: Detector) -> bool:
    """Whether it has other widths than its topology says."""
    with torch.device("meta"):
        designed: nn.Module = Detector(detector.topology)
    shapes = {name: tensor.shape for name, tensor in designed.state_dict().items()}
    return shapes != {name: tensor.shape for name, tensor in detector.state_dict().items()}


EXPORTERS.register("yolov5")(Exporter("YOLOv5", ".pt", (), "", write))
