"""ExecuTorch on the CPU: a folder with `model.pte` and `metadata.yaml`.

The program maps prepared images float32 [B, C, H, W] to the outputs of the network; XNNPACK computes the supported
operators. A .pte file cannot hold metadata.
"""

from __future__ import annotations

import importlib
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
from secateur.deploy.source import Source, cannot
from secateur.errors import UserError, told
from secateur.pruning.graph import Stored
from secateur.terminal import silenced

FILE = "model.pte"
_PARTITIONER = "executorch.backends.xnnpack.partition.xnnpack_partitioner"


def write(source: Source, path: Path, settings: ExportSettings) -> Written:
    """Writes into the folder; see `Exporter`.

    Raises:
        UserError: the network cannot be exported.
    """
    network, images = source.network(settings).eval(), source.example(settings)
    try:
        with silenced(), torch.no_grad():
            lower: Any = importlib.import_module("executorch.exir").to_edge_transform_and_lower
            partitioner: Any = importlib.import_module(_PARTITIONER).XnnpackPartitioner()
            program = lower(torch.export.export(network, (images,)), partitioner=[partitioner]).to_executorch()
    except Exception as error:  # the converter raises exceptions of many types
        raise cannot("ExecuTorch", error) from error
    (path / FILE).write_bytes(program.buffer)
    write_metadata(path, source.metadata(settings))
    return Written({"backend": "XNNPACK"})


class ExecuTorchPredictor(FilePredictor):
    """A network in ExecuTorch. The number of threads applies to the whole program."""

    def __init__(self, path: Path, device: torch.device, threads: int, precision: str) -> None:
        """Opens a folder; see `runtimes.open_predictor`."""
        threads = granted(threads)
        own_precision(path, precision)
        self._program, self._method = _open(path, threads)
        metadata, described = read_metadata(path), self._method.metadata
        if described.num_inputs() != 1:
            raise UserError(f"{path} is not a network for images: it has {described.num_inputs()} inputs.")
        takes = tuple(described.input_tensor_meta(0).sizes())
        gives = [tuple(described.output_tensor_meta(number).sizes()) for number in range(described.num_outputs())]
        where = on_cpu(path, device, "ExecuTorch")
        super().__init__(path, metadata, takes=takes, gives=gives, device=where, threads=threads)

    def run(self, images: NDArray[np.float32]) -> list[NDArray[Any]]:
        """Images float32 [B, C, H, W] in 0..1 -> the outputs."""
        # Copy: the next call overwrites the same memory.
        return [output.numpy().copy() for output in self._method.execute([torch.from_numpy(images)])]


def _open(path: Path, threads: int) -> tuple[Any, Any]:
    """The program of a folder, which must be kept alive, and its method.

    Raises:
        UserError: ExecuTorch is not installed, or the file is missing or invalid.
    """
    try:
        with silenced():
            runtime = importlib.import_module("executorch.runtime")
            library = importlib.import_module("executorch.extension.pybindings.portable_lib")
    except ImportError:
        raise UserError(
            "Cannot run ExecuTorch programs: executorch is not installed (pip install 'secateur[executorch]')."
        ) from None
    must_exist(path)
    try:
        with silenced():
            library._unsafe_reset_threadpool(threads)
            content = (path / FILE).read_bytes()
            program = runtime.Runtime.get().load_program(content, verification=runtime.Verification.InternalConsistency)
            return program, program.load_method("forward")
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"ExecuTorch cannot run {path / FILE}: {told(error, 200)}") from None


EXPORTERS.register("executorch")(
    Exporter(
        "ExecuTorch",
        "_executorch_model",
        ("executorch.exir",),
        "executorch",
        write,
        folder=True,
        outputs=("decoded", "raw"),
        stored={"fp32": Stored(4, 4, 4)},
    )
)
RUNTIMES.register("_executorch_model")(Runtime("ExecuTorch", ExecuTorchPredictor))
