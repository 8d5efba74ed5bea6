"""Law 7: an exported file gives the outputs of the model that it came from, cut or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from export_formats import FORMATS, answered, expected_of
from secateur.deploy.exporters import EXPORTERS, export
from secateur.deploy.runtimes import open_predictor
from secateur.deploy.settings import ExportSettings
from secateur.pruning.surgery import cut


@pytest.mark.parametrize("kind", FORMATS)
def test_file_of_a_cut_network_gives_its_outputs(subject: Any, kind: str, tmp_path: Path) -> None:
    small = cut(subject.detector, subject.graph, subject.random_plan(6))
    file = tmp_path / f"small{EXPORTERS[kind].suffix}"
    export(small, file, subject.size, ExportSettings(format=kind))
    images = subject.images(1)
    expected = expected_of(small, images)[0]
    found = answered(open_predictor(file), images)[0]
    torch.testing.assert_close(found[:, 4:], expected[:, 4:], rtol=0, atol=1e-3)
    torch.testing.assert_close(found[:, :4], expected[:, :4], rtol=1e-3, atol=1e-3)
