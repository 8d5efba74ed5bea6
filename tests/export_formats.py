"""The formats whose files run here, for the tests that hold for every one of them."""

from __future__ import annotations

import pytest

from secateur.deploy.exporters import EXPORTERS


def _installed(name: str) -> object:
    missing = EXPORTERS[name].missing()
    return pytest.param(name, marks=pytest.mark.skipif(bool(missing), reason=f"{missing} is not installed"))


FORMATS = [_installed(name) for name in ("onnx", "openvino", "torchscript")]
