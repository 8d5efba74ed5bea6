"""OpenVINO models in int8, by NNCF: all layers but the last convolutions and the decoding behind them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from secateur.deploy.runtimes.openvino import OpenVinoPredictor
from secateur.deploy.settings import ExportSettings
from secateur.deploy.source import Source
from secateur.errors import UserError
from secateur.machine import signal_stack_kept
from secateur.terminal import silenced, without_telemetry


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
    data = nncf.Dataset(groups)
    scope = nncf.IgnoredScope(names=tail_of(model))
    how = {"preset": nncf.QuantizationPreset.MIXED, "subset_size": len(groups), "ignored_scope": scope}
    try:
        with silenced(), without_telemetry(), signal_stack_kept():
            if settings.accuracy_drop and source.judge is not None:
                judge = _judge(source, settings)
                return nncf.quantize_with_accuracy_control(
                    model, data, data, judge, max_drop=settings.accuracy_drop, **how
                )
            return nncf.quantize(model, data, **how)
    except Exception as error:  # NNCF raises whatever it met
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"NNCF cannot quantise this network: {reason}.") from error


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
