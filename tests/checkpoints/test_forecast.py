"""What budgets would cost and lose: predicted costs, the smallest target, the cliff, and that nothing is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import secateur
from secateur.checkpoints import forecast as module
from secateur.checkpoints.forecast import Forecast, forecast, line_to_paste
from secateur.cli import main
from secateur.data.config import load_data_config
from secateur.errors import UserError
from secateur.families.context import Context
from secateur.families.loading import load_checkpoint
from secateur.networks.checkpoint import Checkpoint
from secateur.pruning.options import ChannelSettings, budget_options


@pytest.fixture
def tiny(tiny_weights: Path) -> Checkpoint:
    return load_checkpoint(tiny_weights)


def settings(**budgets: str) -> ChannelSettings:
    return ChannelSettings(budget_options()(**budgets))


class Seeing:
    """A predictor that finds one box in every image as long as its network has enough parameters."""

    def __init__(self, network: nn.Module, device: Any = None) -> None:
        self.enough = sum(parameter.numel() for parameter in network.parameters()) > 22_000

    def predict(self, images: torch.Tensor, settings: Any) -> list[torch.Tensor]:
        return [torch.tensor([[1.0, 1.0, 9.0, 9.0, 0.8, 1.0]])[: int(self.enough)] for _ in images]


def test_costs_without_images(tiny: Checkpoint) -> None:
    found = forecast(tiny, Context(64), settings(size="0.5:yolov5"))
    assert (found.cost, found.file, found.criterion, found.cliff) == ("size", "yolov5-fp32", "l2", None)
    targets = [rung.target for rung in found.rungs]
    assert targets == sorted(targets, reverse=True) and found.smallest.target < 0.5
    for name in ("flops", "parameters", "mb"):
        values = [getattr(rung, name) for rung in found.rungs]
        assert values == sorted(values, reverse=True)
    [asked] = [rung for rung in found.rungs if rung.asked]
    assert asked.mb == asked.reached == pytest.approx(0.5 * found.dense, rel=0.1)
    assert "Accuracy is not estimated" in found.table() and "<- smallest" in found.table()
    line = line_to_paste(found, "best.pt", ["--img 64"])
    assert line.startswith("secateur prune --weights best.pt --img 64 --size 0.") and line.endswith(":yolov5-fp32")


def test_the_cliff_is_where_the_detections_fall_apart(
    tiny: Checkpoint, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "predictor_of", Seeing)
    monkeypatch.setattr(module, "EXPORTERS", {"onnx": type("None", (), {"missing": lambda self: "onnx"})()})
    context = Context(64, data=load_data_config(tiny_data))
    found = forecast(tiny, context, settings(params="0.5"))
    assert found.criterion == "fisher" and found.file == ""
    for rung in found.rungs:
        assert rung.agreement in (None, float(rung.parameters > 22_000))
    held = [rung for rung in found.rungs if rung.parameters > 22_000]
    assert held and found.cliff == held[-1].target
    assert [rung.agreement for rung in found.rungs[len(held) + 1 :]] == [None] * (len(found.rungs) - len(held) - 1)
    assert f"works down to {found.cliff:.0%}" in found.table() and "<- cliff" in found.table()
    assert line_to_paste(found, "best.pt", []) == f"secateur prune --weights best.pt --params {found.cliff:.2g}"


def test_nothing_is_written(tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["prune", "--weights", str(tiny_weights), "--img", "64", "--size", "0.5:yolov5", "--what-if"])
    said = capsys.readouterr().out
    assert "Smallest reachable" in said and "secateur prune --weights" in said.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_a_run_predicts_its_first_cut(
    tiny_weights: Path,
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(module, "predictor_of", Seeing)
    words = ["run", "--weights", str(tiny_weights), "--data", str(tiny_data), "--img", "64", "--what-if"]
    main([*words, "--params", "0.6", "--criterion", "l2"])
    said = capsys.readouterr().out
    assert "<- asked" in said and "Smallest reachable" in said
    last = said.splitlines()[-1]
    assert last.startswith("Run to this point:  secateur run --weights") and "--recipe best --params" in last
    for more, message in ((["--recipe", "intel"], "the recipe intel cuts no channels"), ([], "this run first trains")):
        untrained = ["run", "--cfg", "yolov5n", *words[3:]]
        with pytest.raises(SystemExit):
            main([*words, *more] if more else untrained)
        assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_from_python(tiny_weights: Path) -> None:
    found = secateur.what_if(tiny_weights, percent=0.3, image_size=64, round_to=4)
    assert isinstance(found, Forecast) and found.to_dict()["cost"] == "percent"
    assert found.rungs[0].target < found.smallest.target == found.smallest.removed


def test_refused(tiny: Checkpoint, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="No budget is set"):
        forecast(tiny, Context(64), settings())
    with pytest.raises(SystemExit):
        main(["prune", "--weights", "best.pt", "--what-if", "--layers", "1"])
    assert "--what-if predicts the result of a budget. Add one of --flops" in capsys.readouterr().err
