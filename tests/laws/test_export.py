"""Law 7: an exported file gives the outputs of the model that it came from, cut or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from secateur.deploy.exporters import export
from secateur.deploy.runtimes import open_predictor
from secateur.pruning.surgery import cut


def test_onnx_file_of_a_cut_network_gives_its_outputs(subject: Any, tmp_path: Path) -> None:
    small = cut(subject.detector, subject.graph, subject.random_plan(6))
    export(small, tmp_path / "small.onnx", subject.size)
    images = subject.images(1)
    with torch.no_grad():
        expected = small.predict(images)[0]
    found = open_predictor(tmp_path / "small.onnx").rows(images, -1.0)[0]
    torch.testing.assert_close(found[:, 4:], expected[:, 4:], rtol=0, atol=1e-3)
    torch.testing.assert_close(found[:, :4], expected[:, :4], rtol=1e-3, atol=1e-3)
