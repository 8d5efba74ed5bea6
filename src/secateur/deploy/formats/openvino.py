"""OpenVINO on the CPU: a folder with `model.xml`, `model.bin` and `metadata.yaml`, named as in YOLOv5's exports.

Prepared `images` float32 [B, C, H, W] -> `output0`, `output1`, ..., converted from PyTorch without ONNX between. NNCF
quantises all layers to int8 but the last convolutions and the decoding behind them. The `.xml` of any detector can be
opened.
"""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from secateur.deploy.exporters import EXPORTERS, Exporter, Written
from secateur.deploy.metadata import Metadata, write_metadata
from secateur.deploy.predictor import FilePredictor, granted, must_exist, on_cpu
from secateur.deploy.runtimes import RUNTIMES, Runtime
from secateur.deploy.settings import ExportSettings
from secateur.deploy.source import Source, cannot
from secateur.errors import UserError, told
from secateur.families.outputs import Shape
from secateur.machine import signal_stack_kept
from secateur.pruning.graph import Stored
from secateur.terminal import bar, silenced, without_telemetry

# The lines of OpenVINO's source that its messages begin with.
_PLACES = re.compile(r"(?:Exception from|Check '.*?' failed at) \S+:\d+:?\s*")
logger = logging.getLogger("secateur")
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
    """Writes an `openvino.Model`, converted or quantised, with its metadata.

    fp16 means that weights are stored so, in half the space; what they are computed in is the device's choice, or the
    program's.
    """
    model.set_rt_info(metadata.to_json(), ["secateur", "metadata"])
    half = metadata.precision == "fp16"
    importlib.import_module("openvino").save_model(model, str(folder / MODEL), compress_to_fp16=half)
    write_metadata(folder, metadata)


def quantised(model: Any, source: Source, settings: ExportSettings) -> Any:
    """An `openvino.Model` with int8 layers.

    With `accuracy_drop` and a judge, layers are taken back to float until the judge gives no more than that less than
    for the model as it is; that is slow, for it is asked again for each of them.

    Args:
        model: an `openvino.Model` with one input of images.
        source: with images to calibrate on.

    Raises:
        UserError: NNCF is not installed, or fails.
    """
    nncf = _nncf()
    groups = list(source.calibration(settings.batch_size))
    scope = nncf.IgnoredScope(names=tail_of(model))
    how = {"preset": nncf.QuantizationPreset.MIXED, "subset_size": len(groups), "ignored_scope": scope}
    try:
        with bar("calibrating int8") as progress, silenced(), without_telemetry(), signal_stack_kept():
            task = progress.add_task("", total=len(groups))

            def shown(group: Any) -> Any:
                progress.advance(task)
                return group

            data = nncf.Dataset(groups, shown)
            if settings.accuracy_drop and source.judge is not None:
                judge = _judge(source, settings)
                return nncf.quantize_with_accuracy_control(
                    model, data, data, judge, max_drop=settings.accuracy_drop, **how
                )
            return nncf.quantize(model, data, **how)
    except Exception as error:  # NNCF raises exceptions of many types
        raise UserError(f"NNCF cannot quantise this network: {told(error, 200)}.") from error


def _judge(source: Source, settings: ExportSettings) -> Callable[[Any, Any], tuple[float, None]]:
    """What NNCF asks for the metric of an `openvino.CompiledModel`."""
    assert source.judge is not None
    judge, metadata = source.judge, source.metadata(settings)

    def judged(compiled: Any, _: Any) -> tuple[float, None]:
        predictor = OpenVinoPredictor(Path("the model"), compiled, metadata, torch.device("cpu"), 0)
        return judge(predictor), None

    return judged


def tail_of(model: Any) -> list[str]:
    """Names of the nodes from the outputs back to the last convolutions, and of these."""
    waiting = [result.input_value(0).get_node() for result in model.get_results()]
    found: dict[str, None] = {}
    while waiting:
        node = waiting.pop()
        if node.get_friendly_name() in found or node.get_type_name() in ("Constant", "Parameter"):
            continue
        found[node.get_friendly_name()] = None
        if node.get_type_name() not in ("Convolution", "GroupConvolution"):
            waiting += [value.get_node() for value in node.input_values()]
    return list(found)


def _nncf() -> Any:
    try:
        with silenced(), without_telemetry():
            return importlib.import_module("nncf")
    except ImportError:
        raise UserError("int8 for OpenVINO needs the package nncf: pip install 'secateur[openvino]'.") from None


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
        stored={"fp32": Stored(4, 4, 4), "fp16": Stored(2, 2, 2), "int8": Stored(1, 8, 4)},
    )
)
for suffix in ("_openvino_model", ".xml"):
    RUNTIMES.register(suffix)(Runtime("OpenVINO", open_openvino))
