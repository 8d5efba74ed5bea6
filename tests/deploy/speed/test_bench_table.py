"""The tables of a comparison."""

from __future__ import annotations

from secateur.deploy.profiling import LayerTime
from secateur.deploy.speed.reasons import Machine
from secateur.deploy.speed.table import BenchRow, bench_table, layer_table, layer_tables, layers_to_dict
from secateur.evaluation.cost import LayerWork
from secateur.evaluation.latency import Latency

MACHINE = Machine(16, 1.0)
CONV = LayerWork("conv 3x3", 16, 32, (20, 20), 4_000_000, 19_200, 4608)
CUT = LayerWork("conv 3x3", 16, 20, (20, 20), 2_500_000, 14_400, 2880)
DENSE = [LayerTime("model.0.conv", "conv 3x3", 0.1, CONV), LayerTime("model.1", "concat", 0.3)]
SMALL = [LayerTime("model.0.conv", "conv 3x3", 0.05, CUT), LayerTime("(outputs)", "decode", 0.05)]


def test_the_table_shows_what_is_known() -> None:
    known = (1_766_623, 4.175, 3.9, 0.361, "mAP50-95")
    dense = BenchRow("dense.pt", "PyTorch", Latency(40.0, 39.0, 41.0, 30), 1.0, 1.0, *known)
    cut = BenchRow("cut.onnx", "ONNX Runtime", Latency(8.0, 7.5, 9.0, 30), 5.0, file_mb=0.131, note="fixed batch of 1")
    lines = bench_table([dense, cut]).splitlines()
    assert lines[0].split() == [
        *("model", "runtime", "ms", "p10-p90", "images/s", "speed", "FLOPs", "parameters", "GFLOPs", "MB", "mAP50-95")
    ]
    assert lines[1].split() == [
        *("dense.pt", "PyTorch", "40.00", "39.00-41.00", "25.0", "1.00x", "1.00x", "1,766,623", "4.17", "3.90", "0.361")
    ]
    assert lines[2].split() == [
        *("cut.onnx", "ONNX", "Runtime", "8.00", "7.50-9.00", "125", "5.00x", "0.131", "fixed", "batch", "of", "1")
    ]
    assert "GFLOPs" not in bench_table([cut]) and "mAP50-95" not in bench_table([cut])
    assert cut.to_dict()["median_ms"] == 8 and cut.to_dict()["ratio"] == 5 and "latency" not in cut.to_dict()


def test_a_line_a_layer() -> None:
    lines = layer_table(DENSE, MACHINE).splitlines()
    assert lines[0].split() == ["layer", "kind", "width", "map", "GFLOPs", "ms", "share", "GFLOP/s"]
    assert lines[1].split() == [
        *["model.0.conv", "conv", "3x3", "16", "->", "32", "20x20", "0.004", "0.100", "25.0%", "40"]
    ]
    assert lines[2].split() == ["model.1", "concat", "0.300", "75.0%"] and lines[3] == "0.40 ms in total"
    # Four images do four times the work in a call.
    assert layer_table(DENSE, Machine(16, 1.0, 4)).splitlines()[1].endswith("160")


def test_two_detectors_beside_each_other() -> None:
    lines = layer_tables(DENSE, SMALL, MACHINE).splitlines()
    start = "model.0.conv conv 3x3 16 -> 32 16 -> 20 20x20 0.004 0.100 25.0% 40 0.003"
    assert " ".join(lines[1].split()).startswith(start) and lines[1].endswith("2.00x  off the block")
    assert lines[2].split() == ["model.1", "concat", "0.300", "75.0%"]
    assert lines[3].split() == ["(outputs)", "decode", "0.050", "50.0%"]
    assert lines[4] == "0.40 ms and 0.10 ms in total"


def test_layers_as_data() -> None:
    first, second = layers_to_dict(SMALL, MACHINE)
    assert first == {
        "layer": "model.0.conv", "kind": "conv 3x3", "ms": 0.05, "reads": 16, "emits": 20, "map": [20, 20],
        "gflops": 0.0025, "flags": "off the block",
    }  # fmt: skip
    assert second == {"layer": "(outputs)", "kind": "decode", "ms": 0.05, "flags": ""}
