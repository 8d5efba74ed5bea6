"""Law 6: a killed training ends where the undisturbed one ends. Law 9: two processes take the steps of one."""

from __future__ import annotations

import copy
import csv
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from law_subjects import NARROW
from secateur.pruning.surgery import cut
from toy_training import SETTINGS, Die, Keep, Noise, ToyBatches, fit, tensors_of
from two_processes import METHODS, WAIT_MINUTES, healed, imitated, pruned, train_one

SCRIPT = Path(__file__).resolve().parents[1] / "two_processes.py"


def test_killed_and_resumed_training_of_a_cut_network_ends_bit_for_bit_the_same(subject: Any, tmp_path: Path) -> None:
    small = cut(subject.detector, subject.graph, subject.random_plan(7))
    settings = replace(SETTINGS, epochs=2, save_every_steps=1)
    whole, parts = Keep(), Keep()
    batches = ToyBatches(count=3, channels=small.architecture.channels)
    fit(copy.deepcopy(small), batches, settings, folder=tmp_path / "a", hooks=[Noise(), Die(None), whole])
    with pytest.raises(KeyboardInterrupt):
        again = copy.deepcopy(small)
        fit(again, batches, settings, folder=tmp_path / "b", hooks=[Noise(), Die(3), Keep()])
    fresh = copy.deepcopy(small)
    torch.nn.init.normal_(next(fresh.parameters()))  # everything must come from the state
    hooks = [Noise(), Die(None), parts]
    fit(fresh, batches, settings, folder=tmp_path / "b", hooks=hooks, resume=True)
    first, second = tensors_of(whole), tensors_of(parts)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


class Both:
    """What two processes computed, and what one computes."""

    def __init__(self, folder: Path) -> None:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
        done = subprocess.run(
            [*launcher, str(SCRIPT), str(folder)],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=400,
        )
        assert (folder / "1.txt").is_file(), done.stderr[-3000:]
        self.folder = folder
        self.said = [(folder / f"{rank}.txt").read_text() for rank in range(2)]
        self.two = [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]

    def check(self, what: str, one: dict[str, Tensor]) -> None:
        """Both processes hold the same, and the same as one but for rounding."""
        first, second = (tensors[what] for tensors in self.two)
        assert one.keys() == first.keys() == second.keys()
        for name, value in one.items():
            assert torch.equal(first[name], second[name]), name
            torch.testing.assert_close(first[name], value, rtol=1e-7, atol=1e-9, msg=lambda x, n=name: f"{n}: {x}")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Both:
    """Everything that is compared, computed in one launch."""
    return Both(tmp_path_factory.mktemp("two"))


@pytest.mark.parametrize("name", list(NARROW))
def test_two_processes_take_the_steps_of_one(name: str, both: Both, tmp_path: Path) -> None:
    one = train_one(name, tmp_path)
    kinds = {key.split("/")[0] for key, value in one.items() if value.dtype == torch.float64}
    assert kinds == {"model", "ema", "optimizer"}
    both.check(name, one)
    if name == "yolov5n":
        rows = [list(csv.DictReader((folder / name / "results.csv").open())) for folder in (tmp_path, both.folder)]
        assert rows[0] == rows[1]


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_with_parts_of_a_batch_imitate_as_one(method: str, both: Both) -> None:
    one = imitated(method)
    assert sum(name.startswith("d_") for name in one) > 0 and len(one) > 50
    both.check(f"imitated {method}", one)


def test_two_processes_score_and_prune_weights_as_one(both: Both, tmp_path: Path) -> None:
    one = pruned(tmp_path)
    masks = torch.cat([mask.flatten() for name, mask in one.items() if name.startswith("masks/")])
    assert 0.4 < float((~masks).float().mean()) < 0.6
    both.check("pruned", one)


def test_two_processes_heal_as_one_and_end_with_it(both: Both, tmp_path: Path) -> None:
    one = healed(tmp_path)
    ended, started, fell = one["decisions"].tolist()
    assert 3 < started < fell == ended < 40
    both.check("healed", one)


def test_two_processes_agree_and_wait_for_each_other_as_long_as_the_settings_say(both: Both) -> None:
    assert both.said == [f"made by 0, waits {WAIT_MINUTES * 60} s"] * 2
