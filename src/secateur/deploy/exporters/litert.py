"""LiteRT (TensorFlow Lite): prepared images float32 [B, H, W, C] -> the outputs of the network, with fp32 weights.

The image is channels-last, as cameras and bitmaps of phones give it; maps of a head stay channels-first. What the file
says of itself lies in it as an associated file in the format's own way: a zip archive behind the model.
"""

from __future__ import annotations

import importlib
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from secateur.deploy.exporters import EXPORTERS, Exporter, Written
from secateur.deploy.settings import ExportSettings
from secateur.deploy.source import Source, cannot
from secateur.terminal import silenced

METADATA = "metadata.json"


def write(source: Source, path: Path, settings: ExportSettings) -> Written:
    """Writes the file; see `Exporter`.

    Raises:
        UserError: the network cannot be expressed.
    """
    network: Any = source.network(settings).eval()
    images = source.example(settings).permute(0, 2, 3, 1).contiguous()
    try:
        with silenced(), torch.no_grad():
            litert_torch = importlib.import_module("litert_torch")
            network = litert_torch.to_channel_last_io(network, args=[0])
            litert_torch.convert(network, (images,)).export(str(path))
    except Exception as error:  # the converter raises whatever it met
        raise cannot("LiteRT", error) from error
    metadata = source.metadata(settings)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(METADATA, replace(metadata, told={**metadata.told, "input": "NHWC"}).to_json())
    return Written({"input": "NHWC"})


EXPORTERS.register("litert")(
    Exporter("LiteRT", ".tflite", ("litert_torch", "ai_edge_litert"), "litert", write, outputs=("decoded", "raw"))
)
