"""What the latency tools call, in which order, and what they leave behind (times themselves are not tested)."""

from __future__ import annotations

import time

import pytest
import torch

from secateur.detector.model import Detector
from secateur.detector.topology import Topology
from secateur.errors import UserError
from secateur.evaluation.latency import BenchRow, Latency, bench_table, compare, predictor_call, random_images
from secateur.evaluation.predictor import TorchPredictor
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


def test_a_predictor_is_asked_for_rows() -> None:
    predictor = TorchPredictor(Detector(Topology.from_yaml("yolov5n", nc=1)))
    seen = []
    predictor.rows = lambda images, confidence: seen.append((tuple(images.shape), confidence)) or []
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


def test_the_table_shows_what_is_known() -> None:
    dense = BenchRow("dense.pt", "PyTorch", Latency(40.0, 39.0, 41.0, 30), 1.0, 1_766_623, 4.175, 3.9, 0.361)
    cut = BenchRow("cut.onnx", "ONNX Runtime", Latency(8.0, 7.5, 9.0, 30), 5.0, file_mb=0.131)
    lines = bench_table([dense, cut]).splitlines()
    assert lines[0].split() == [
        *("model", "runtime", "ms", "p10-p90", "images/s", "speed", "parameters", "GFLOPs", "MB", "mAP50-95")
    ]
    assert lines[1].split() == [
        *("dense.pt", "PyTorch", "40.00", "39.00-41.00", "25.0", "1.00x", "1,766,623", "4.17", "3.90", "0.361")
    ]
    assert lines[2].split() == ["cut.onnx", "ONNX", "Runtime", "8.00", "7.50-9.00", "125", "5.00x", "0.131"]
    assert "GFLOPs" not in bench_table([cut]) and "mAP50-95" not in bench_table([cut])
    assert cut.to_dict()["median_ms"] == 8 and cut.to_dict()["ratio"] == 5 and "latency" not in cut.to_dict()
