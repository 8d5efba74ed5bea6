"""OpenVINO on the CPU: a folder with `model.xml`, `model.bin` and `metadata.yaml`, named as in YOLOv5's exports.

Prepared `images` float32 [B, C, H, W] -> `output0`, `output1`, ..., converted directly from PyTorch. NNCF quantises all
layers to int8 except the last convolutions and the decoding after them. The `.xml` of any detector can be opened.
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

# Source locations at the start of OpenVINO's messages.
_PLACES = re.compile(r"(?:Exception from|Check '.*?' failed at) \S+:\d+:?\s*")
logger = logging.getLogger("secateur")
MODEL = "model.xml"
COMPUTES = (
    "OpenVINO computes in bf16 on CPUs that support it (AMX), unless a program sets INFERENCE_PRECISION_HINT "
    "to f32, as secateur val does. --precision bf16 measures bf16."
)


def write(source: Source, path: Path, settings: ExportSettings) -> Written:
    """Writes into the folder; see `Exporter`.

    Raises:
        UserError: the network cannot be exported.
    """
    model = converted(source, settings)
    if settings.precision == "int8":
        model = quantised(model, source, settings)
    save(model, path, source.metadata(settings))
    return Written({"nodes": len(model.get_ops())}, (COMPUTES,))


def converted(source: Source, settings: ExportSettings) -> Any:
    """An `openvino.Model` with fp32 weights; the batch dimension is dynamic if the settings request it.

    Raises:
        UserError: the network cannot be exported.
    """
    program = source.traced(replace(settings, precision="fp32"), "OpenVINO")
    shape = list(source.example(settings).shape)
    if settings.dynamic:
        shape[0] = -1
    with silenced(), without_telemetry():
        try:
            model = importlib.import_module("openvino").convert_model(program, input=[shape])
        except Exception as error:  # the converter has one exception class per failure
            raise cannot("OpenVINO", error) from error
    model.input(0).get_tensor().set_names({"images"})
    for number, output in enumerate(model.outputs):
        output.get_tensor().set_names({f"output{number}"})
    return model


def save(model: Any, folder: Path, metadata: Metadata) -> None:
    """Writes an `openvino.Model`, converted or quantised, with its metadata.

    fp16 halves the stored weights; the device or the program decides the precision of the computation.
    """
    model.set_rt_info(metadata.to_json(), ["secateur", "metadata"])
    half = metadata.precision == "fp16"
    importlib.import_module("openvino").save_model(model, str(folder / MODEL), compress_to_fp16=half)
    write_metadata(folder, metadata)


def quantised(model: Any, source: Source, settings: ExportSettings) -> Any:
    """An `openvino.Model` with int8 layers.

    With `accuracy_drop` and a judge, layers are restored to floating point until the judge's metric drops by at most
    this value. This is slow, because the judge runs once per layer.

    Args:
        model: an `openvino.Model` whose input is one image batch.
        source: provides the calibration images.
        settings: settings of the export.

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
    """The function that NNCF calls for the metric of an `openvino.CompiledModel`."""
    assert source.judge is not None
    judge, metadata = source.judge, source.metadata(settings)

    def judged(compiled: Any, _: Any) -> tuple[float, None]:
        predictor = OpenVinoPredictor(Path("the model"), compiled, metadata, torch.device("cpu"), 0)
        return judge(predictor), None

    return judged


def tail_of(model: Any) -> list[str]:
    """Names of the nodes from the outputs back to the last convolutions, including these."""
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

    Computes in fp32 unless `precision` is set, independent of how the weights are stored. By default, OpenVINO computes
    in bf16 on CPUs that support it, which changes boxes by pixels.
    """

    def __init__(self, path: Path, compiled: Any, metadata: Metadata, device: torch.device, threads: int) -> None:
        """Wraps an `openvino.CompiledModel`.

        Raises:
            UserError: its inputs or outputs are not supported.
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
    """A model, and its compiled form."""
    try:
        with without_telemetry():
            import openvino
    except ImportError:
        raise UserError(
            "Cannot run OpenVINO models: OpenVINO is not installed (pip install 'secateur[openvino]')."
        ) from None
    must_exist(path)
    file = _xml(path)
    core = openvino.Core()
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(threads),
        "INFERENCE_PRECISION_HINT": _hint(core, precision),
        # With core binding, the threads of two programs would share the first cores.
        "ENABLE_CPU_PINNING": "NO",
    }
    try:
        with silenced():
            core.set_property({"ENABLE_MMAP": "NO"})  # if the file is truncated later, a memory map would crash
            model = core.read_model(str(file))
            return model, core.compile_model(model, "CPU", settings)
    except Exception as error:  # OpenVINO has one exception class per failure
        reason = _PLACES.sub("", " ".join(str(error).split()))[:200]
        raise UserError(f"OpenVINO cannot run {path}: {reason}") from None


def _hint(core: Any, precision: str) -> str:
    """OpenVINO's name of the precision. Logs a notice if the CPU does not support the requested one."""
    if precision == "fp32":
        return "f32"
    if precision.upper() in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return precision.replace("fp", "f")
    logger.warning("This CPU does not support %s: OpenVINO computes in fp32.", precision)
    return "f32"


def _xml(path: Path) -> Path:
    """The only model of a folder.

    Raises:
        UserError: there is none, or more than one.
    """
    if not path.is_dir():
        return path
    found = sorted(path.glob("*.xml"))
    if len(found) != 1:
        raise UserError(f"{path} contains {len(found)} .xml models instead of one. Name the .xml file itself.")
    return found[0]


def _metadata(path: Path, model: Any) -> Metadata:
    """The metadata from `metadata.yaml` next to the model, otherwise from the model itself."""
    folder = path if path.is_dir() else path.parent
    try:
        return Metadata.of_yaml((folder / "metadata.yaml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        place = ["secateur", "metadata"]
        return Metadata.of_json(str(model.get_rt_info(place).value)) if model.has_rt_info(place) else Metadata()


def _shape(port: Any) -> Shape:
    """The shape with None for dynamic dimensions; empty if the number of dimensions is dynamic."""
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
