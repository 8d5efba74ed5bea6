"""Hyper-parameters, settings, schedules, optimizer groups, average, anchors, state, BatchNorm over processes."""

from __future__ import annotations

import copy
import math
import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from secateur.data.index import Counts, Index
from secateur.errors import UserError
from secateur.evaluation.metrics import ClassMetrics, Metrics
from secateur.families.detection.split import DetectionSplit
from secateur.families.family import predictor_of
from secateur.families.hyp import load_hyp
from secateur.families.loading import load_checkpoint
from secateur.families.yolov5.anchors import best_possible_recall, box_sizes, fit_anchors_
from secateur.families.yolov5.architecture import topology_of
from secateur.families.yolov5.hyp import YOLOv5Hyp
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import Topology
from secateur.families.yolov5.train_options import YOLOv5TrainOptions
from secateur.networks.checkpoint import Checkpoint, save_checkpoint
from secateur.training.batchnorm import CrossProcessBatchNorm2d, separate_batchnorm_, synchronise_batchnorm_
from secateur.training.distributed import rank_and_world
from secateur.training.hyp import Hyp
from secateur.training.loop import epoch_line
from secateur.training.optimization.ema import Ema
from secateur.training.optimization.optimizer import build_optimizer, parameter_groups, set_rates
from secateur.training.optimization.precision import choose_precision, full_precision
from secateur.training.optimization.schedules import Schedule
from secateur.training.results import HeldOutLoss, LossMeter, make_row
from secateur.training.settings import TrainSettings, under_present_names
from secateur.training.state import random_state, read_state, set_random_state, write_state
from toy_training import SETTINGS, ToyBatches, fit, toy_detector


def test_ready_made_hyper_parameters() -> None:
    assert load_hyp("scratch-low").completed(YOLOv5Hyp) == Hyp().completed(YOLOv5Hyp)
    assert load_hyp("scratch-low") == load_hyp("hyp.scratch-low.yaml")
    medium, high, tune = load_hyp("scratch-med"), load_hyp("scratch-high"), load_hyp("finetune")
    gains = medium.read(YOLOv5Hyp)
    assert (medium.lrf, gains.cls, gains.obj, medium.scale, medium.mixup) == (0.1, 0.3, 0.7, 0.9, 0.1)
    assert (high.copy_paste, medium.copy_paste) == (0.1, 0.0)
    assert (tune.lr0, tune.lrf, tune.momentum) == (0.001, 0.12, 0.843)
    assert (tune.read(YOLOv5Hyp).obj, tune.read(YOLOv5Hyp).anchor_t) == (0.301, 2.91)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr0: 0.01\nwarmup_epoch: 3\n", "warmup_epoch.*Did you mean warmup_epochs"),
        ("lr0: fast\n", "lr0 is 'fast', but must be a number"),
        ("lr0: true\n", "lr0 is True"),
        ("mosaic: 1.5\n", "mosaic is 1.5"),
        ("momentum: 1\n", "momentum is 1.0; it must be below 1"),
        ("lr0: -1\n", "lr0 is -1.0"),
        ("anchor_t: 1\n", "anchor_t is 1.0"),
        ("- 1\n", "is not a hyper-parameter file"),
        ("a: [\n", "line 2 is not valid YAML"),
    ],
)
def test_bad_hyper_parameter_files_are_named_with_their_key(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        load_hyp(file)
    assert str(file) in str(error.value)


def test_exponents_without_a_dot_are_numbers_and_missing_files_are_named(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("lr0: 1e-3\n")
    assert load_hyp(file).lr0 == 0.001
    with pytest.raises(UserError, match="scratch-low"):
        load_hyp("scratch-hihg")


@pytest.mark.parametrize(
    "option",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"image_size": -16},
        {"optimizer": "Lion"},
        {"amp": "fp8"},
        {"label_smoothing": 1.0},
        {"freeze": ()},
        {"patience": -1},
        {"wait_minutes": 0},
        {"val_every": -1},
    ],
    ids=str,
)
def test_bad_settings_are_refused_by_name(option: dict[str, object]) -> None:
    with pytest.raises(UserError, match=next(iter(option)).replace("_", "[-_]")):
        TrainSettings(**option)  # type: ignore[arg-type]


