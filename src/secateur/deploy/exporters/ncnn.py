"""ncnn: a folder with `model.ncnn.param`, `model.ncnn.bin` and `metadata.yaml`; `in0` [C, H, W] -> `out0` [N, 5 + nc].

pnnx converts what TorchScript traces. The maps of a head are `out0`, `out1`, ...: one a level.
"""

from __future__ import annotations

import importlib
import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from secateur.deploy.exporters import EXPORTERS, Exporter, Written
from secateur.deploy.folder import write_metadata
from secateur.deploy.settings import ExportSettings
from secateur.deploy.source import Source
from secateur.errors import UserError
from secateur.families.yolov5.blocks.convolutions import Conv, Focus
from secateur.silence import silenced

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
        UserError: more than one image, or the detector cannot be expressed.
    """
    if settings.batch_size > 1:
        raise UserError("ncnn runs one image a call: leave --batch-size out.")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # The network stays in fp32: pnnx itself stores its weights in fp16.
        reason = _converted(source, folder, replace(settings, precision="fp32"), half=settings.precision == "fp16")
        if not all((folder / file).is_file() for file in FILES):
            raise UserError(f"This detector cannot be exported to ncnn: {reason or 'pnnx wrote nothing'}.")
        for file in FILES:
            shutil.move(folder / file, path / file)
    kinds = [line.split()[0] for line in (path / FILES[0]).read_text(encoding="utf-8").splitlines()[2:]]
    # What ncnn has no layer for, pnnx leaves under the name that PyTorch gives it.
    if foreign := sorted({kind for kind in kinds if "." in kind}):
        raise UserError(f"This detector cannot be exported to ncnn, which has no {', '.join(foreign)}.")
    write_metadata(path, source.metadata(settings))
    return Written({"layers": len(kinds)}, (HALF,) if settings.output == "decoded" else ())


def _converted(source: Source, folder: Path, settings: ExportSettings, *, half: bool) -> str:
    """Runs pnnx in a folder, where it leaves more than `FILES`; the reason when it fails."""
    network, example = _without_focus(source.network(settings)).eval(), source.example(settings)
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


def _without_focus(network: nn.Module) -> nn.Module:
    """Every `Focus` in it becomes one convolution that gives the same: ncnn cannot take every second pixel."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Focus) and child.conv.conv.groups == 1:
                setattr(parent, name, _widened(child.conv))
    return network


def _widened(block: Conv) -> Conv:
    """The convolution of a `Focus` on the image itself: kernel, step and border twice as large."""
    old = block.conv
    width, channels, height, length = old.weight.shape
    kernel, step = (2 * height, 2 * length), (2 * old.stride[0], 2 * old.stride[1])
    assert isinstance(old.padding, tuple)
    border = (2 * old.padding[0], 2 * old.padding[1])
    new = nn.Conv2d(channels // 4, width, kernel, step, border, bias=old.bias is not None)
    with torch.no_grad():
        for number, (line, column) in enumerate(((0, 0), (1, 0), (0, 1), (1, 1))):
            part = old.weight[:, number * channels // 4 : (number + 1) * channels // 4]
            new.weight[:, :, line::2, column::2] = part
    new.bias = old.bias
    block.conv = new
    return block


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
