"""Commands on the file of a plain module: one sentence that says why nothing can be built from it."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

import secateur
from commands_run import sentence

pytestmark = pytest.mark.usefixtures("own_folder")
COMMANDS = (
    "info FILE",
    "bench FILE",
    "prune --weights FILE --params 0.5 --criterion l2",
    "prune --weights FILE --layers 1 --layer-score gamma",
    "prune --weights FILE --unstructured 0.5",
    "export --weights FILE",
    "latency --weights FILE",
    "predict --weights FILE DATA/images/val",
    "val --weights FILE --data DATA/data.yaml",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_plain_modules_file_is_refused_in_one_sentence(
    command: str, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "plain.safetensors"
    secateur.save(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 1)), file)
    words = command.replace("FILE", str(file)).replace("DATA", str(tiny_data.parent)).split()
    told = sentence(capsys, *words)
    if words[0] == "predict":
        assert told == (
            "error: Networks of the family 'module' do not predict boxes: the family does not implement `predictor` "
            "(see docs/extending.md)."
        )
        return
    assert told.startswith("error: The checkpoint holds the tensors of a Sequential, but not its code, so it cannot")
    assert told.endswith("Load it in Python into a network: secateur.load(path, network=...).")