def test_schedule_of_rates_momentum_and_accumulation() -> None:
    schedule = Schedule(Hyp(), epochs=10, batches=50, batch_size=16)
    assert schedule.warmup == 150 and schedule.full_accumulate == 4
    assert schedule.weight_decay == pytest.approx(0.0005)
    assert schedule.learning_rates(0, 0) == (0.1, 0.0, 0.0)
    rate = 0.01 * (0.9 * 0.99 + 0.01)  # epoch 1
    assert schedule.learning_rates(75, 1) == pytest.approx((0.1 + (rate - 0.1) / 2, rate / 2, rate / 2))
    assert schedule.learning_rates(499, 9) == pytest.approx((0.01 * (0.1 * 0.99 + 0.01),) * 3)
    assert schedule.momentum(0) == 0.8 and schedule.momentum(150) == 0.937
    assert [schedule.accumulate(i) for i in (0, 24, 26, 75, 149, 150)] == [1, 1, 2, 2, 4, 4]
    cosine = Schedule(Hyp(), epochs=10, batches=50, batch_size=16, cosine=True)
    assert cosine.decay(0) == 1 and cosine.decay(5) == pytest.approx(0.505) and cosine.decay(10) == pytest.approx(0.01)
    assert Schedule(Hyp(), 100, 4, 16).warmup == 100
    assert Schedule(Hyp(), 10, 4, 16).warmup == 20, "a warm-up takes at most half of the training"
    assert Schedule(Hyp(), 10, 400, 128).weight_decay == pytest.approx(0.001)


def test_optimizer_groups_and_rates() -> None:
    detector = toy_detector()
    biases, weights, norms = parameter_groups(detector)
    norm_layers = sum(isinstance(module, nn.BatchNorm2d) for module in detector.modules())
    assert (len(biases), len(weights), len(norms)) == (norm_layers + 2, norm_layers + 2, norm_layers)
    assert sum(map(len, (biases, weights, norms))) == len(list(detector.parameters()))
    schedule = Schedule(Hyp(), epochs=10, batches=50, batch_size=16)
    for name in ("SGD", "Adam", "AdamW"):
        settings = TrainSettings(optimizer=name)  # type: ignore[arg-type]
        optimizer = build_optimizer(detector, settings, schedule, scaled=False)
        assert [group["weight_decay"] for group in optimizer.param_groups] == [0, pytest.approx(0.0005), 0]
        set_rates(optimizer, schedule, 0, 0)
        assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0, 0]
        first = optimizer.param_groups[0]
        assert first.get("momentum", first.get("betas", (0,))[0]) == 0.8


def test_average_follows_the_formula_on_every_floating_entry() -> None:
    detector = toy_detector()
    ema = Ema(detector)
    expected = {name: value.double() for name, value in detector.state_dict().items() if value.is_floating_point()}
    for update in range(1, 4):
        with torch.no_grad():
            for value in detector.state_dict().values():
                if value.is_floating_point():
                    value.add_(torch.randn_like(value))
        ema.update()
        decay = 0.9999 * (1 - math.exp(-update / 2000))
        for name, value in detector.state_dict().items():
            if name in expected:
                expected[name] = decay * expected[name] + (1 - decay) * value.double()
    for name, value in expected.items():
        torch.testing.assert_close(ema.network.state_dict()[name].double(), value, rtol=1e-5, atol=1e-6)
    other = Ema(toy_detector(1))
    other.load_state_dict(copy.deepcopy(ema.state_dict()))
    assert other.updates == 3
    assert all(torch.equal(v, other.network.state_dict()[k]) for k, v in ema.network.state_dict().items())


