"""What the latency tools call, in which order, and what they leave behind (times themselves are not tested)."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch

from secateur.errors import UserError
from secateur.evaluation.latency import Latency, compare, predictor_call, random_images
from secateur.families.detection.predictor import TorchPredictor
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import Topology
from secateur.machine import cpu_threads


def test_calls_take_turns_and_swap_places() -> None:
    order: list[str] = []
    result = compare({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, runs=4, warmup=1)
    assert "".join(order) == "ab" + "ab" + "ba" + "ab" + "ba"
    assert result.latencies["a"].runs == 4 and result.ratios["a"] == 1


def test_ratio_says_how_many_times_faster() -> None:
    result = compare({"slow": lambda: time.sleep(0.01), "fast": lambda: time.sleep(0.001)}, runs=5, warmup=0)
    assert result.ratios["fast"] > 1
    slow = result.latencies["slow"]
    assert slow.p10 <= slow.median_ms <= slow.p90


@pytest.mark.parametrize(("asked", "threads"), [(3, 3), (0, cpu_threads())])
def test_threads_are_those_that_are_granted_and_are_put_back(asked: int, threads: int) -> None:
    before = torch.get_num_threads()
    seen: list[int] = []
    try:
        torch.set_num_threads(2)
        compare({"": lambda: seen.append(torch.get_num_threads())}, runs=2, warmup=0, threads=asked)
        assert seen == [threads] * 2 and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_predictor_infers() -> None:
    predictor = TorchPredictor(Detector(Topology.from_yaml("yolov5n", nc=1)))
    seen = []
    predictor.infer = lambda images, confidence: seen.append((tuple(images.shape), confidence)) or []
    predictor_call(predictor, random_images((64, 96), 2))()
    assert seen == [((2, 3, 64, 96), 0.25)]
    assert torch.equal(random_images(32), random_images(32)) and random_images(32).max() <= 1


@pytest.mark.parametrize("options", [{"runs": 0}, {"warmup": -1}, {"threads": -1}])
def test_senseless_options_are_refused(options) -> None:
    with pytest.raises(UserError):
        compare({"": lambda: None}, **options)


def test_images_a_second_count_the_batch() -> None:
    assert Latency(20.0, 19.0, 22.0, runs=3, images=4).images_per_second == pytest.approx(200)
    assert Latency(20.0, 19.0, 22.0, runs=3).to_dict() == pytest.approx(
        {"median_ms": 20, "p10": 19, "p90": 22, "runs": 3, "images": 1, "images_per_second": 50}
    )


def test_each_call_has_its_own_baseline_and_counts_its_images(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    def takes(seconds: float) -> Callable[[], None]:
        def call() -> None:
            clock[0] += seconds

        return call

    told: list[int] = []
    result = compare(
        {"a": takes(0.4), "b": takes(0.2), "c": takes(0.1), "d": takes(0.1)},
        runs=3,
        warmup=1,
        images={"a": 1, "b": 1, "c": 1, "d": 4},
        baselines={"a": "a", "b": "a", "c": "c", "d": "c"},
        done=told.append,
    )
    assert result.ratios == pytest.approx({"a": 1, "b": 2, "c": 1, "d": 4})
    assert result.latencies["d"].images_per_second == pytest.approx(40) and told == [4] * 4
