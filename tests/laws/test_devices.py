"""Everything that computes keeps its tensors on one device, as a GPU demands: whole pieces of work, pretended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from law_subjects import enliven
from pretend_gpu import GPU, OnGpu, pretended
from secateur.checkpoints.channels import prune
from secateur.checkpoints.heal import heal
from secateur.checkpoints.training import Methods, train_checkpoint
from secateur.data.config import load_data_config, unlabelled_images
from secateur.distillation.settings import DistillSettings, HealSettings
from secateur.families.context import Context
from secateur.families.evaluation import agreement, evaluate
from secateur.families.hyp import load_hyp
from secateur.families.loading import load_checkpoint
from secateur.families.yolov5.model import Detector
from secateur.networks.checkpoint import Checkpoint, save_checkpoint
from secateur.pruning.options import ChannelSettings, budget_options
from secateur.pruning.settings import CliffSettings, RepairSettings, RoundSettings, ScoreSettings
from secateur.sparsity.settings import SparsifySettings, WeightSettings
from secateur.training import session
from secateur.training.settings import TrainSettings


@pytest.fixture
def seeing(tiny_weights: Path) -> Checkpoint:
    known = load_checkpoint(tiny_weights)
    detector = known.build()
    assert isinstance(detector, Detector)
    enliven(detector)
    with torch.no_grad():
        for last in detector.head.m:
            last.bias.view(detector.na, -1)[:, 4] += 3  # type: ignore[union-attr, operator]
    return Checkpoint.of(detector.eval(), like=known)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    with pretended() as device:
        monkeypatch.setattr(session, "pick_device", lambda words: device)
        yield device


def on(device: torch.device, data: Path) -> Context:
    return Context(64, device, load_data_config(data), batch_size=4, workers=0)


def test_a_mixture_is_seen(gpu: torch.device) -> None:
    there, here = torch.ones(2, 3, device=gpu), torch.ones(2, 3)
    assert isinstance(there, OnGpu) and there.device == GPU
    for mixed in (
        lambda: there + here,
        lambda: torch.cat([there, here]),
        lambda: torch.stack([there.sum(), here.sum()]),
        lambda: here.index_select(0, torch.zeros(1, dtype=torch.long, device=gpu)),
        lambda: there.index_select(0, torch.zeros(1, dtype=torch.long)),
        lambda: torch.randn(2, device=gpu, generator=torch.Generator()),
    ):
        with pytest.raises(RuntimeError, match=r"same device|device type for generator"):
            mixed()
    with pytest.raises(TypeError, match="numpy"):
        there.numpy()
    assert torch.equal((there + here.sum()).cpu(), here + 6)  # one number may be mixed
    assert there[torch.tensor([1])].shape == (1, 3)


def test_a_validation_and_an_agreement(gpu: torch.device, seeing: Checkpoint, tiny_data: Path) -> None:
    context = on(gpu, tiny_data)
    found = evaluate(seeing, context)
    expected = evaluate(seeing, on(torch.device("cpu"), tiny_data))
    assert found.to_dict() == pytest.approx(expected.to_dict(), abs=1e-3)
    images = unlabelled_images(tiny_data.parent / "images" / "train", seeing.names)
    assert agreement(seeing, seeing, Context(64, gpu, unlabelled=images), limit=4).values["R"] == 1


@pytest.mark.parametrize("norms", ["paired", "reestimate"])
def test_rounds_of_pruning(gpu: torch.device, seeing: Checkpoint, tiny_data: Path, norms: str) -> None:
    settings = ChannelSettings(
        budget_options()(flops="0.7"),
        cliff=CliffSettings(cliff=False),
        score=ScoreSettings(statistics_images=4),
        rounds=RoundSettings("2"),
        repair=RepairSettings(correction_images=4, norms=norms),  # type: ignore[arg-type]
    )
    kept = [prune(seeing, on(device, tiny_data), settings)[1].plan for device in (gpu, torch.device("cpu"))]
    assert kept[0].layers == kept[1].layers


@pytest.mark.parametrize("method", ["scales and teacher", "weights"])
def test_a_training(gpu: torch.device, seeing: Checkpoint, tiny_data: Path, tmp_path: Path, method: str) -> None:
    save_checkpoint(seeing, tmp_path / "teacher.safetensors")
    taught = DistillSettings("bce+features", teacher=str(tmp_path / "teacher.safetensors"))
    methods = {
        "scales and teacher": Methods(sparsify=SparsifySettings(), distill=taught),
        "weights": Methods(weights=WeightSettings(target_sparsity=0.5, pruning_frequency=1, cooldown_epochs=0)),
    }
    settings = TrainSettings(
        epochs=1, batch_size=8, image_size=64, workers=0, hyp=load_hyp("finetune"), tensorboard=False,
        multi_scale=method == "weights",
    )  # fmt: skip
    trained = train_checkpoint(seeing, on(gpu, tiny_data), settings, tmp_path, methods=methods[method])
    assert trained.epochs == 1 and load_checkpoint(trained.best).nc == seeing.nc


def test_a_healing(gpu: torch.device, seeing: Checkpoint, tiny_data: Path, tmp_path: Path) -> None:
    settings = HealSettings(heal_steps=2, heal_batch=4)
    healed = heal(seeing, seeing, on(gpu, tiny_data), settings, tmp_path)
    assert load_checkpoint(healed.best).nc == seeing.nc