def index_of(sizes: list[tuple[float, float]], shape: tuple[int, int] = (320, 320)) -> Index:
    rows = np.array([[0, 0.5, 0.5, w / shape[1], h / shape[0]] for w, h in sizes], np.float32).reshape(-1, 5)
    shapes = np.array([shape] * 2, np.int32)
    offsets = np.array([0, len(rows) // 2, len(rows)])
    return Index(("a.jpg", "b.jpg"), shapes, rows, offsets, Counts(), (), "")


def test_anchors_that_reach_the_boxes_stay() -> None:
    detector = toy_detector()
    before = detector.head.anchors.clone()
    report = fit_anchors_(detector, index_of([(20, 25), (60, 50), (150, 140), (90, 120)]), 320, 4.0)
    assert not report.changed and report.before == 1 and "anchors kept" in str(report)
    assert torch.equal(detector.head.anchors, before)


def test_anchors_that_miss_are_evolved_reproducibly_and_ordered_by_level() -> None:
    rng = np.random.default_rng(0)
    sizes = [(200 * s, 12 * s) for s in rng.uniform(0.3, 1.5, 300)] + [
        (8 * s, 90 * s) for s in rng.uniform(0.5, 3, 300)
    ]
    detectors = [toy_detector(), toy_detector(1)]
    reports = [fit_anchors_(detector, index_of(sizes), 320, 4.0) for detector in detectors]
    assert reports[0] == reports[1]
    assert reports[0].before < 0.7 and reports[0].after > 0.98 and reports[0].changed
    pixels = detectors[0].head.anchors * torch.tensor(detectors[0].strides).view(-1, 1, 1)
    assert torch.equal(detectors[0].head.anchors, detectors[1].head.anchors)
    areas = pixels.prod(2).flatten()
    assert torch.equal(areas, areas.sort().values)
    measured = best_possible_recall(box_sizes(index_of(sizes), 320), pixels.double().numpy().reshape(-1, 2), 4.0)
    assert measured == pytest.approx(reports[0].after, abs=0.01)


@pytest.mark.parametrize("name", ["yolov5-p2", "yolov5n6", "yolov5n"])
@pytest.mark.parametrize("check", [True, False])
def test_a_number_of_anchors_means_computed_ones(name: str, check: bool, tmp_path: Path) -> None:
    """Even where the neutral ones that stand for them reach every box, and on all levels."""
    topology = Topology.from_yaml(name, nc=3, anchors=0 if name == "yolov5-p2" else 3)
    assert topology.anchors_pending
    topology = topology.with_widths(dict.fromkeys(topology.widths, 8))
    detector = Checkpoint.of(Detector(topology)).build()
    neutral = detector.head.anchors.clone()
    sizes = [(12.0 * 1.3**i, 18.0 * 1.3**i) for i in range(9)] * 3
    index = index_of(sizes)
    reached = best_possible_recall(box_sizes(index, 320), np.array(topology.anchors).reshape(-1, 2), 4.0)
    assert reached == 1
    settings = replace(SETTINGS, epochs=1, batch_size=4, image_size=320, own=YOLOv5TrainOptions(check))
    result = fit(detector, ToyBatches(count=1), settings, folder=tmp_path, split=DetectionSplit(index))
    anchors = detector.head.anchors
    assert not torch.equal(anchors, neutral) and anchors.shape == neutral.shape
    pixels = (anchors * torch.tensor(detector.strides).view(-1, 1, 1)).flatten(0, 1)
    assert torch.equal(pixels.prod(1), pixels.prod(1).sort().values)
    # They are as the boxes are: half as wide again as high.
    assert ((pixels[:, 1] / pixels[:, 0] - 1.5).abs() < 0.2).all()
    saved = load_checkpoint(result.last)
    assert not topology_of(saved).anchors_pending and torch.equal(saved.build().head.anchors, anchors.half().float())
    assert np.allclose(topology_of(saved).anchors, pixels.flatten().view(len(anchors), -1))


def test_computed_anchors_need_boxes_and_neutral_ones_are_told(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    topology = Topology.from_yaml("yolov5n", nc=3, anchors=2).with_widths(dict.fromkeys((16, 32, 64, 128, 256), 8))
    detector = Detector(topology)
    with pytest.raises(UserError, match="leaves the anchors to be computed, but the training images have no boxes"):
        fit_anchors_(detector, index_of([]), 320, 4.0)
    checkpoint = Checkpoint.of(detector)
    save_checkpoint(checkpoint, tmp_path / "fresh.safetensors")
    assert topology_of(load_checkpoint(tmp_path / "fresh.safetensors")).anchors_pending
    told = "The anchors are placeholders: the model file leaves them to be computed"
    predictor_of(checkpoint)
    assert caplog.text.count(told) == 1
    fit_anchors_(detector, index_of([(20, 20), (50, 50)]), 320, 4.0)
    predictor_of(detector)
    assert caplog.text.count(told) == 1


def test_box_sizes_scale_the_long_side() -> None:
    assert box_sizes(index_of([(64, 32), (10, 10)], (160, 320)), 640).tolist()[0] == pytest.approx([128, 64])


def test_state_survives_a_failed_write_and_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_state(tmp_path, {"value": torch.ones(2)})

    def full(*_: object, **__: object) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc] . PytorchStreamWriter failed writing file")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(UserError, match="Cannot write"):
            write_state(tmp_path, {"value": torch.zeros(2)})
    assert read_state(tmp_path)["value"].tolist() == [1, 1]
    assert [file.name for file in tmp_path.iterdir()] == ["state.pt"]

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "executed"),)

    (tmp_path / "state.pt").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(UserError, match="not a training state"):
        read_state(tmp_path)
    torch.save({"format": 1, "evil": Evil()}, tmp_path / "state.pt")
    with pytest.raises(UserError, match="not a training state"):
        read_state(tmp_path)
    assert not (tmp_path / "executed").exists()


