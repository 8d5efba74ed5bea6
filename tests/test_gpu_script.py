"""The driver of `benchmarks/gpu.py`: sections run alone, one that fails or hangs is noted, and the rest goes on."""

from __future__ import annotations

import argparse
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from working_folder import REPOSITORY

SCRIPT = REPOSITORY / "benchmarks" / "gpu.py"
FAKE = """
import json, sys, time
from pathlib import Path
name, out = sys.argv[sys.argv.index("--section") + 1], Path(sys.argv[sys.argv.index("--out") + 1])
if name == "rounds":
    print("out of memory", file=sys.stderr)
    raise SystemExit(3)
if name == "training":
    time.sleep(60)
checks = [{"name": "scores", "value": 0.5, "most": 0.1, "ok": name != "exports"}]
out.write_text(json.dumps({"figures": {"images_per_second": 12.5}, "checks": checks, "device": "a GPU"}))
"""


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    fake = tmp_path / "fake.py"
    fake.write_text(FAKE)
    monkeypatch.setattr(module, "__file__", str(fake))
    return module


def run(driver: ModuleType, monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[Any, dict[str, Any]]:
    monkeypatch.setattr(driver.sys, "argv", ["gpu.py", "--out", "gpu.json", *words])
    with pytest.raises(SystemExit) as end:
        driver.main()
    return end.value.code, json.loads(Path("gpu.json").read_text())["sections"]


def test_what_fails_or_hangs_is_noted_and_the_rest_goes_on(
    driver: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(driver.LIMITS, "training", 6.0)
    code, sections = run(driver, monkeypatch, "--only", "rounds,training,exports,validation")
    assert code == 1 and list(sections) == ["rounds", "training", "exports", "validation"]
    assert "ended with code 3" in sections["rounds"]["error"] and "out of memory" in sections["rounds"]["said"]
    assert "took more than its limit of 6 s" in sections["training"]["error"]
    assert not sections["exports"]["ok"] and sections["validation"]["ok"]
    assert sections["validation"]["figures"] == {"images_per_second": 12.5}
    out = capsys.readouterr().out
    assert "FAILED: it ended with code 3. out of memory" in out and "DIFFERS: scores" in out and "1 checks hold" in out


def test_nothing_begins_after_the_time(driver: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    code, sections = run(driver, monkeypatch, "--only", "validation", "--seconds", "1")
    assert code == 1 and sections["validation"]["error"] == "no time was left"


def test_all_sections_fit_into_nine_minutes(driver: ModuleType) -> None:
    assert sum(driver.LIMITS.values()) <= 540
    options: argparse.Namespace = driver.options_of([])
    assert options.only == list(driver.LIMITS) and options.device == "cuda"
    with pytest.raises(SystemExit):
        driver.options_of(["--only", "sleep"])
