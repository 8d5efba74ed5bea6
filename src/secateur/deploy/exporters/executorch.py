"""ExecuTorch: a folder with `model.pte` and `metadata.yaml`.

The program maps prepared images float32 [B, C, H, W] to the outputs of the network; XNNPACK computes what it can. A
.pte has no place for what the file says of itself.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch

from secateur.deploy.exporters import EXPORTERS, Exporter, Written
from secateur.deploy.metadata import write_metadata
from secateur.deploy.settings import ExportSettings
from secateur.deploy.source import Source, cannot
from secateur.terminal import silenced

FILE = "model.pte"
_PARTITIONER = "executorch.backends.xnnpack.partition.xnnpack_partitioner"


def write(source: Source, path: Path, settings: ExportSettings) -> Written:
    """Writes into the folder; see `Exporter`.

    Raises:
        UserError: the network cannot be expressed.
    """
    network, images = source.network(settings).eval(), source.example(settings)
    try:
        with silenced(), torch.no_grad():
            lower: Any = importlib.import_module("executorch.exir").to_edge_transform_and_lower
            partitioner: Any = importlib.import_module(_PARTITIONER).XnnpackPartitioner()
            program = lower(torch.export.export(network, (images,)), partitioner=[partitioner]).to_executorch()
    except Exception as error:  # the converter raises whatever it met
        raise cannot("ExecuTorch", error) from error
    (path / FILE).write_bytes(program.buffer)
    write_metadata(path, source.metadata(settings))
    return Written({"backend": "XNNPACK"})


EXPORTERS.register("executorch")(
    Exporter(
        "ExecuTorch",
        "_executorch_model",
        ("executorch.exir",),
        "executorch",
        write,
        folder=True,
        outputs=("decoded", "raw"),
    )
)
