"""ncnn: a folder with `model.ncnn.param`, `model.ncnn.bin` and `metadata.yaml`; `in0` [C, H, W] -> `out0`, `out1`, ...

pnnx converts what TorchScript traces. Outputs have no side of the batch.
"""

from __future__ import annotations

import importlib
import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from secateur.deploy.exporters import EXPORTERS, Exporter, Written
from secateur.deploy.metadata import write_metadata
from secateur.deploy.settings import ExportSettings
from secateur.deploy.source import Source
from secateur.errors import UserError
from secateur.terminal import silenced

FILES = ("model.ncnn.param", "model.ncnn.bin")
TIME_LIMIT = 900
"""Seconds that pnnx may take; a detector of 100 MB takes some ten."""

HALF = (
    "On ARM ncnn computes in fp16 unless its option use_fp16_arithmetic is off; fp16 knows pixels beyond 512 to half a "
    "pixel only. --output raw leaves the decoding to your program."
)


def write(source: Source, path: Path, settings: ExportSettings) -> Written:
    """Writes into the folder; see `Exporter`.

    Raises:
        UserError: more than one image, or the network cannot be expressed.
    """
    if settings.batch_size > 1:
        raise UserError("ncnn runs one image a call: leave --batch-size out.")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # The network stays in fp32: pnnx itself stores its weights in fp16.
        reason = _converted(source, folder, replace(settings, precision="fp32"), half=settings.precision == "fp16")
        if not all((folder / file).is_file() for file in FILES):
            raise UserError(f"This network cannot be exported to ncnn: {reason or 'pnnx wrote nothing'}.")
        for file in FILES:
            shutil.move(folder / file, path / file)
    kinds = [line.split()[0] for line in (path / FILES[0]).read_text(encoding="utf-8").splitlines()[2:]]
    # What ncnn has no layer for, pnnx leaves under the name that PyTorch gives it.
    if foreign := sorted({kind for kind in kinds if "." in kind}):
        raise UserError(f"This network cannot be exported to ncnn, which has no {', '.join(foreign)}.")
    write_metadata(path, source.metadata(settings))
    return Written({"layers": len(kinds)}, (HALF,) if settings.output == "decoded" else ())


def _converted(source: Source, folder: Path, settings: ExportSettings, *, half: bool) -> str:
    """Runs pnnx in a folder, where it leaves more than `FILES`; the reason when it fails."""
    network, example = source.network(settings).eval(), source.example(settings)
    program = importlib.import_module("pnnx").EXEC_PATH
    shape = ",".join(str(side) for side in example.shape)
    command = [program, "model.pt", f"inputshape=[{shape}]f32", f"fp16={int(half)}"]
    try:
        with silenced(), torch.no_grad():
            torch.jit.trace(network, (example,), check_trace=False, strict=False).save(str(folder / "model.pt"))
            subprocess.run(command, cwd=folder, capture_output=True, timeout=TIME_LIMIT, check=True)
    except subprocess.CalledProcessError as error:
        return f"pnnx ended with code {error.returncode}"
    except Exception as error:  # the tracer raises whatever it met, pnnx may be too slow or not run here at all
        return " ".join(str(error).split())[:300] or type(error).__name__
    return ""


EXPORTERS.register("ncnn")(
    Exporter(
        "ncnn",
        "_ncnn_model",
        ("pnnx", "ncnn"),
        "ncnn",
        write,
        folder=True,
        precisions=("fp32", "fp16"),
        outputs=("decoded", "raw"),
    )
)
