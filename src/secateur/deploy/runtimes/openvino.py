"""OpenVINO on the CPU: folders of this package's and of YOLOv5's exports, or the `.xml` of any detector in OpenVINO."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from secateur.deploy.metadata import Metadata
from secateur.deploy.predictor import FilePredictor, granted, must_exist, on_cpu
from secateur.deploy.runtimes import RUNTIMES, Runtime
from secateur.errors import UserError
from secateur.families.outputs import Shape
from secateur.machine import signal_stack_kept
from secateur.terminal import silenced, without_telemetry

# The lines of OpenVINO's source that its messages begin with.
_PLACES = re.compile(r"(?:Exception from|Check '.*?' failed at) \S+:\d+:?\s*")
logger = logging.getLogger("secateur")


class OpenVinoPredictor(FilePredictor):
    """A network in OpenVINO.

    It computes in fp32 unless `precision` says otherwise, whatever its weights are stored in: left to itself OpenVINO
    takes bf16 on CPUs that have it, which is not what the file holds, and moves boxes by pixels.
    """

    def __init__(self, path: Path, compiled: Any, metadata: Metadata, device: torch.device, threads: int) -> None:
        """Takes an `openvino.CompiledModel`.

        Raises:
            UserError: it cannot be read.
        """
        inputs, outputs = compiled.inputs, compiled.outputs
        self._count = len(outputs)
        self._dtype = np.float16 if inputs and inputs[0].get_element_type().to_dtype() == np.float16 else np.float32
        self._request = compiled.create_infer_request()
        super().__init__(
            path,
            metadata,
            takes=_shape(inputs[0]) if len(inputs) == 1 else (),
            gives=[_shape(output) for output in outputs],
            device=device,
            threads=threads,
        )

    def run(self, images: NDArray[np.float32]) -> list[NDArray[Any]]:
        """Images float32 [B, C, H, W] in 0..1 -> the outputs."""
        found = self._request.infer([images.astype(self._dtype, copy=False)], share_inputs=True)
        return [found[number] for number in range(self._count)[: self.used]]


def open_openvino(path: Path, device: torch.device, threads: int = 0, precision: str = "fp32") -> OpenVinoPredictor:
    """Opens a file or folder; see `runtimes.open_predictor`."""
    threads = granted(threads)
    where = on_cpu(path, device, "OpenVINO runtime")
    with signal_stack_kept():
        model, compiled = _open(path, threads, precision)
    return OpenVinoPredictor(path, compiled, _metadata(path, model), where, threads)


def _open(path: Path, threads: int, precision: str) -> tuple[Any, Any]:
    """A model, and what it is compiled to."""
    try:
        with without_telemetry():
            import openvino
    except ImportError:
        raise UserError("Running OpenVINO models needs OpenVINO: pip install 'secateur[openvino]'.") from None
    must_exist(path)
    file = _xml(path)
    core = openvino.Core()
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(threads),
        "INFERENCE_PRECISION_HINT": _hint(core, precision),
        # Bound to cores, the threads of two programs would share the first ones.
        "ENABLE_CPU_PINNING": "NO",
    }
    try:
        with silenced():
            core.set_property({"ENABLE_MMAP": "NO"})  # a file that is cut off later would end the program
            model = core.read_model(str(file))
            return model, core.compile_model(model, "CPU", settings)
    except Exception as error:  # OpenVINO has a class of exception for each way to fail
        reason = _PLACES.sub("", " ".join(str(error).split()))[:200]
        raise UserError(f"{path} is not a model that OpenVINO can run: {reason}") from None


def _hint(core: Any, precision: str) -> str:
    """What to compute in, in OpenVINO's word; a notice says so where the CPU does not compute in what was asked for."""
    if precision == "fp32":
        return "f32"
    if precision.upper() in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return precision.replace("fp", "f")
    logger.warning("This CPU does not compute in %s: OpenVINO computes in fp32.", precision)
    return "f32"


def _xml(path: Path) -> Path:
    """The one model of a folder.

    Raises:
        UserError: there is none, or more than one.
    """
    if not path.is_dir():
        return path
    found = sorted(path.glob("*.xml"))
    if len(found) != 1:
        raise UserError(f"{path} should hold one .xml of a model, not {len(found)}; name the .xml itself.")
    return found[0]


def _metadata(path: Path, model: Any) -> Metadata:
    """What `metadata.yaml` beside the model says, or else the model itself."""
    folder = path if path.is_dir() else path.parent
    try:
        return Metadata.of_yaml((folder / "metadata.yaml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        place = ["secateur", "metadata"]
        return Metadata.of_json(str(model.get_rt_info(place).value)) if model.has_rt_info(place) else Metadata()


def _shape(port: Any) -> Shape:
    """None for open sides; nothing at all where even their number is open."""
    shape = port.get_partial_shape()
    if shape.rank.is_dynamic:
        return ()
    return tuple(None if side.is_dynamic else int(side.get_length()) for side in shape)


for suffix in ("_openvino_model", ".xml"):
    RUNTIMES.register(suffix)(Runtime("OpenVINO", open_openvino))
