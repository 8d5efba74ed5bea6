"""OpenVINO: a folder with `model.xml`, `model.bin` and `metadata.yaml`, the names and places of YOLOv5's exports.

Prepared `images` float32 [B, C, H, W] -> `output0`, `output1`, ..., converted from PyTorch without ONNX between.
"""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from secateur.deploy.exporters import EXPORTERS, Exporter, Written
from secateur.deploy.int8.openvino import quantised
from secateur.deploy.metadata import Metadata, write_metadata
from secateur.deploy.settings import ExportSettings
from secateur.deploy.source import Source, cannot
from secateur.terminal import silenced, without_telemetry

MODEL = "model.xml"
COMPUTES = (
    "OpenVINO: on CPUs with bf16 (AMX) it computes in bf16 unless a program sets INFERENCE_PRECISION_HINT to f32, as "
    "secateur val does; --precision bf16 measures the other."
)


def write(source: Source, path: Path, settings: ExportSettings) -> Written:
    """Writes into the folder; see `Exporter`.

    Raises:
        UserError: the network cannot be expressed.
    """
    model = converted(source, settings)
    if settings.precision == "int8":
        model = quantised(model, source, settings)
    save(model, path, source.metadata(settings))
    return Written({"nodes": len(model.get_ops())}, (COMPUTES,))


def converted(source: Source, settings: ExportSettings) -> Any:
    """An `openvino.Model` with fp32 weights; the side of the batch is open where the settings leave it so.

    Raises:
        UserError: the network cannot be expressed.
    """
    program = source.traced(replace(settings, precision="fp32"), "OpenVINO")
    shape = list(source.example(settings).shape)
    if settings.dynamic:
        shape[0] = -1
    with silenced(), without_telemetry():
        try:
            model = importlib.import_module("openvino").convert_model(program, input=[shape])
        except Exception as error:  # the converter has a class of exception for each way to fail
            raise cannot("OpenVINO", error) from error
    model.input(0).get_tensor().set_names({"images"})
    for number, output in enumerate(model.outputs):
        output.get_tensor().set_names({f"output{number}"})
    return model


def save(model: Any, folder: Path, metadata: Metadata) -> None:
    """Writes an `openvino.Model`, whatever was done to it, with what is to be said of it.

    fp16 means that weights are stored so, in half the space; what they are computed in is the device's choice, or the
    program's.
    """
    model.set_rt_info(metadata.to_json(), ["secateur", "metadata"])
    half = metadata.precision == "fp16"
    importlib.import_module("openvino").save_model(model, str(folder / MODEL), compress_to_fp16=half)
    write_metadata(folder, metadata)


EXPORTERS.register("openvino")(
    Exporter(
        "OpenVINO",
        "_openvino_model",
        ("openvino",),
        "openvino",
        write,
        folder=True,
        precisions=("fp32", "fp16", "int8"),
        outputs=("decoded", "raw", "detections"),
        dynamic=True,
    )
)
