"""TorchScript: prepared images float32 [B, C, H, W] -> the outputs of the network, for PyTorch without Python.

The file carries `config.txt`, JSON with `shape`, `stride` and `names`, as YOLOv5's exports do, and more.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import torch

from secateur.deploy.exporters import EXPORTERS, Exporter, Written
from secateur.deploy.settings import ExportSettings
from secateur.deploy.source import Source
from secateur.terminal import silenced


def write(source: Source, path: Path, settings: ExportSettings) -> Written:
    """Writes the file; see `Exporter`.

    It is not frozen: measured, that makes no network faster, and a program that turns what it has opened into another
    dtype, as YOLOv5's does, would leave frozen weights behind.

    Raises:
        UserError: the network cannot be traced.
    """
    program = source.traced(settings, "TorchScript")
    told = source.metadata(settings).to_dict() | {"shape": list(source.example(settings).shape)}
    buffer = io.BytesIO()  # saved straight into a file, it would hold that file's temporary name
    with silenced():
        torch.jit.save(program, buffer, _extra_files={"config.txt": json.dumps(told)})
    path.write_bytes(buffer.getvalue())
    return Written()


EXPORTERS.register("torchscript")(
    Exporter(
        "TorchScript",
        ".torchscript",
        (),
        "",
        write,
        precisions=("fp32", "fp16"),
        outputs=("decoded", "raw", "detections"),
        dynamic=True,
    )
)
