"""Options that one family's trainings have: found without the family, and known everywhere options are."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

from secateur.families.yolov5.train_options import YOLOv5TrainOptions
from secateur.flags import understood
from secateur.runs.recipes.configure import configured
from secateur.steps.train import Train
from secateur.training.own_options import all_own_options, declared
from secateur.training.settings import TrainSettings

PLUGIN = """
from dataclasses import dataclass
from typing import Annotated

from secateur.ranges import Between
from secateur.training.own_options import own_options_of


@own_options_of("mine")
@dataclass(frozen=True)
class Mine:
    sigma: Annotated[float, Between(0, 1)] = 0.5
    flags = {"--sig": "--sigma"}

    @staticmethod
    def under_present_names(options):
        return dict(options)
"""


def test_they_are_options_of_every_training() -> None:
    assert YOLOv5TrainOptions in declared()
    assert TrainSettings().own == all_own_options()()
    plain = TrainSettings().to_dict()
    assert plain["autoanchor"] is True and "own" not in plain
    assert configured(Train, {"autoanchor": False}, "a recipe").train.own.autoanchor is False
    assert understood("train", ["--noautoanchor"]) == ["--no-autoanchor"]


def test_a_plug_in_adds_its_own_without_torch(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(PLUGIN)
    code = (
        "import sys; from secateur.training.settings import TrainSettings; import dataclasses; "
        "own = TrainSettings().own; print(own.sigma, own.autoanchor, 'torch' in sys.modules); "
        "from secateur.flags import understood; print(understood('train', ['--sig', '0.2'])); "
        "from secateur.ranges import check_ranges; check_ranges(dataclasses.replace(own, sigma=2.0))"
    )
    environment = {**os.environ, "SECATEUR_PLUGINS": str(file)}
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert process.stdout.splitlines() == ["0.5 True False", "['--sigma', '0.2']"]
    assert "--sigma is 2.0; it must be from 0 to 1" in process.stderr


def test_a_training_notes_them_among_the_others() -> None:
    settings = dataclasses.replace(TrainSettings(), own=YOLOv5TrainOptions(autoanchor=False))
    assert settings.to_dict()["autoanchor"] is False
