"""What the latency tools call, in which order, and what they leave behind (times themselves are not tested)."""

from __future__ import annotations

import time

import pytest
import torch

from secateur.errors import UserError
from secateur.evaluation.latency import compare, latency, network_call


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


def test_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    seen: list[int] = []
    latency(lambda: seen.append(torch.get_num_threads()), runs=2, warmup=0, threads=before + 1)
    assert seen == [before + 1] * 2 and torch.get_num_threads() == before


def test_a_network_is_called_without_gradients() -> None:
    network = torch.nn.Conv2d(3, 4, 3)
    seen: list[bool] = []
    network.register_forward_hook(lambda module, inputs, output: seen.append(output.requires_grad))
    network_call(network, torch.zeros(1, 3, 8, 8))()
    assert seen == [False]


@pytest.mark.parametrize("options", [{"runs": 0}, {"warmup": -1}, {"threads": 0}])
def test_senseless_options_are_refused(options) -> None:
    with pytest.raises(UserError):
        latency(lambda: None, **options)
