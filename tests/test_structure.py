"""The shape of the code: import direction, lean imports, sizes of files and functions."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "secateur"
LEVELS = {
    "errors": 0, "files": 0, "registry": 0, "detector": 0, "data": 0,
    "pruning": 1, "evaluation": 1, "training": 1,
    "sparsity": 2, "distillation": 2, "deploy": 2, "report": 2,
    "stages": 3, "cli": 4, "api": 4,
}  # fmt: skip
PRIMITIVES = {"errors", "files", "registry"}
FILES = sorted(SOURCE.rglob("*.py"))


def part_of(file: Path) -> str:
    relative = file.relative_to(SOURCE)
    return relative.parts[0].removesuffix(".py")


def imported_parts(file: Path) -> set[str]:
    parts = set()
    for node in ast.walk(ast.parse(file.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        parts |= {name.split(".")[1] for name in names if name.startswith("secateur.")}
    return parts


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(SOURCE)))
def test_imports_go_down(file: Path) -> None:
    part = part_of(file)
    if part in {"__init__", "__main__"}:
        return
    for other in imported_parts(file) - {part}:
        below = LEVELS[other] < LEVELS[part] or other in PRIMITIVES
        assert below, f"{part} (level {LEVELS[part]}) imports {other} (level {LEVELS[other]})"


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(SOURCE)))
def test_files_and_functions_stay_small(file: Path) -> None:
    text = file.read_text()
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 90, f"{node.name} is too long"


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from secateur.cli import main; main(['--help']); "
        "print([m for m in ('torch', 'numpy', 'cv2', 'accelerate', 'tyro', 'rich') if m in sys.modules])"
    )
    output = run_python(code)
    assert "usage: secateur" in output
    assert output.strip().splitlines()[-1] == "[]"


def test_options_import_no_torch() -> None:
    assert run_python("import sys, secateur.stages.options; print('torch' in sys.modules)").strip() == "False"


def test_importing_the_package_touches_no_device() -> None:
    code = "import sys, secateur; print('torch' in sys.modules)"
    assert run_python(code).strip() == "False"


def test_no_attic() -> None:
    names = {part.removesuffix(".py") for file in FILES for part in file.relative_to(SOURCE).parts}
    assert not names & {"utils", "util", "helpers", "helper", "common", "misc"}
