"""Compares the outputs of exported files with the detector's, for every installed format and precision, on real
images.

    python benchmarks/formats.py --weights yolov5n.pt [cut.safetensors ...] --data data.yaml [--img 320]
        [--cfg yolov5s6 yolov3-tiny] [--formats onnx openvino] [--json out.json]

For each file: megabytes, the largest differences of boxes (px) and scores to PyTorch on images of the val split, and
for trained weights mAP50-95 next to PyTorch's on the same square images. `--cfg` adds untrained networks, of which only
the outputs are compared. The last line compares the boxes of the ONNX file with suppression inside, image by image.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from secateur.data.config import load_data_config
from secateur.data.index import scan
from secateur.deploy.exporters import EXPORTERS, export
from secateur.deploy.int8 import calibration_images
from secateur.deploy.runtimes import RUNTIMES, open_predictor
from secateur.deploy.settings import ExportSettings
from secateur.errors import UserError
from secateur.evaluation.settings import ValSettings
from secateur.evaluation.validate import validate
from secateur.families.detection.predictor import TorchPredictor
from secateur.families.detection.split import DetectionSplit
from secateur.families.loading import load_checkpoint
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import Topology
from secateur.machine import processor


def main() -> None:
    """Prints one line per file, and writes everything as JSON."""
    options = _options()
    torch.manual_seed(0)
    data = load_data_config(options.data)
    val, train = scan(data, "val", progress=False), scan(data, "train", progress=False)
    settings = ValSettings(image_size=options.img, workers=0, rectangular=False)
    seen = [image[None].float() / 255 for image in calibration_images(DetectionSplit(val), (options.img, options.img))]
    images = calibration_images(DetectionSplit(train), (options.img, options.img))
    subjects: list[tuple[str, Detector, bool]] = [
        (Path(file).stem, load_checkpoint(file).build(), True) for file in options.weights
    ] + [(cfg, _untrained(cfg), False) for cfg in options.cfg]
    rows: list[dict[str, Any]] = []
    print(processor())
    for name, detector, trained in subjects:
        whole = validate(TorchPredictor(detector), val, settings, progress=False).mAP50_95 if trained else None
        print(f"{name}: PyTorch mAP50-95 {whole:.4f}" if whole is not None else f"{name}: untrained", flush=True)
        for form, precision in _kinds(options.formats):
            made = ExportSettings(format=form, precision=precision)
            row = _row(name, detector, made, options.img, seen, images)
            if whole is not None and "file" in row:
                found = validate(open_predictor(row.pop("file")), val, settings, progress=False).mAP50_95
                row |= {"mAP50-95": found, "change": found - whole}
            row.pop("file", None)
            print("  " + "  ".join(f"{k} {_shown(v)}" for k, v in row.items() if k != "name"), flush=True)
            rows.append(row)
        if trained and "onnx" in options.formats:
            rows.append(_suppressed(name, detector, options.img, seen))
            print("  " + "  ".join(f"{k} {_shown(v)}" for k, v in rows[-1].items() if k != "name"), flush=True)
    if options.json:
        options.json.write_text(json.dumps({"machine": processor(), "img": options.img, "rows": rows}, indent=1) + "\n")


def _kinds(formats: list[str]) -> list[tuple[str, str]]:
    """The formats that can be written here, with each of their precisions."""
    here = [form for form in formats if not EXPORTERS[form].missing()]
    return [(form, precision) for form in here for precision in EXPORTERS[form].precisions]


def _row(
    name: str, detector: Detector, made: ExportSettings, side: int, seen: list[Tensor], images: list[Tensor]
) -> dict[str, Any]:
    """Writes a file and compares it on the images (uint8 [C, H, W])."""
    row: dict[str, Any] = {"name": name, "format": made.format, "precision": made.precision}
    folder = Path(tempfile.mkdtemp())
    file = folder / f"file{EXPORTERS[made.format].suffix}"
    try:
        written = export(detector, file, side, made, images=images if made.precision == "int8" else ())
    except UserError as error:
        return {**row, "error": str(error)}
    predictor, twin = open_predictor(file), detector.fused()
    boxes = scores = 0.0
    for image in seen[:32]:
        ours, theirs = predictor.rows(image, -1.0)[0], twin.predict(image)[0]
        sure = theirs[:, 4] >= 0.25 if bool((theirs[:, 4] >= 0.25).any()) else slice(None)
        boxes = max(boxes, float((ours[sure, :4] - theirs[sure, :4]).abs().max()))
        scores = max(scores, float((ours[:, 4:] - theirs[:, 4:]).abs().max()))
    assert EXPORTERS[made.format].suffix in RUNTIMES
    return {**row, "mb": written.file_mb, "boxes_px": boxes, "scores": scores, "file": file}


def _suppressed(name: str, detector: Detector, side: int, seen: list[Tensor]) -> dict[str, Any]:
    """Number of images for which the file with suppression inside gives our boxes, within 0.01 px and 0.0001."""
    made = ExportSettings(output="detections")
    file = Path(tempfile.mkdtemp()) / "file.onnx"
    predictor, twin = open_predictor(export(detector, file, side, made).path), TorchPredictor(detector)
    same, count = 0, 0
    for image in seen:
        theirs = twin.predict(image, replace(made.nms, multi_label=False))[0]
        ours = predictor.predict(image, replace(made.nms, iou=1.0))[0]
        alike = len(ours) == len(theirs) and bool(torch.allclose(ours[:, :4], theirs[:, :4], rtol=0, atol=1e-2))
        same += alike and bool(torch.allclose(ours[:, 4:], theirs[:, 4:], rtol=0, atol=1e-4))
        count += len(theirs)
    return {"name": name, "format": "onnx, suppression inside", "same": f"{same} of {len(seen)}", "boxes": count}


def _untrained(cfg: str) -> Detector:
    """A network whose norms are not identities."""
    detector = Detector(Topology.from_yaml(cfg, nc=80))
    for module in detector.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.8, 1.2)
            torch.nn.init.normal_(module.bias, std=0.1)
    return detector.eval()


def _shown(value: Any) -> str:
    return f"{value:.2g}" if isinstance(value, float) and abs(value) < 0.1 else (
        f"{value:.4f}" if isinstance(value, float) else str(value))  # fmt: skip


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", nargs="*", default=[])
    parser.add_argument("--cfg", nargs="*", default=[])
    parser.add_argument("--data", required=True)
    parser.add_argument("--img", type=int, default=320)
    parser.add_argument("--formats", nargs="+", default=list(EXPORTERS))
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
