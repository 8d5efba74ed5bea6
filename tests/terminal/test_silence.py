"""What foreign tools are kept from; that the runtimes are, is tested with them."""

from __future__ import annotations

import os
import sys

import pytest

from secateur.terminal import without_telemetry

SWITCH = "ORT_DISABLE_TELEMETRY"


def test_it_lasts_as_long_as_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SWITCH, raising=False)
    monkeypatch.delitem(sys.modules, "openvino_telemetry", raising=False)
    with without_telemetry():
        assert os.environ[SWITCH] == "1"
        with pytest.raises(ImportError):
            import openvino_telemetry  # noqa: F401
    assert SWITCH not in os.environ and "openvino_telemetry" not in sys.modules


def test_what_the_user_has_said_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, "0")
    with without_telemetry():
        assert os.environ[SWITCH] == "0"
    assert os.environ[SWITCH] == "0"
