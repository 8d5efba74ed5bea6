"""int8 in OpenVINO: a float tail, and layers that go back to float where accuracy asks for it."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from export_formats import answered, expected_of
from secateur.data.config import load_data_config
from secateur.deploy.exporters import check_export, export
from secateur.deploy.int8 import calibration_images
from secateur.deploy.runtimes import open_predictor
from secateur.deploy.settings import ExportSettings
from secateur.errors import UserError
from secateur.evaluation.predictor import Predictor
from secateur.families.detection.split import DetectionSplit
from secateur.machine import SignalStack

openvino = pytest.importorskip("openvino")
pytest.importorskip("nncf")

INT8 = {"format": "openvino", "precision": "int8"}


@pytest.fixture(scope="module")
def pictures(tiny_data: Path) -> list[Tensor]:
    return calibration_images(DetectionSplit.of(load_data_config(tiny_data), "train"), (64, 64), 8)


def convolutions(folder: Path) -> tuple[int, int]:
    """Convolutions with int8 weights, and others."""
    model = openvino.Core().read_model(str(folder / "model.xml"))
    small = [
        weights(node).get_element_type() == openvino.Type.i8
        for node in model.get_ops()
        if node.get_type_name() in ("Convolution", "GroupConvolution")
    ]
    return sum(small), len(small) - sum(small)


def weights(node: Any) -> Any:
    """The constant that a convolution's weights come from."""
    node = node.input_value(1).get_node()
    while node.get_type_name() != "Constant":
        node = node.input_value(0).get_node()
    return node


def signal_stack() -> bytes:
    """Where this thread handles its signals: nobody may leave it in memory that was freed."""
    place = SignalStack()
    if sys.platform == "linux":
        ctypes.CDLL(None).sigaltstack(None, ctypes.byref(place))
    return bytes(place)


def test_all_but_the_last_convolutions_are_int8(detector, pictures, tmp_path: Path) -> None:
    whole = export(detector, tmp_path / "a_openvino_model", 64, ExportSettings(format="openvino"))
    small = export(detector, tmp_path / "b_openvino_model", 64, ExportSettings(**INT8), images=pictures)
    assert small.file_mb < 0.55 * whole.file_mb and small.max_error < 0.15
    assert convolutions(small.path) == (57, 3) and convolutions(whole.path) == (0, 60)
    assert open_predictor(small.path).metadata.precision == "int8"  # type: ignore[attr-defined]


def test_layers_go_back_to_float_until_the_judge_is_content(lively, tiny_cfg, pictures, tmp_path: Path) -> None:
    detector = lively(tiny_cfg)  # every layer that goes back costs a compilation and an evaluation
    image = pictures[0][None].float() / 255
    expected = expected_of(detector, image)[0, :, 4:]
    asked: list[float] = []

    def judge(predictor: Predictor) -> float:
        asked.append(1 - float((answered(predictor, image)[0][:, 4:] - expected).abs().mean()))
        return asked[-1]

    export(detector, tmp_path / "a_openvino_model", 64, ExportSettings(**INT8), images=pictures)
    plain = judge(open_predictor(tmp_path / "a_openvino_model"))
    asked.clear()
    settings = ExportSettings(**INT8, accuracy_drop=(1 - plain) / 2)
    before = signal_stack()
    result = export(detector, tmp_path / "b_openvino_model", 64, settings, images=pictures, judge=judge)
    assert len(asked) > 2 and signal_stack() == before
    small, rest = convolutions(result.path)
    assert rest > convolutions(tmp_path / "a_openvino_model")[1] and small > 0
    assert judge(open_predictor(result.path)) > plain


@pytest.mark.parametrize("settings", [{"precision": "int8"}, {"format": "openvino"}])
def test_what_the_drop_is_for_is_said_before_any_work(settings: dict) -> None:
    with pytest.raises(UserError, match="--accuracy-drop applies only to OpenVINO int8"):
        check_export(ExportSettings(**settings, accuracy_drop=0.01))


def test_what_the_drop_needs_is_said(detector, pictures, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Give --data with a val split"):
        export(detector, tmp_path / "a", 64, ExportSettings(**INT8, accuracy_drop=0.01), images=pictures)
    assert list(tmp_path.iterdir()) == []


def test_without_nncf_it_is_one_sentence(detector, pictures, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "nncf", None)
    with pytest.raises(UserError, match=r"nncf: pip install 'secateur\[openvino\]'"):
        export(detector, tmp_path / "a_openvino_model", 64, ExportSettings(**INT8), images=pictures)
    assert list(tmp_path.iterdir()) == []
