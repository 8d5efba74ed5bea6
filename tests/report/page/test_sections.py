"""Every section where its data is, one sentence where it is not, and figures that say what they show."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from run_folders import STAGES, about, cliff, killed_run, stage_row, whole_run, write

from secateur.report.page.blocks import Chart, Section
from secateur.report.page.model import RunData, read_runs
from secateur.report.page.reference import ReferencePoint, published
from secateur.report.page.sections.classes import classes
from secateur.report.page.sections.cliff import cliff as cliff_section
from secateur.report.page.sections.distributions import distributions
from secateur.report.page.sections.headline import headline
from secateur.report.page.sections.latency import latency
from secateur.report.page.sections.pareto import pareto
from secateur.report.page.sections.settings import settings
from secateur.report.page.sections.stages import stages
from secateur.report.page.sections.training import training
from secateur.report.page.sections.widths import widths

ALL: tuple[Callable[[Sequence[RunData]], Section], ...] = (
    headline, stages, pareto, cliff_section, classes, widths, training, latency, settings,
)  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> RunData:
    return read_runs([whole_run(tmp_path / "exp")])[0]


def charts(section: Section) -> list[Chart]:
    return [block for block in section.blocks if isinstance(block, Chart)]


def texts(section: Section) -> str:
    return " ".join(getattr(block, "text", "") for block in section.blocks)


@pytest.mark.parametrize("section", ALL, ids=lambda section: section.__name__)
def test_a_whole_run_has_the_section(section: Callable[[Sequence[RunData]], Section], run: RunData) -> None:
    found = section([run])
    assert not found.absent and found.blocks
    for chart in charts(found):
        assert chart.summary.endswith(".") and chart.first() in chart.views
        assert all(view.traces for view in chart.views.values())


@pytest.mark.parametrize("section", [cliff_section, classes, widths, distributions, latency, training, pareto])
def test_without_its_data_the_section_says_why(section: Callable[[Sequence[RunData]], Section], tmp_path: Path) -> None:
    row = stage_row("x", 0.5, 1.0)
    write(tmp_path / "exp" / "summary.json", {"command": "train", "model": row["model"]})
    found = section(read_runs([tmp_path / "exp"]))
    assert found.absent.endswith(".") and not found.blocks


def test_the_headline_says_what_is_kept_and_what_it_costs(run: RunData) -> None:
    text = texts(headline([run]))
    assert "keeps 98.8 % of mAP50 (0.790 of 0.800)" in text
    assert "with 50 % of the FLOPs and 50 % of the parameters" in text
    assert "at 4.00 instead of 8.00 ms per image (2.0 times as fast)" in text
    assert "Recipe quick · budget flops 0.5 · network best.pt · data shapes (40 train and 10 val images)" in text


def test_a_killed_run_says_what_is_missing(tmp_path: Path) -> None:
    runs = read_runs([killed_run(tmp_path / "exp")])
    lines = [line for block in headline(runs).blocks for line in getattr(block, "lines", ())]
    assert lines == [
        "The run has not ended: finetune (2 epochs) is missing. The page shows its results so far."
    ]  # fmt: skip
    assert [row[0].text for row in stages(runs).blocks[0].cells()] == ["dense", "cut + repair"]


def test_different_data_sets_are_said(tmp_path: Path) -> None:
    first = whole_run(tmp_path / "a")
    same, other = whole_run(tmp_path / "b"), whole_run(tmp_path / "c", data="/data/masks/data.yaml")
    assert "different data sets" not in texts(headline(read_runs([first, same])))
    text = texts(headline(read_runs([first, other])))
    assert (
        "different data sets (a on shapes and c on masks), so only their costs are comparable, not their scores" in text
    )


def test_the_table_has_changes_and_shares(run: RunData) -> None:
    table = stages([run]).blocks[0]
    row = table.cells()[-1]
    cells = dict(zip(table.titles, row, strict=True))
    assert (cells["mAP50"].text, cells["mAP50"].note) == ("0.790", "−0.010")
    assert (cells["GFLOPs"].text, cells["GFLOPs"].note, cells["GFLOPs"].look) == ("1.00", "50 %", "strong")
    assert "Zeros" not in table.titles


def test_sizes_of_objects_have_columns_where_they_were_measured(tmp_path: Path) -> None:
    folder = whole_run(tmp_path / "exp")
    summary = json.loads((folder / "summary.json").read_text())
    summary["table"][0]["ap_by_size"] = {"AP small": 0.2, "AP medium": 0.4, "AP large": None}
    summary["table"][2]["ap_by_size"] = {"AP small": 0.25, "AP medium": 0.4, "AP large": None}
    write(folder / "summary.json", summary)
    table = stages(read_runs([folder])).blocks[0]
    assert "AP small" in table.titles and "AP large" not in table.titles
    cells = dict(zip(table.titles, table.cells()[-1], strict=True))
    assert (cells["AP small"].text, cells["AP small"].note) == ("0.250", "+0.050")


def test_several_runs_are_in_one_table(tmp_path: Path) -> None:
    runs = read_runs([whole_run(tmp_path / name) for name in ("a", "b")])
    rows = stages(runs).blocks[0].cells()
    assert [row[0].text for row in rows if len(row) == 1] == ["a", "b"]
    assert len(rows) == 2 + 2 * len(STAGES)


def test_the_plot_of_cost_has_every_kind_and_choice(run: RunData) -> None:
    (chart,) = charts(pareto([run], [ReferencePoint("yolov5n", "YOLOv5", {"mAP50": 0.4, "gflops": 4.5})]))
    names = [trace["name"] for trace in chart.views["gflops|mAP50"].traces]
    assert names == ["YOLOv5", "candidates", "dense", "pruned", "fine-tuned"]
    assert [trace["name"] for trace in chart.views["ms|mAP50_95"].traces] == ["dense", "pruned", "fine-tuned"]
    assert [value for value, _ in chart.choices[0].options] == ["ms", "gflops", "parameters", "mb"]


def test_published_figures_only_on_coco(tmp_path: Path, run: RunData) -> None:
    assert all("YOLOv5" not in str(view) for chart in charts(pareto([run])) for view in chart.views.values())
    folder = whole_run(tmp_path / "coco")
    data = {"file": "/data/coco.yaml", "splits": {"val": 5000}, "classes": ["person"]}
    write(folder / "about.json", about() | {"data": data})
    (chart,) = charts(pareto(read_runs([folder])))
    names = [trace["name"] for trace in chart.views["gflops|mAP50_95"].traces]
    assert names[:4] == ["YOLOv5", "YOLOv8", "YOLO11", "YOLO26"]
    assert {point.line for point in published()} == set(names[:4])


def test_points_of_a_pareto_file(tmp_path: Path) -> None:
    points = [
        {"label": "half", "network": "yolov5s", "kind": "pruned", "mAP50": 0.7, "mAP50_95": 0.4, "parameters": None,
         "gflops": 2.0, "mb": None, "ms": 3.5, "file": "half.safetensors"}
    ]  # fmt: skip
    write(tmp_path / "exp" / "pareto.json", {"points": points, "knee": "half"})
    (chart,) = charts(pareto(read_runs([tmp_path / "exp"])))
    assert set(chart.views) == {"ms|mAP50_95", "ms|mAP50", "gflops|mAP50_95", "gflops|mAP50"}
    assert chart.views["ms|mAP50"].traces[0]["customdata"] == ["yolov5s: half"]


def test_the_cliff_curve_masked_and_corrected(run: RunData, tmp_path: Path) -> None:
    (chart,) = charts(cliff_section([run]))
    names = [trace["name"] for trace in chart.views[""].traces]
    assert names == ["mAP50, masked", "mAP50-95, masked", "mAP50, corrected"]
    assert chart.views[""].traces[2]["y"] == [0.8, pytest.approx(0.65), 0.55]
    assert "the plan removes 30.0 %, where mAP50, masked is 0.500" in chart.summary
    folder = whole_run(tmp_path / "masked")
    write(folder / "cliff.json", cliff(corrected=False))
    (chart,) = charts(cliff_section(read_runs([folder])))
    assert len(chart.views[""].traces) == 2


def test_a_sweep(tmp_path: Path) -> None:
    rows = [{"percent": p, "removed": p, "mAP50": 0.8 - p, "mAP50-95": 0.4 - p / 2, "parameters": 100, "gflops": 1.0}
            for p in (0.0, 0.2, 0.4)]  # fmt: skip
    rows[1]["cut_mAP50"] = 0.6
    row = stage_row("x", 0.8, 1.0)
    summary = {"command": "sweep", "metrics": row["metrics"], "model": row["model"], "table": rows, "knee": 0.2}
    write(tmp_path / "exp" / "summary.json", summary | {"cliff": 0.2})
    runs = read_runs([tmp_path / "exp"])
    assert "accuracy falls steeply beyond 20 % (mAP50 0.800 dense, 0.400 at 40 %)" in texts(headline(runs))
    (chart,) = charts(cliff_section(runs))
    assert [trace["name"] for trace in chart.views[""].traces] == ["mAP50, masked", "mAP50-95, masked", "mAP50, cut"]
    (chart,) = charts(pareto(runs))
    assert [trace["name"] for trace in chart.views["gflops|mAP50"].traces] == ["candidates", "dense"]


def test_widths_say_kept_of_total(run: RunData) -> None:
    (chart,) = charts(widths([run]))
    removed, kept = chart.views[""].traces
    assert (removed["y"], kept["y"]) == ([16, 32], [8, 32])
    assert kept["customdata"][0] == "model.0.conv<br>8 of 16 channels"
    assert chart.summary.startswith("1 of 2 layers are narrower; 83 % of all channels are kept.")


def test_scores_of_units(run: RunData) -> None:
    scores = {"criterion": "fisher", "scores": [1e-6, 1e-3, 0.0, 1e-2], "kept": [False, True, False, True],
              "layers": {"model.0.conv": {"kept": 1e-3, "removed": 1e-6}}}  # fmt: skip
    write(run.folder / "scores.json", scores)
    (chart,) = charts(distributions([run]))
    assert chart.summary.startswith("2 of 4 units are kept")
    assert sum(sum(trace["y"]) for trace in chart.views[""].traces) == 4
    (chart,) = charts(widths([run]))
    assert "median score: kept 1.00e-03, removed 1.00e-06" in chart.views[""].traces[0]["customdata"][0]


def test_learning_curves_of_every_training(run: RunData) -> None:
    (chart,) = charts(training([run]))
    assert [trace["name"] for trace in chart.views["metrics/mAP_0.5"].traces] == ["train", "finetune"]
    assert chart.summary.startswith("train: 4 epochs, best mAP50-95 0.150 in epoch 4.")


def test_settings_tell_how_to_make_it_again(run: RunData) -> None:
    blocks = settings([run]).blocks
    lines = [line for block in blocks for line in getattr(block, "lines", ())]
    assert lines == ["secateur run --weights best.pt", "Clamped: model.0 keeps 8.", "The disk is slow"]
    pairs = {title: dict(block.pairs) for block in blocks if (title := getattr(block, "title", ""))}
    assert pairs["Settings"] == {"seed": "0", "train.epochs": "2"}
    assert pairs["Machine"]["processor"] == "A processor" and "cliff.json" in pairs["Files"]


def test_candidates_of_a_search_have_a_plot_of_their_own(run: RunData) -> None:
    entries = [("threshold", 0.3), ("random", -1.7e308), ("evolved", 0.45)]
    candidates = [{"origin": origin, "kept": [1], "share": 0.5, "fitness": value} for origin, value in entries]
    write(run.folder / "search.json", {"key": "", "dropped": 0, "candidates": candidates})
    _, chart = charts(pareto([run]))
    assert [trace["name"] for trace in chart.views[""].traces] == ["threshold", "evolved"]
    assert chart.summary.startswith("Of 2 candidates, number 2 (evolved) is best with 0.450. The first one")


def test_times_that_scatter_are_said(run: RunData) -> None:
    def notices() -> list[str]:
        return [line for block in headline([run]).blocks for line in getattr(block, "lines", ())]

    assert not notices()
    run.notes["latency_samples"]["final"] = [1.0, 1.0, 60.0, 60.0]  # type: ignore[index]
    assert notices()[0].startswith("The times of final vary by more than a factor of two")


def test_the_interval_of_the_change_is_said(run: RunData) -> None:
    part = {"reference": 0.4, "value": 0.39, "low": -0.03, "high": 0.01, "above": 0.3, "resamples": 100}
    summary = {**run.summary, "difference": {"of": "fine-tuned", "against": "dense", "images": 10,
                                             "mAP50": part, "mAP50-95": part}}  # fmt: skip
    text = texts(headline([replace(run, summary=summary)]))
    assert "Difference to dense: " in text and "-0.010 (-0.030 to +0.010), within noise" in text
    assert "95 % intervals from resampling the 10 validation images" in text