def test_generators_are_restored(tmp_path: Path) -> None:
    write_state(tmp_path, {"generators": random_state()})
    first = (torch.rand(3).tolist(), np.random.rand(3).tolist())
    set_random_state(read_state(tmp_path)["generators"])
    assert (torch.rand(3).tolist(), np.random.rand(3).tolist()) == first


def test_batchnorm_is_exchanged_and_given_back_with_the_same_parameters() -> None:
    detector = toy_detector()
    before = dict(detector.named_parameters())
    synchronise_batchnorm_(detector, "cpu")
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in toy_detector().modules())
    assert sum(isinstance(module, CrossProcessBatchNorm2d) for module in detector.modules()) == norms
    separate_batchnorm_(detector)
    assert sum(type(module) is nn.BatchNorm2d for module in detector.modules()) == norms
    after = dict(detector.named_parameters())
    assert before.keys() == after.keys() and all(before[name] is after[name] for name in before)
    assert all(m.eps == 1e-3 and m.momentum == 0.03 for m in detector.modules() if isinstance(m, nn.BatchNorm2d))


def test_meter_counts_bad_batches_and_leaves_them_out() -> None:
    meter = LossMeter(torch.device("cpu"))
    meter.add({"box": torch.tensor(2.0), "obj": torch.tensor(4.0)})
    meter.add({"box": torch.tensor(float("nan")), "obj": torch.tensor(2.0)})
    assert float(meter.bad) == 1 and meter.means() == {"box": 1.0, "obj": 3.0}


def test_precision_and_processes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert choose_precision("off", "cpu") == "no" and choose_precision("bf16", "cpu") == "bf16"
    assert choose_precision("auto", "cpu") in ("no", "bf16")
    assert rank_and_world() == (0, 1)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert rank_and_world() == (1, 3)
    with pytest.raises(UserError, match="batch_size is 32"):
        fit(toy_detector(), ToyBatches(), SETTINGS, folder=tmp_path)
    monkeypatch.setenv("RANK", "3")
    with pytest.raises(UserError, match="torchrun"):
        rank_and_world()


def test_a_row_has_yolov5s_columns_and_the_line_of_an_epoch_short_names() -> None:
    found = Metrics.of((ClassMetrics(0, "a", 1, 1, 0.25, 0.5, 0.75, 0.125),), 1, 1)
    row = make_row(1, {"box": 0.5}, found, [0.01])
    assert row == {
        "epoch": 1, "train/box_loss": 0.5, "metrics/precision": 0.25, "metrics/recall": 0.5, "metrics/mAP_0.5": 0.75,
        "metrics/mAP_0.5:0.95": 0.125, "x/lr0": 0.01,
    }  # fmt: skip
    assert epoch_line(row, 3, found) == "epoch 2/3  box 0.5000  P 0.250  R 0.500  mAP50 0.750  mAP50-95 0.125"


def test_a_held_out_loss_is_better_when_it_is_lower() -> None:
    loss = HeldOutLoss(0.5)
    assert loss.fitness > HeldOutLoss(0.6).fitness > 0 and loss.to_dict() == {"held-out loss": 0.5}
    row = make_row(0, {"raw": 2.0}, loss, [])
    assert row == {"epoch": 0, "train/raw_loss": 2.0, "val/loss": 0.5}
    assert epoch_line(row, 3, loss) == "epoch 1/3  raw 2.0000  held-out 0.5000"


def test_options_saved_by_earlier_versions_get_their_present_names() -> None:
    assert under_present_names({"noautoanchor": True, "epochs": 3}) == {"autoanchor": False, "epochs": 3}
    assert under_present_names(SETTINGS.to_dict()) == SETTINGS.to_dict()


def test_full_precision_leaves_doubles_alone() -> None:
    kinds = {torch.float16: torch.float32, torch.bfloat16: torch.float32, torch.float64: torch.float64}
    assert all(full_precision(torch.ones(1, dtype=kind)).dtype == wanted for kind, wanted in kinds.items())
