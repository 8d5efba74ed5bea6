"""The package is an extra: nothing imports it but the family, and without it one sentence says what to install."""

from __future__ import annotations

import ast
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import secateur
from secateur.errors import UserError
from secateur.families.loading import load_checkpoint
from secateur.families.ultralytics import package
from secateur.families.ultralytics.architecture import Ultralytics
from secateur.families.ultralytics.description import checked_description

SOURCE = Path(secateur.__file__).parent
DESCRIPTION: dict[str, Any] = {
    "nc": 2,
    "scales": {"n": [0.33, 0.25, 1024]},
    "backbone": [[-1, 1, "Conv", [64, 3, 2]], [-1, 3, "C2f", [128, True]]],
    "head": [[[1], 1, "Detect", ["nc"]]],
}


def test_no_file_imports_it_when_it_is_loaded() -> None:
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert not any(name.partition(".")[0] == "ultralytics" for name in names), file


def test_registering_the_family_does_not_import_it() -> None:
    code = (
        "import sys, secateur; from secateur.families.family import FAMILIES; "
        "assert 'ultralytics' in FAMILIES; from secateur.deploy.exporters import EXPORTERS; "
        "assert 'ultralytics' in EXPORTERS; print('ultralytics' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False"]


def test_without_it_one_sentence_has_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "installed_version", lambda: "")
    package._checked.cache_clear()
    with pytest.raises(UserError, match=r"pip install 'secateur\[ultralytics\]'"):
        Ultralytics(checked_description(DESCRIPTION), 2).build({0: "a", 1: "b"})
    monkeypatch.setattr(package, "installed_version", lambda: "7.9.1")
    monkeypatch.setattr(package.importlib, "import_module", lambda name: None)
    with pytest.raises(UserError, match=r"ultralytics 7\.9\.1 is too old \(at least 8\.4"):
        package.needed("nn.tasks")
    package._checked.cache_clear()


def test_a_file_of_it_is_refused_with_that_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its classes need not be there: the file is read as data."""
    names = ("ultralytics", "ultralytics.nn", "ultralytics.nn.tasks")
    modules = {name: types.ModuleType(name) for name in names}
    kind = type("DetectionModel", (nn.Module,), {"__module__": names[-1]})
    modules[names[-1]].DetectionModel = kind  # type: ignore[attr-defined]
    model: Any = kind()
    head = nn.Conv2d(3, 4, 1)
    model.model, model.yaml, model.names = nn.Sequential(nn.Conv2d(3, 8, 1), head), DESCRIPTION, {0: "a", 1: "b"}
    with monkeypatch.context() as patch:
        for name, module in modules.items():
            patch.setitem(sys.modules, name, module)
        torch.save({"model": model, "version": "8.4.0"}, tmp_path / "best.pt")
    monkeypatch.setattr(package, "installed_version", lambda: "")
    package._checked.cache_clear()
    with pytest.raises(UserError, match=r"need the package ultralytics.*pip install 'secateur\[ultralytics\]'"):
        load_checkpoint(tmp_path / "best.pt")
    package._checked.cache_clear()


def test_its_licence_is_said_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(package, "installed_version", lambda: "8.4.190")
    monkeypatch.setattr(package.importlib, "import_module", lambda name: None)
    package._checked.cache_clear()
    package.needed("nn.tasks")
    package.needed("utils")
    package._checked.cache_clear()
    assert [record.message for record in caplog.records].count(package.LICENCE % "8.4.190") == 1


def test_a_description_is_plain_data_both_ways() -> None:
    given = Ultralytics(checked_description({**DESCRIPTION, "yaml_file": "/home/me/x.yaml"}), 2, args={"box": 7.5})
    assert "yaml_file" not in given.description and given.task == "detect" and not given.end_to_end
    assert Ultralytics.from_dict(given.to_dict()) == given
    assert given.with_classes(5).nc == 5 and given.with_classes(5).description == given.description
    assert str(given) == "Ultralytics network of 3 blocks (detect)"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"activation": "torch.nn.LeakyReLU(0.1)"}, ""),
        ({"activation": "nn.Hardswish()"}, ""),
        ({"activation": "nn.ReLU(__import__('os'))"}, "not an activation of PyTorch"),
        ({"activation": 3}, "not an activation of PyTorch"),
        ({"scale": "q"}, "no scale 'q'"),
        ({"width_multiple": float("nan")}, "width_multiple is nan"),
        ({"kpt_shape": [17, 9]}, "kpt_shape is 9"),
        ({"end2end": "yes"}, "it must be true or false"),
        ({"head": [[[1], 1, "Conv", [64]]]}, "names the unknown head 'Conv'"),
        ({"head": [[[0, 7], 1, "Detect", ["nc"]]]}, "reads 7"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_description_is_checked_before_anything_is_made_of_it(change: dict[str, Any], says: str) -> None:
    if not says:
        assert checked_description({**DESCRIPTION, **change})["activation"] == change["activation"]
        return
    with pytest.raises(UserError) as raised:
        checked_description({**DESCRIPTION, **change})
    assert says in str(raised.value)
