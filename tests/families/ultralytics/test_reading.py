"""Files of the package are read as data: tensors, names, strides, sizes; what is hostile or unknown is one sentence."""

from __future__ import annotations

import copy
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("ultralytics.nn")

from ultralytics_subjects import NAMES, checkpoint_named, fresh, save

from secateur.errors import UserError
from secateur.families.family import family_of
from secateur.families.loading import load_checkpoint
from secateur.families.ultralytics.reading import is_theirs


def test_a_file_says_everything(tmp_path: Path) -> None:
    model = fresh("yolov8n")
    file = save(model, tmp_path / "best.pt")
    assert is_theirs(file)
    checkpoint = load_checkpoint(file)
    assert family_of(checkpoint).kind == "ultralytics"
    assert checkpoint.names == NAMES and checkpoint.nc == 3 and checkpoint.strides == (8.0, 16.0, 32.0)
    assert checkpoint.image_size == 64 and checkpoint.architecture.channels == 3
    assert checkpoint.architecture.args == {"box": 7.5, "cls": 0.5, "dfl": 1.5}
    state = model.half().float().state_dict()
    assert list(checkpoint.tensors) == [f"model.{name}" for name in state]
    assert all(torch.equal(checkpoint.tensors[f"model.{name}"].float(), value.float()) for name, value in state.items())


def test_averaged_weights_are_preferred(tmp_path: Path) -> None:
    model, other = fresh("yolov8n"), fresh("yolov8n")
    with torch.no_grad():
        other.model[0].conv.weight.mul_(2)
    file = save(model, tmp_path / "last.pt", ema=copy.deepcopy(other).half())
    weight = load_checkpoint(file).tensors["model.model.0.conv.weight"]
    assert torch.equal(weight, other.model[0].conv.weight.half())


def test_the_old_stream_is_read_too(tmp_path: Path) -> None:
    file = tmp_path / "old.pt"
    torch.save({"model": fresh("yolov8n").half()}, file, _use_new_zipfile_serialization=False)
    assert is_theirs(file) and load_checkpoint(file).nc == 3


def test_a_module_of_yolov5_is_not_theirs(tmp_path: Path) -> None:
    torch.save({"model": torch.nn.Conv2d(3, 4, 1)}, tmp_path / "other.pt")
    (tmp_path / "text.pt").write_text("ultralytics.nn.tasks")
    (tmp_path / "cut.pt").write_bytes(b"PK\x03\x04 ultralytics.nn.tasks")
    assert not any(is_theirs(tmp_path / name) for name in ("other.pt", "text.pt", "cut.pt"))


class Runs:
    """What a pickle can carry."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.mark),))


def test_nothing_in_a_file_runs(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    file = save(fresh("yolov8n"), tmp_path / "hostile.pt", extra=Runs(mark))
    with pytest.raises(UserError, match="contains the foreign code"):
        load_checkpoint(file)
    assert not mark.exists()
    with pytest.raises(pickle.UnpicklingError):
        torch.load(file, weights_only=True)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"activation": "__import__('os').system('true')"}, "has the activation"),
        ({"activation": "torch.nn.SiLU().__class__"}, "has the activation"),
        ({"depth_multiple": 1e9}, "depth_multiple is 1000000000.0; expected is a number from 0 to 8"),
        ({"nc": "80"}, "nc is '80'; expected is a whole number"),
        ({"scales": {"n": [0.33, 1e6, 1024]}}, "a scale in its model.yaml is 1000000.0"),
        ({"backbone": []}, "reads"),
        ({"backbone": 3}, "no backbone and head"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_hostile_description_is_one_sentence(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    model = fresh("yolov8n")
    model.yaml = {**model.yaml, **change}
    file = save(model, tmp_path / "hostile.pt")
    with pytest.raises(UserError) as raised:
        load_checkpoint(file)
    assert says in str(raised.value) and str(file) in str(raised.value)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ([-1, 1, "Evil", [64]], "names the unknown block 'Evil'"),
        ([-1, 1, "__import__", ["os"]], "names the block '__import__'"),
        ([-1, 10**9, "Conv", [64, 3, 2]], "repeats in row 0 of its model.yaml is 1000000000"),
        ([-1, 1, "Conv", [10**9, 3, 2]], "an argument in row 0 of its model.yaml is 1000000000"),
        ([-1, 1, "Conv", ["nc or print()", 3, 2]], "an argument in row 0 of its model.yaml is"),
        ([5, 1, "Conv", [64, 3, 2]], "row 0 of its model.yaml reads 5"),
        ([-1, 1, "Conv"], "a row is [from, repeats, block, arguments]"),
    ],
    ids=["unknown", "builtin", "repeats", "wide", "words", "later", "short"],
)
def test_a_hostile_row_is_one_sentence(row: list[Any], says: str, tmp_path: Path) -> None:
    model = fresh("yolov8n")
    model.yaml = {**model.yaml, "backbone": [row, *model.yaml["backbone"][1:]]}
    with pytest.raises(UserError, match="cannot be used") as raised:
        load_checkpoint(save(model, tmp_path / "hostile.pt"))
    assert says in str(raised.value)


def test_a_network_that_is_too_large_is_not_built(tmp_path: Path) -> None:
    model = fresh("yolov8n")
    rows = [[-1, 1, "Conv", [8192, 3, 2]], [-1, 1, "Conv", [8192, 3, 1]]]
    model.yaml = {**model.yaml, "backbone": [*rows, *model.yaml["backbone"]], "scales": {}, "scale": ""}
    with pytest.raises(UserError, match="parameters, but at most"):
        load_checkpoint(save(model, tmp_path / "large.pt"))


def test_a_newer_file_of_unknown_blocks_names_both_versions(tmp_path: Path) -> None:
    model = fresh("yolov8n")
    model.yaml = {**model.yaml, "backbone": [[-1, 1, "Conv9", [64, 3, 2]], *model.yaml["backbone"][1:]]}
    with pytest.raises(
        UserError, match=r"written by ultralytics 99\.0\.1, but 8\.4\.\d+ is installed; upgrade the package"
    ):
        load_checkpoint(save(model, tmp_path / "new.pt", version="99.0.1"))


def test_tensors_of_another_network_are_refused(tmp_path: Path) -> None:
    model = fresh("yolov8n")
    model.yaml = {**model.yaml, "scale": "s"}
    model.model[2] = torch.nn.Identity()
    with pytest.raises(UserError, match="The tensors belong to another network"):
        load_checkpoint(save(model, tmp_path / "other.pt"))


def test_a_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "rtdetr.pt"
    model = fresh("yolov8n")
    from ultralytics.nn.tasks import RTDETRDetectionModel

    model.__class__ = RTDETRDetectionModel
    with pytest.raises(UserError, match="RTDETRDetectionModel, which Secateur cannot prune"):
        load_checkpoint(save(model, file))


def test_numbers_of_a_broken_file_are_refused() -> None:
    from secateur.families.ultralytics.architecture import Ultralytics

    good = checkpoint_named("yolov8n").architecture.to_dict()
    for numbers in ({"model.2": {"c": 0}}, {"model.2": {"c": "9"}}, {"model.2": 3}, [1]):
        with pytest.raises(UserError):
            Ultralytics.from_dict({**good, "numbers": numbers})
    with pytest.raises(UserError, match="has no number oops"):
        Ultralytics.from_dict({**good, "numbers": {"model.2": {"oops": 3}}}).build(NAMES)
