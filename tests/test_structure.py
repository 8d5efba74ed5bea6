"""The shape of the code: import direction, no circles, lean imports, sizes of files, functions and folders."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "secateur"
LEVELS = {
    "errors": 0, "files": 0, "registry": 0, "machine": 0, "layers": 0,
    "limits": 0, "terminal": 0, "ranges": 0, "scores": 0, "sizes": 0, "yaml_files": 0,
    "networks": 0, "data": 0,
    "pruning": 1, "evaluation": 1, "training": 1,
    "sparsity": 2, "distillation": 2, "families": 3,
    "deploy": 4, "report": 4, "prediction": 4,
    "checkpoints": 5, "steps": 6, "runs": 7, "commands": 8, "api": 8, "flags": 8, "ultralytics": 8, "cli": 9,
}  # fmt: skip
PRIMITIVES = {
    "errors", "files", "registry", "machine", "layers", "limits", "terminal", "ranges", "scores", "sizes", "yaml_files",
}  # fmt: skip
# pruning works on any network; what a checkpoint or a data set is, it does not know.
FORBIDDEN = {"pruning": {"networks", "data"}}
FILES = sorted(SOURCE.rglob("*.py"))


def module_of(file: Path) -> str:
    parts = file.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(file): file for file in FILES}


def part_of(module: str) -> str:
    names = module.split(".")
    return names[1] if len(names) > 1 else "__init__"


def imports_of(file: Path) -> set[str]:
    """Modules of ours that a file names in any import, also inside functions and under TYPE_CHECKING."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("secateur"):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in MODULES else node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("secateur")}
    return found - {module_of(file)}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_go_down(module: str) -> None:
    part = part_of(module)
    if part in {"__init__", "__main__"}:
        return
    for other in {part_of(name) for name in imports_of(MODULES[module])} - {part, "__init__"}:
        below = LEVELS[other] < LEVELS[part] or other in PRIMITIVES
        assert below, f"{part} (level {LEVELS[part]}) imports {other} (level {LEVELS[other]})"
        assert other not in FORBIDDEN.get(part, set())


def test_one_family_is_known_in_its_folder_alone() -> None:
    """Everything else asks the family of a network; the registry finds the folder by itself."""
    own = SOURCE / "families" / "yolov5"
    for module, file in MODULES.items():
        if own in file.parents:
            continue
        assert not re.search("anchor|objectness", file.read_text(), re.IGNORECASE), module
        named = {name for name in imports_of(file) if name.startswith("secateur.families.yolov5")}
        assert not named, f"{module} imports {', '.join(named)}"


def test_no_file_imports_another_that_imports_it_back() -> None:
    graph = {module: imports_of(file) & set(MODULES) for module, file in MODULES.items()}
    # The package's face loads the API when it is first used; nothing inside reads it but for the version.
    graph["secateur"] = set()
    done: set[str] = set()

    def walk(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module in done:
            return
        for other in sorted(graph[module]):
            walk(other, (*path, module))
        done.add(module)

    for module in sorted(graph):
        walk(module, ())


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(SOURCE)))
def test_files_and_functions_stay_small(file: Path) -> None:
    text = file.read_text()
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            first = node.body[0]
            described = first if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) else None
            docstring = (described.end_lineno or 0) - described.lineno + 1 if described else 0
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno - docstring <= 63, f"{node.name} is too long"


@pytest.mark.parametrize("folder", sorted({file.parent for file in FILES}), ids=lambda f: f.name)
def test_folders_stay_small(folder: Path) -> None:
    assert len([file for file in folder.glob("*.py") if file.name != "__init__.py"]) <= 14


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


HEAVY = "('torch', 'cv2', 'accelerate', 'onnx', 'onnxruntime', 'matplotlib', 'supervision', 'plotly')"


def test_help_imports_nothing_heavy() -> None:
    code = (
        f"import sys; from secateur.cli import main; main(['--help']); print([m for m in {HEAVY} if m in sys.modules])"
    )
    output = run_python(code)
    assert "usage: secateur" in output
    assert output.strip().splitlines()[-1] == "[]"


def test_the_options_of_no_command_import_torch() -> None:
    code = (
        "import sys; from secateur.commands import COMMANDS; [entry.options() for entry in COMMANDS.values()]; "
        f"print([m for m in {HEAVY} if m in sys.modules])"
    )
    assert run_python(code).strip() == "[]"


def test_importing_the_package_touches_no_device() -> None:
    code = "import sys, secateur; print('torch' in sys.modules)"
    assert run_python(code).strip() == "False"


def test_no_attic() -> None:
    names = {part.removesuffix(".py") for file in FILES for part in file.relative_to(SOURCE).parts}
    assert not names & {"utils", "util", "helpers", "helper", "common", "misc"}
