"""Keywords of the Python API: values get the types of their fields, near names are listed, nonsense is refused."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import secateur
from secateur.api import options
from secateur.errors import UserError
from secateur.families.loading import load_checkpoint
from secateur.networks.checkpoint import Checkpoint
from secateur.pruning.options import GuardSettings, LatencySettings
from secateur.pruning.settings import LayerSettings, RepairSettings, RoundSettings, ScoreSettings
from secateur.sparsity.settings import OneShotSettings
from secateur.training.settings import TrainSettings


def given(kind: type[Any], **values: Any) -> Any:
    [settings] = options.settings_of(secateur.prune, values, kind)
    return settings


@pytest.mark.parametrize(
    ("kind", "name", "value", "kept"),
    [
        (RoundSettings, "rounds", 1, "1"),
        (RoundSettings, "rounds", np.int64(3), "3"),
        (RoundSettings, "depth", 0, False),
        (RoundSettings, "depth", np.bool_(True), True),
        (RepairSettings, "correction_images", np.int32(8), 8),
        (RepairSettings, "correction_images", 8.0, 8),
        (RepairSettings, "correction_share", 1, 1.0),
        (RepairSettings, "correction_share", torch.tensor(0.5), 0.5),
        (GuardSettings, "round_to", "auto", "auto"),
        (GuardSettings, "round_to", np.int64(16), 16),
        (GuardSettings, "exclude", "model.0", ("model.0",)),
        (GuardSettings, "exclude", ["model.0", "model.1"], ("model.0", "model.1")),
        (ScoreSettings, "tie", "max", "max"),
        (LatencySettings, "latency_table", Path("table.json"), "table.json"),
        (LayerSettings, "chains", 1.0, True),
        (OneShotSettings, "exclude", {"head"}, ("head",)),
        (TrainSettings, "freeze", 3, (3,)),
        (TrainSettings, "freeze", range(2), (0, 1)),
        (TrainSettings, "device", torch.device("cpu"), "cpu"),
        (TrainSettings, "device", 0, "0"),
    ],
)
def test_a_value_gets_the_type_of_its_field(kind: type[Any], name: str, value: Any, kept: Any) -> None:
    found = getattr(given(kind, **{name: value}), name)
    assert found == kept and type(found) is type(kept)


@pytest.mark.parametrize(
    ("kind", "name", "value", "wanted"),
    [
        (RoundSettings, "rounds", True, r"rounds is True \(bool\); it must be text"),
        (RoundSettings, "rounds", None, r"rounds is None \(NoneType\); it must be text"),
        (RoundSettings, "depth", "no", r"depth is 'no' \(str\); it must be True or False"),
        (RoundSettings, "depth", 2, r"depth is 2 \(int\); it must be True or False"),
        (RepairSettings, "correction_images", "8", r"correction_images is '8' \(str\); it must be an integer"),
        (RepairSettings, "correction_images", 8.5, r"correction_images is 8.5 \(float\); it must be an integer"),
        (RepairSettings, "correction_images", True, r"correction_images is True \(bool\); it must be an integer"),
        (RepairSettings, "correction_share", "half", r"correction_share is 'half' \(str\); it must be a number"),
        (GuardSettings, "round_to", "8", r"round_to is '8' \(str\); it must be an integer or 'auto'"),
        (GuardSettings, "exclude", {"a": 1}, "it must be text, or a list of such values"),
        (ScoreSettings, "tie", "most", r"tie is 'most' \(str\); it must be 'mean' or 'sum' or 'max' or 'min'"),
        (TrainSettings, "freeze", "model.0", "it must be an integer, or a list of such values"),
    ],
)
def test_a_value_of_another_type_is_refused(kind: type[Any], name: str, value: Any, wanted: str) -> None:
    with pytest.raises(TypeError, match=f"secateur.prune: .*{wanted}"):
        given(kind, **{name: value})


def test_ranges_hold_as_on_the_command_line() -> None:
    with pytest.raises(UserError, match=r"min-share is 1.5; it must be from 0 to 1"):
        given(GuardSettings, min_share=1.5)


CALLS = {
    "prune": lambda model, **words: secateur.prune(model, criterion="l2", params=0.5, **words),
    "heal": lambda model, **words: secateur.heal(model, model, **words),
    "repair": lambda model, **words: secateur.repair(model, *cut_of(model), **words),
    "shorten": lambda model, **words: secateur.shorten(model, 1, **words),
    "zero": lambda model, **words: secateur.zero(model, 0.5, **words),
    "finetune": lambda model, **words: secateur.finetune(model, "data.yaml", "runs", **words),
    "export": lambda model, **words: secateur.export(model, "x.onnx", **words),
    "predict": lambda model, **words: secateur.predict(model, np.zeros((32, 32, 3), np.uint8), **words),
    "what_if": lambda model, **words: secateur.what_if(model, **words),
    "allocate": lambda model, **words: secateur.allocate(cut_of(model)[0], np.ones(3), params=0.5, **words),
}


def cut_of(model: Checkpoint) -> tuple[Any, Any]:
    graph = secateur.trace(model)
    return graph, secateur.allocate(graph, secateur.score(model, graph, "l2"), params=0.9, round_to=1)


@pytest.mark.parametrize(
    ("function", "name", "near"),
    [
        ("prune", "round", "rounds"),
        ("prune", "flop", "flops"),
        ("prune", "imgsz", None),
        ("prune", "batchsize", "batch_size"),
        ("heal", "steps", "heal_steps"),
        ("repair", "correction_image", "correction_images"),
        ("shorten", "layerscore", "layer_score"),
        ("zero", "patterns", "pattern"),
        ("finetune", "epoch", "epochs"),
        ("export", "formats", "format"),
        ("predict", "max_dets", "max_det"),
        ("predict", "class", "classes"),
        ("what_if", "flop", "flops"),
        ("allocate", "min_chanels", "min_share"),
        ("allocate", "param", "params"),
    ],
)
def test_an_unknown_keyword_lists_the_near_ones(function: str, name: str, near: str | None, tiny_weights: Path) -> None:
    with pytest.raises(TypeError) as raised:
        CALLS[function](load_checkpoint(tiny_weights), **{name: 1})
    message = str(raised.value)
    assert message.startswith(f"secateur.{function} has no option {name!r}. ")
    if near is not None:
        assert near in message.partition(" Did you mean ")[2].rstrip("?").split(" or ")


def test_every_function_with_options_is_among_the_calls() -> None:

    with_options = {
        name
        for name in secateur.__all__
        if any(
            entry.kind is entry.VAR_KEYWORD for entry in inspect.signature(getattr(secateur, name)).parameters.values()
        )
    }
    assert with_options == set(CALLS)


def test_types_of_all_settings_are_known_to_the_sentences() -> None:
    for kind in (
        RoundSettings,
        GuardSettings,
        RepairSettings,
        LatencySettings,
        ScoreSettings,
        LayerSettings,
        TrainSettings,
    ):
        for entry in dataclasses.fields(kind):
            with pytest.raises((TypeError, UserError)):
                given(kind, **{entry.name: object()})


def test_former_names_of_options_are_understood() -> None:
    assert given(RepairSettings, recalibrate=8, recalibrate_share=1) == RepairSettings(
        correction_images=8, correction_share=1.0
    )
    with pytest.raises(UserError, match=r"^recalibrate is the former name of correction_images. Set only"):
        given(RepairSettings, recalibrate=8, correction_images=8)
    with pytest.raises(TypeError, match=r"has no option 'recalibrate'"):
        given(TrainSettings, recalibrate=8)
