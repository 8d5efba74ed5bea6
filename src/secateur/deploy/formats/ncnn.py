"""ncnn: a folder with `model.ncnn.param`, `model.ncnn.bin` and `metadata.yaml`; `in0` [C, H, W] -> `out0`, `out1`, ...

pnnx converts the TorchScript trace. Outputs have no batch dimension: ncnn runs one image per call.
"""

from __future__ import annotations

import importlib
import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from secateur.deploy.exporters import EXPORTERS, Exporter, Written
from secateur.deploy.metadata import read_metadata, write_metadata
from secateur.deploy.predictor import FilePredictor, granted, must_exist, on_cpu, own_precision
from secateur.deploy.runtimes import RUNTIMES, Runtime
from secateur.deploy.settings import ExportSettings
from secateur.deploy.source import Source
from secateur.errors import UserError
from secateur.families.outputs import Answer
from secateur.pruning.graph import Stored
from secateur.terminal import silenced

PARAM, WEIGHTS = FILES = ("model.ncnn.param", "model.ncnn.bin")
_MAGIC = "7767517"
TIME_LIMIT = 900
"""Timeout of pnnx in seconds; a detector of 100 MB takes about ten."""

HALF = (
    "On ARM, ncnn computes in fp16 unless its option use_fp16_arithmetic is off. In fp16, coordinates beyond "
    "512 pixels are rounded to half a pixel. With --output raw, your program does the decoding."
)


def write(source: Source, path: Path, settings: ExportSettings) -> Written:
    """Writes into the folder; see `Exporter`.

    Raises:
        UserError: the batch size is not 1, or the network cannot be exported.
    """
    if settings.batch_size > 1:
        raise UserError("ncnn runs one image per call. Remove --batch-size.")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # Keep the network in fp32: pnnx itself stores its weights in fp16.
        reason = _converted(source, folder, replace(settings, precision="fp32"), half=settings.precision == "fp16")
        if not all((folder / file).is_file() for file in FILES):
            raise UserError(f"This network cannot be exported to ncnn: {reason or 'pnnx wrote no files'}.")
        for file in FILES:
            shutil.move(folder / file, path / file)
    kinds = [line.split()[0] for line in (path / FILES[0]).read_text(encoding="utf-8").splitlines()[2:]]
    # Operators without an ncnn layer keep their PyTorch name in pnnx's output.
    if foreign := sorted({kind for kind in kinds if "." in kind}):
        raise UserError(f"This network cannot be exported to ncnn, which does not support {', '.join(foreign)}.")
    write_metadata(path, source.metadata(settings))
    return Written({"layers": len(kinds)}, (HALF,) if settings.output == "decoded" else ())


def _converted(source: Source, folder: Path, settings: ExportSettings, *, half: bool) -> str:
    """Runs pnnx in a folder, where it writes more than `FILES`. Returns the reason for a failure, or ""."""
    network, example = source.network(settings).eval(), source.example(settings)
    program = importlib.import_module("pnnx").EXEC_PATH
    shape = ",".join(str(side) for side in example.shape)
    command = [program, "model.pt", f"inputshape=[{shape}]f32", f"fp16={int(half)}"]
    try:
        with silenced(), torch.no_grad():
            torch.jit.trace(network, (example,), check_trace=False, strict=False).save(str(folder / "model.pt"))
            subprocess.run(command, cwd=folder, capture_output=True, timeout=TIME_LIMIT, check=True)
    except subprocess.CalledProcessError as error:
        return f"pnnx exited with code {error.returncode}"
    except Exception as error:  # the tracer raises many types; pnnx may time out or fail to start
        return " ".join(str(error).split())[:300] or type(error).__name__
    return ""


class NcnnPredictor(FilePredictor):
    """A network in ncnn on the CPU."""

    def __init__(self, path: Path, device: torch.device, threads: int, precision: str) -> None:
        """Opens a folder; see `runtimes.open_predictor`."""
        threads = granted(threads)
        own_precision(path, precision)
        try:
            import ncnn
        except ImportError:
            raise UserError("Cannot run ncnn models: ncnn is not installed (pip install 'secateur[ncnn]').") from None
        must_exist(path)
        metadata = read_metadata(path)
        assert metadata.size is not None
        where = on_cpu(path, device, "ncnn")
        self._raw = metadata.output == "raw"
        self._mat = ncnn.Mat
        self._net = _open(path, ncnn.Net(), threads, exact=metadata.precision == "fp32")
        self._outputs = [str(name) for name in self._net.output_names()]
        takes = (1, metadata.channels, *metadata.size)
        try:
            with silenced():
                outputs = self.run(np.zeros(takes, np.float32))
        except ValueError:
            raise UserError(f"ncnn cannot run {path}: it returns no output. Export it again.") from None
        answer = Answer(metadata.stated, 1, metadata.size, outputs)
        gives = [output.shape for output in outputs]
        super().__init__(path, metadata, takes=takes, gives=gives, device=where, threads=threads, answer=answer)

    def run(self, images: NDArray[np.float32]) -> list[NDArray[Any]]:
        """Images float32 [1, C, H, W] in 0..1 -> the outputs.

        Raises:
            ValueError: a layer fails.
        """
        extractor = self._net.create_extractor()
        extractor.input("in0", self._mat(images[0]))
        found = []
        for name in self._outputs[: self.used]:
            code, mat = extractor.extract(name)
            if code or mat.empty():
                raise ValueError(name)
            output = np.array(mat)  # a copy: the extractor owns the memory
            # ncnn has no batch dimension, but an operator may have left one.
            batched = output.ndim == 3 and len(output) == 1 and not self._raw
            found.append(output if batched else output[None])
        return found


def _open(path: Path, net: Any, threads: int, *, exact: bool) -> Any:
    """The network of a folder.

    Args:
        path: the folder.
        net: an empty `ncnn.Net`.
        threads: CPU threads.
        exact: compute in fp32 even on processors with fp16.

    Raises:
        UserError: the model is invalid.
    """
    _check(path / PARAM)
    net.opt.num_threads = threads
    net.opt.use_vulkan_compute = False
    if exact:
        for option in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_packed", "bf16_storage"):
            if hasattr(net.opt, f"use_{option}"):
                setattr(net.opt, f"use_{option}", False)
    with silenced():
        broken = net.load_param(str(path / PARAM)) or net.load_model(str(path / WEIGHTS))
    if broken:
        raise UserError(
            f"ncnn cannot read {path}: {WEIGHTS} does not match {PARAM}, or the model has layers that this "
            "version of ncnn does not support. Export it again."
        )
    return net


def _check(file: Path) -> None:
    """Raises UserError for files whose declared counts ncnn would trust and allocate without a check."""
    wrong = UserError(f"{file} is not a network description that ncnn can read. Export it again.")
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
        layers, blobs = (int(number) for number in lines[1].split())
        rows = [line.split() for line in lines[2:] if line.strip()]
        named = 0
        for row in rows:
            inputs, outputs = int(row[2]), int(row[3])
            named += outputs
            if inputs < 0 or outputs < 0 or len(row) < 4 + inputs + outputs:
                raise wrong
    except (OSError, UnicodeDecodeError, ValueError, IndexError):
        raise wrong from None
    if lines[0].strip() != _MAGIC or len(rows) != layers or named != blobs:
        raise wrong


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
        stored={"fp32": Stored(4, 4, 4), "fp16": Stored(2, 4, 2)},
    )
)
RUNTIMES.register("_ncnn_model")(Runtime("ncnn", NcnnPredictor))
