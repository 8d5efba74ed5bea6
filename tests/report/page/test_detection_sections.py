"""What the page makes of kept detections: images of disagreement, rates at one confidence, curves and confusion."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from run_folders import killed_run, whole_run, with_detections

from secateur.report.page.blocks import Chart
from secateur.report.page.detections import compared_records, disagreement, signature_of
from secateur.report.page.model import RunData, read_runs
from secateur.report.page.sections.curves import curves
from secateur.report.page.sections.gallery import Gallery, gallery
from secateur.report.page.sections.headline import headline
from secateur.report.page.sections.operating import operating, rates_of


@pytest.fixture
def run(tmp_path: Path) -> RunData:
    return read_runs([with_detections(whole_run(tmp_path / "exp"), tmp_path / "set")])[0]


def galleries(runs: list[RunData]) -> list[Gallery]:
    return [block for block in gallery(runs).blocks if isinstance(block, Gallery)]


def test_images_of_disagreement_come_first(run: RunData) -> None:
    (_, dense), (_, final) = compared_records(run)
    assert disagreement(dense, final, 0.25).tolist() == [0, 1, 4, 0]
    (shown,) = galleries([run])
    assert [image.name for image in shown.images] == [f"images/{number}.png" for number in (2, 1, 0, 3)]
    assert gallery([run]).blocks[0].text == (
        "dense and fine-tuned disagree on 2 of 4 images; the 4 with the largest differences are shown."
    )


def test_an_image_has_its_labels_and_the_boxes_of_both(run: RunData) -> None:
    (shown,) = galleries([run])
    worst, second = shown.images[:2]
    assert (worst.width, worst.height) == (400, 300)
    assert worst.uri.startswith(("data:image/webp;base64,", "data:image/jpeg;base64,"))
    assert [(panel.title, panel.words) for panel in worst.panels] == [
        ("labels", "2 objects"), ("dense", "2 of 2 found"), ("fine-tuned", "0 of 2 found"),
    ]  # fmt: skip
    assert [box.look for box in worst.panels[2].boxes] == ["missed", "missed"]
    first = worst.panels[1].boxes[0]
    assert (first.x, first.y, first.width, first.height) == (62.5, 50.0, 100.0, 150.0)
    assert first.words == "disc 0.90" and first.label == (63.5, 47.0)
    assert second.panels[2].words == "2 of 2 found, 1 spurious"
    assert [box.look for box in second.panels[2].boxes] == ["hit", "hit", "spurious"]


def test_images_that_are_gone_are_said(run: RunData, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "set")
    assert not galleries([run])
    assert "The images are no longer in" in gallery([run]).blocks[0].text


def test_runs_over_the_same_images_share_a_gallery(run: RunData, tmp_path: Path) -> None:
    other = with_detections(whole_run(tmp_path / "other"), tmp_path / "set")
    runs = read_runs([run.folder, other])
    assert signature_of(runs[0]) == signature_of(runs[1])
    (shown,) = galleries(runs)
    titles = [panel.title for panel in shown.images[0].panels]
    assert titles == ["labels", "exp: dense", "exp: fine-tuned", "other: fine-tuned"]


def test_data_sets_are_told_apart_by_their_content(run: RunData, tmp_path: Path) -> None:
    other = with_detections(whole_run(tmp_path / "other", data="/elsewhere/data.yaml"), tmp_path / "set")
    runs = read_runs([run.folder, other])
    assert not any("different data sets" in getattr(block, "text", "") for block in headline(runs).blocks)


def test_a_killed_run_shows_what_the_dense_network_misses(tmp_path: Path) -> None:
    folder = with_detections(killed_run(tmp_path / "exp"), tmp_path / "set")
    section = gallery(read_runs([folder]))
    assert section.blocks[0].text == "dense detects all objects without false boxes; 4 images are shown."
    assert len(section.blocks[1].images[0].panels) == 2


def test_rates_at_one_confidence(run: RunData) -> None:
    records = dict(compared_records(run))
    assert rates_of(records["dense"], 0.25) == {"disc": (4, 1.0, 1.0), "star": (4, 1.0, 1.0)}
    assert rates_of(records["fine-tuned"], 0.25) == {"disc": (4, 0.75, 0.75), "star": (4, 1.0, 0.75)}
    assert rates_of(records["fine-tuned"], 0.5)["disc"] == (4, 1.0, 0.75)
    chart = operating([run]).blocks[0]
    assert isinstance(chart, Chart) and len(chart.views) == 6
    assert "fine-tuned detects 75.0 % of 8 objects" in chart.summary


def test_curves_and_confusion(run: RunData) -> None:
    recall, confusion = curves([run]).blocks
    assert recall.summary == "The area under the mean curve (mAP50) is 1.000 for dense and 0.752 for fine-tuned."
    assert set(recall.views) == {"-1", "0", "1"}
    assert confusion.views["1"].traces[0]["customdata"] == [[3, 0, 1], [0, 3, 0], [1, 1, 0]]
    assert (
        "fine-tuned: of 8 objects, 6 are detected with their class, 0 with another, and 2 are missed"
        in confusion.summary
    )


def test_a_damaged_record_is_noted(run: RunData) -> None:
    (run.folder / "evaluation" / "dense" / "detections.npz").write_bytes(b"no record")
    assert [title for title, _ in compared_records(run)] == ["fine-tuned"]
    assert any("detections.npz is not a detection record" in line for line in run.unreadable)


def test_without_detections_three_sections_say_so(tmp_path: Path) -> None:
    runs = read_runs([whole_run(tmp_path / "exp")])
    for section in (gallery, operating, curves):
        assert "detections.npz" in section(runs).absent
