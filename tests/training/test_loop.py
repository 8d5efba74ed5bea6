"""The loop: exact resumption, steps and hooks, two processes as one, early stops, divergence."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from secateur.errors import UserError
from secateur.evaluation.metrics import Metrics
from secateur.families.loading import load_checkpoint
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.train_options import YOLOv5TrainOptions
from secateur.training.batchnorm import CrossProcessBatchNorm2d
from secateur.training.hooks import Hook
from secateur.training.hyp import Hyp
from secateur.training.loop import rescale
from secateur.training.run import TrainingRun
from secateur.training.state import has_state, read_state, write_state
from toy_training import (
    SETTINGS,
    Die,
    Keep,
    Noise,
    ToyBatches,
    evaluate,
    fit,
    tensors_of,
    toy_detector,
    toy_metrics,
)

CUDA = torch.cuda.is_available()
SCRIPT = Path(__file__).resolve().parents[1] / "toy_training.py"


@pytest.mark.parametrize("step", [4, 6, 7], ids=["in the first epoch", "after an epoch", "in mid-epoch"])
def test_interrupted_training_ends_bit_for_bit_where_the_undisturbed_one_ends(tmp_path: Path, step: int) -> None:
    settings = replace(SETTINGS, save_every_steps=2, multi_scale=True)
    whole, parts = Keep(), Keep()
    undisturbed = fit(
        toy_detector(),
        ToyBatches(),
        settings,
        folder=tmp_path / "a",
        hooks=[Noise(), Die(None), whole],
        evaluate=evaluate,
    )
    with pytest.raises(KeyboardInterrupt):
        fit(
            toy_detector(),
            ToyBatches(),
            settings,
            folder=tmp_path / "b",
            hooks=[Noise(), Die(step), Keep()],
            evaluate=evaluate,
        )
    # Another start, another seed: everything must come from the state.
    resumed = fit(
        toy_detector(seed=5),
        ToyBatches(),
        settings,
        folder=tmp_path / "b",
        hooks=[Noise(), Die(None), parts],
        evaluate=evaluate,
        resume=True,
    )
    first, second = tensors_of(whole), tensors_of(parts)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert undisturbed.rows == resumed.rows
    assert undisturbed.metrics == resumed.metrics
    assert (tmp_path / "a" / "results.csv").read_text() == (tmp_path / "b" / "results.csv").read_text()


def test_a_killed_process_leaves_a_state_from_which_the_training_ends_the_same(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), str(tmp_path / "b")]
    killed = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, timeout=240)
    assert killed.returncode == -9
    settings = replace(SETTINGS, save_every_steps=2)
    ends = []
    for name, resume in (("a", False), ("b", True)):
        keep = Keep()
        fit(
            toy_detector(),
            ToyBatches(),
            settings,
            folder=tmp_path / name,
            hooks=[Noise(), Die(None), keep],
            resume=resume,
        )
        ends.append(tensors_of(keep))
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_resuming_a_finished_training_returns_its_result_at_once(tmp_path: Path) -> None:
    first = fit(toy_detector(), ToyBatches(), SETTINGS, folder=tmp_path, evaluate=evaluate)
    again = fit(toy_detector(), ToyBatches(), SETTINGS, folder=tmp_path, evaluate=evaluate, resume=True)
    assert first == again


def test_resume_refuses_other_options_and_missing_states(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no training to resume"):
        fit(toy_detector(), ToyBatches(), SETTINGS, folder=tmp_path, resume=True)
    with pytest.raises(KeyboardInterrupt):
        fit(toy_detector(), ToyBatches(), SETTINGS, folder=tmp_path, hooks=[Die(6)])
    with pytest.raises(UserError, match="image_size was 64 and is 96"):
        fit(toy_detector(), ToyBatches(), replace(SETTINGS, image_size=96), folder=tmp_path, resume=True)
    with pytest.raises(UserError, match="other methods"):
        fit(toy_detector(), ToyBatches(), SETTINGS, folder=tmp_path, resume=True)


def test_a_label_of_a_class_that_the_detector_lacks_does_not_reach_the_loss(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"class id 3, but the detector has 3 classes \(ids 0 to 2\)"):
        fit(toy_detector(), ToyBatches(classes=4), SETTINGS, folder=tmp_path)


def _interrupted(folder: Path) -> dict[str, Any]:
    """The state of a training that was stopped in its second epoch."""
    with pytest.raises(KeyboardInterrupt):
        fit(toy_detector(), ToyBatches(), SETTINGS, folder=folder, hooks=[Die(6)])
    return read_state(folder)


def test_a_state_that_lacks_anything_or_holds_something_else_is_refused_in_a_sentence(tmp_path: Path) -> None:
    state, read = _interrupted(tmp_path), []
    for name in state.keys() - {"format"}:
        for other in (..., None, "x", {}, {"x": torch.zeros(2)}, [{"z": 1}]):
            damaged = {key: value for key, value in state.items() if key != name}
            write_state(tmp_path, damaged if other is ... else damaged | {name: other})
            try:
                fit(toy_detector(), ToyBatches(), SETTINGS, folder=tmp_path, hooks=[Die(None)], resume=True)
                read.append((name, other))
            except UserError as error:
                assert re.search("is of another detector, or damaged|Cannot resume", str(error))
    # On the CPU there is no scaler; no rows and no record are those of a first epoch; another number of generators is
    # that of other processes.
    assert {name for name, other in read if other != {}} <= {"scaler", "generators"}
    assert {name for name, _ in read} <= {"scaler", "generators", "rows", "record"}


def test_a_state_that_declares_more_than_its_file_holds_is_refused(tmp_path: Path) -> None:
    state = _interrupted(tmp_path)
    write_state(tmp_path, state | {"rows": torch.zeros(1).expand(10_000, 10_000)})
    with pytest.raises(UserError, match=r"state\.pt is not a training state, or is damaged"):
        read_state(tmp_path)


def test_a_resumed_training_says_where_it_goes_on_and_a_new_one_how_long_it_will_take(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = replace(SETTINGS, save_every_steps=2)
    with pytest.raises(KeyboardInterrupt):
        fit(toy_detector(), ToyBatches(), settings, folder=tmp_path, hooks=[Die(7)])
    said = capsys.readouterr().err
    assert "Resuming" not in said and len(re.findall(r"An epoch takes \d+ s: about \d+ \w+ left", said)) == 1
    fit(toy_detector(), ToyBatches(), settings, folder=tmp_path, hooks=[Die(None)], resume=True)
    assert "Resuming at epoch 2 of 3, after 4 of its 5 batches." in capsys.readouterr().err
    fit(toy_detector(), ToyBatches(), settings, folder=tmp_path, hooks=[Die(None)], resume=True)
    assert capsys.readouterr().err == "This training has already finished (3 epochs).\n"


@pytest.mark.parametrize("kept", [False, True])
def test_states_with_an_option_under_its_old_name_go_on(tmp_path: Path, kept: bool) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(toy_detector(), ToyBatches(), SETTINGS, folder=tmp_path, hooks=[Die(6)])
    state = read_state(tmp_path)
    del state["settings"]["autoanchor"], state["settings"]["wait_minutes"]
    write_state(tmp_path, state | {"settings": state["settings"] | {"noautoanchor": kept}})
    settings = replace(SETTINGS, own=YOLOv5TrainOptions(not kept))
    with pytest.raises(UserError, match=f"option autoanchor was {not kept} and is {kept} now"):
        wrong = replace(settings, own=YOLOv5TrainOptions(kept))
        fit(toy_detector(), ToyBatches(), wrong, folder=tmp_path, hooks=[Die(None)], resume=True)
    assert fit(toy_detector(), ToyBatches(), settings, folder=tmp_path, hooks=[Die(None)], resume=True).epochs == 3


def test_trainings_of_one_program_choose_their_precision_anew(tmp_path: Path) -> None:
    seen: list[torch.dtype] = []
    for amp in ("bf16", "off", "bf16"):
        detector = toy_detector()
        detector.model[1].register_forward_hook(lambda m, i, output: seen.append(output.dtype) if m.training else None)
        fit(detector, ToyBatches(1), replace(SETTINGS, epochs=1, amp=amp), folder=tmp_path / amp)  # type: ignore[arg-type]
    assert seen == [torch.bfloat16, torch.float32, torch.bfloat16]


class Spy(Hook):
    """Records when it is called, with which window and clipped norm."""

    def __init__(self) -> None:
        self.before: list[tuple[int, int, int]] = []
        self.norms: list[float] = []
        self.after: list[int] = []
        self.ends: list[int] = []

    def before_step(self, run: TrainingRun) -> None:
        self.before.append((run.epoch, run.batch, run.images_in_step))
        gradients = [p.grad for p in run.network.parameters() if p.grad is not None]
        self.norms.append(float(torch.nn.utils.get_total_norm(gradients)))

    def after_step(self, run: TrainingRun) -> None:
        self.after.append(run.step)

    def epoch_end(self, run: TrainingRun) -> None:
        self.ends.append(run.epoch)


def test_hooks_fire_at_optimizer_steps_only_and_an_epoch_leaves_nothing_pending(tmp_path: Path) -> None:
    spy = Spy()
    settings = replace(SETTINGS, epochs=2, hyp=Hyp(warmup_epochs=0))
    fit(toy_detector(), ToyBatches(count=5), settings, folder=tmp_path, hooks=[spy])
    assert [call[:2] for call in spy.before] == [(0, 2), (0, 4), (0, 5), (1, 2), (1, 4), (1, 5)]
    assert [call[2] for call in spy.before] == [8, 8, 4, 8, 8, 4]
    assert spy.after == [1, 2, 3, 4, 5, 6]
    assert spy.ends == [0, 1]
    assert max(spy.norms) <= 10.01


def test_checkpoints_hold_the_average_and_the_detector_comes_back_plain(tmp_path: Path) -> None:
    keep, detector = Keep(), toy_detector()
    result = fit(detector, ToyBatches(), SETTINGS, folder=tmp_path, hooks=[keep], evaluate=evaluate)
    saved = load_checkpoint(result.last).build().state_dict()
    for name, value in keep.run.ema.network.state_dict().items():
        torch.testing.assert_close(saved[name].float(), value.half().float(), rtol=0, atol=0)
    assert result.best.is_file() and load_checkpoint(result.best).image_size == SETTINGS.image_size
    assert not any(isinstance(module, CrossProcessBatchNorm2d) for module in detector.modules())
    assert "forward" not in vars(detector)


def test_results_csv_has_the_familiar_columns(tmp_path: Path) -> None:
    fit(toy_detector(), ToyBatches(), replace(SETTINGS, val_every=2), folder=tmp_path, evaluate=evaluate)
    rows = list(csv.DictReader((tmp_path / "results.csv").open()))
    losses = ["train/box_loss", "train/obj_loss", "train/cls_loss"]
    metrics = ["metrics/precision", "metrics/recall", "metrics/mAP_0.5", "metrics/mAP_0.5:0.95"]
    assert list(rows[0]) == ["epoch", *losses, *metrics, "x/lr0", "x/lr1", "x/lr2"]
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert rows[0]["metrics/mAP_0.5"] == "" and rows[1]["metrics/mAP_0.5"] != "" and rows[2]["metrics/mAP_0.5"] != ""


def test_patience_stops_a_training_that_gets_no_better(tmp_path: Path) -> None:
    figures = iter([0.5, 0.4, 0.3, 0.2, 0.1])

    def worse(_: Detector) -> Metrics:
        return toy_metrics(0, 0, 0, next(figures))

    settings = replace(SETTINGS, epochs=5, patience=2)
    result = fit(toy_detector(), ToyBatches(count=2), settings, folder=tmp_path, evaluate=worse)
    assert (result.epochs, result.best_epoch, result.metrics["mAP50-95"]) == (3, 0, 0.5)


class TrainingKind(Hook):
    """A method whose course runs over all epochs."""

    def may_stop(self, run: TrainingRun) -> bool:
        """Never."""
        return False


def test_a_course_over_all_epochs_is_not_cut_short(tmp_path: Path) -> None:
    settings = replace(SETTINGS, epochs=3, patience=1)
    figures = iter([0.5, 0.4, 0.3])
    result = fit(
        toy_detector(),
        ToyBatches(count=2),
        settings,
        folder=tmp_path,
        hooks=[TrainingKind()],
        evaluate=lambda _: toy_metrics(0, 0, 0, next(figures)),
    )
    assert (result.epochs, result.best_epoch) == (3, 0)


class Late(Hook):
    """A method that reaches its aim in the second epoch."""

    def ready(self, run: TrainingRun) -> bool:
        """From the second epoch on."""
        return run.epoch > 0


def test_only_an_epoch_that_is_ready_can_be_the_best(tmp_path: Path) -> None:
    figures = iter([0.5, 0.3, 0.4])
    result = fit(
        toy_detector(),
        ToyBatches(count=2),
        SETTINGS,
        folder=tmp_path,
        hooks=[Late()],
        evaluate=lambda _: toy_metrics(0, 0, 0, next(figures)),
    )
    assert (result.best_epoch, result.metrics["mAP50-95"]) == (2, 0.4)


class Poison(Hook):
    """Makes a weight NaN at the end of the first epoch."""

    def epoch_end(self, run: TrainingRun) -> None:
        if run.epoch == 1:
            next(run.network.parameters()).data.fill_(float("nan"))


def test_a_diverged_training_stops_with_a_sentence_and_keeps_the_last_good_state(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"NaN or infinite in epoch 3\. Lower lr0"):
        fit(toy_detector(), ToyBatches(), SETTINGS, folder=tmp_path, hooks=[Poison()])
    assert has_state(tmp_path)
    checkpoint = load_checkpoint(tmp_path / "weights" / "last.safetensors")
    assert all(value.isfinite().all() for value in checkpoint.tensors.values())


def test_frozen_blocks_keep_their_weights_and_thaw_afterwards(tmp_path: Path) -> None:
    detector, before = toy_detector(), toy_detector().state_dict()
    fit(detector, ToyBatches(), replace(SETTINGS, epochs=1, freeze=(2,)), folder=tmp_path)
    after = detector.state_dict()
    assert torch.equal(after["model.1.conv.weight"], before["model.1.conv.weight"])
    assert not torch.equal(after["model.2.cv1.conv.weight"], before["model.2.cv1.conv.weight"])
    assert all(parameter.requires_grad for parameter in detector.parameters())
    with pytest.raises(UserError, match="freeze names block 99"):
        fit(detector, ToyBatches(), replace(SETTINGS, freeze=(0, 99)), folder=tmp_path)


@pytest.mark.parametrize("optimizer", ["Adam", "AdamW"])
def test_other_optimizers_and_bf16_train(tmp_path: Path, optimizer: str) -> None:
    settings = replace(SETTINGS, epochs=1, optimizer=optimizer, amp="bf16", cos_lr=True)  # type: ignore[arg-type]
    result = fit(toy_detector(), ToyBatches(), settings, folder=tmp_path)
    assert result.rows[0]["train/box_loss"] > 0


def test_fp16_without_cuda_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="amp is fp16, which needs a CUDA device"):
        fit(toy_detector(), ToyBatches(), replace(SETTINGS, amp="fp16"), folder=tmp_path)


def test_multi_scale_draws_sizes_in_range_as_a_function_of_seed_and_batch() -> None:
    images = torch.rand(1, 3, 320, 256)
    shapes = [tuple(rescale(images, 320, 32, (0, i)).shape[2:]) for i in range(60)]
    assert shapes == [tuple(rescale(images, 320, 32, (0, i)).shape[2:]) for i in range(60)]
    assert {height % 32 for height, _ in shapes} | {width % 32 for _, width in shapes} == {0}
    assert min(shapes)[0] == 160 and max(shapes)[0] == 480


class Huge:
    """A loss term whose second batch is infinite."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, raw: Sequence[Tensor], targets: Tensor, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        self.calls += 1
        return raw[0].float().sum() * (float("inf") if self.calls == 2 else 0.0), {}


@pytest.mark.parametrize(
    "device",
    ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not CUDA, reason="needs CUDA")])],
)
def test_steps_that_the_fp16_scaler_skips_call_no_hook(
    tmp_path: Path, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Users are refused fp16 on a CPU, where it is slow; the scaler works there too.
    monkeypatch.setattr("secateur.training.session.choose_precision", lambda *_: "fp16")
    spy = Spy()
    settings = replace(SETTINGS, epochs=1, batch_size=64, amp="fp16", device=device, hyp=Hyp(warmup_epochs=0))
    fit(toy_detector(), ToyBatches(count=5), settings, folder=tmp_path, hooks=[spy], terms=[Huge()])
    assert (0, 2) not in [call[:2] for call in spy.before]
    assert spy.after == list(range(1, len(spy.before) + 1))
    assert max(spy.norms) <= 10.01
