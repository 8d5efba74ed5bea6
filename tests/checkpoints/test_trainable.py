"""Networks without a loss are refused before any work, and nobody is advised to train them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from secateur.checkpoints.training import can_be_trained, check_trainable
from secateur.cli import main
from secateur.data.config import load_data_config
from secateur.errors import UserError
from secateur.families.context import Context
from secateur.families.loading import load_checkpoint
from secateur.networks.checkpoint import Checkpoint
from secateur.steps.finetune import Finetune


@pytest.fixture
def plain() -> Checkpoint:
    return Checkpoint.of(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)))


@pytest.mark.parametrize(
    ("done", "check"),
    [
        ("trained", lambda plain, context: Finetune().check(plain, context)),
        ("trained", lambda plain, context: check_trainable(plain, "trained")),
    ],
)
def test_steps_that_train_say_so_when_they_are_checked(
    plain: Checkpoint, tiny_data: Path, done: str, check: Callable[[Checkpoint, Context], None]
) -> None:
    context = Context(64, data=load_data_config(tiny_data))
    with pytest.raises(
        UserError, match=f"^A network of the family 'module' cannot be {done}: the family does not implement `"
    ):
        check(plain, context)


def test_a_detector_can_be_trained_and_is_advised_to(
    tiny_weights: Path, own_folder: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert can_be_trained(load_checkpoint(tiny_weights))
    main(["prune", "--weights", str(tiny_weights), "--criterion", "l2", "--params", "0.8", "--img", "64"])
    assert "Next:  secateur finetune --weights" in capsys.readouterr().out
