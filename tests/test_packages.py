"""What is packed: one version, every data file in the wheel, and files of packaging that agree with pyproject."""

from __future__ import annotations

import fnmatch
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

import secateur
from smoke.__main__ import lowest

tomllib = pytest.importorskip("tomllib", reason="the module is of Python 3.11")
ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
REQUIREMENTS = [
    Requirement(line)
    for line in [*PROJECT["project"]["dependencies"], *(line for extra in EXTRAS.values() for line in extra)]
]


def test_the_version_is_in_one_place() -> None:
    version = PROJECT["project"]["version"]
    assert secateur.__version__ == version
    assert "version" not in yaml.safe_load((ROOT / "CITATION.cff").read_text())
    places = [*(ROOT / "src").rglob("*.py"), ROOT / "Makefile", ROOT / "Dockerfile", ROOT / "mkdocs.yml"]
    literal = re.compile(rf"""version\s*[=:]\s*["']?{re.escape(version)}\b""")
    assert not [str(place) for place in places if literal.search(place.read_text())]


def test_every_data_file_is_in_the_wheel() -> None:
    package = ROOT / "src" / "secateur"
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["secateur"]
    files = [str(file.relative_to(package)) for file in package.rglob("*") if file.is_file()]
    data = [file for file in files if not file.endswith(".py") and "__pycache__" not in file]
    assert len(data) > 30
    assert not [file for file in data if not any(fnmatch.fnmatch(file, pattern) for pattern in patterns)]


def test_every_folder_with_code_is_a_package() -> None:
    folders = {file.parent for file in (ROOT / "src" / "secateur").rglob("*.py")}
    assert not [str(folder) for folder in folders if not (folder / "__init__.py").is_file()]


def test_constraints_satisfy_the_requirements() -> None:
    lines = [line.split(";")[0] for line in (ROOT / "constraints.txt").read_text().splitlines() if line[0] != "#"]
    held = {name.lower().replace("_", "-"): version for name, version in (re.split("={2,3}", line) for line in lines)}
    for wanted in REQUIREMENTS:
        if wanted.name.lower() in held:
            assert wanted.specifier.contains(held[wanted.name.lower()].strip()), wanted


def test_every_requirement_has_a_lower_bound_that_the_smoke_test_holds(tmp_path: Path) -> None:
    ours = [r for r in REQUIREMENTS if r.name not in ("secateur", "types-PyYAML")]
    assert not [str(r) for r in ours if [s.operator for s in r.specifier] != [">="]]
    wheel = tmp_path / "secateur-0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        lines = "".join(f'Requires-Dist: {r} ; extra == "any"\n' for r in REQUIREMENTS)
        archive.writestr("secateur-0.dist-info/METADATA", f"Name: secateur\n{lines}")
    assert sorted(lowest(wheel, ["all"])) == sorted({str(r).split("[")[0].split(">")[0] + "==" + next(
        iter(r.specifier)).version for r in ours})  # fmt: skip
    assert lowest(wheel, ["torch"]) == ["torch==2.6"]


def test_opencv_comes_without_a_window_system() -> None:
    assert {r.name for r in REQUIREMENTS if "opencv" in r.name} == {"opencv-python-headless"}


def test_the_image_is_built_from_what_there_is_and_runs_the_demo() -> None:
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line.split(None, 1) for line in text.splitlines() if re.match("[A-Z]+ ", line)]
    [base] = [rest for word, rest in lines if word == "ARG" and rest.startswith("BASE=")]
    [minor] = re.findall(r"python:3\.(\d+)-", base)
    assert int(minor) >= int(PROJECT["project"]["requires-python"].rpartition(".")[2])
    assert ["ARG", "EXTRAS=all"] in lines and "all" in EXTRAS
    assert lines[-2:] == [["ENTRYPOINT", '["secateur"]'], ["CMD", '["demo"]']]
    copied = [name for word, rest in lines if word == "COPY" for name in rest.split()[:-1]]
    assert all((ROOT / name).exists() for name in copied)
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert sorted(kept) == sorted(copied)
    # Everything that the build of the wheel reads is copied.
    assert {PROJECT["project"]["readme"], *PROJECT["project"]["license-files"], "pyproject.toml", "src"} <= {*copied}
    assert not re.search(r"https?://", text), "only the registries that the clients know"


def test_the_commit_hook_is_make_lint() -> None:
    [repository] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [hook["entry"] for hook in repository["hooks"]] == ["make lint"]
    assert re.search(r"^lint:", (ROOT / "Makefile").read_text(), re.M)


def test_the_page_on_installing_has_every_extra() -> None:
    page = (ROOT / "docs" / "install.md").read_text()
    rows = dict(re.findall(r"^\| `([a-z]+)` \| ([^|]*) \|", page, re.M))
    assert set(rows) == set(EXTRAS) - {"dev", "docs"}
    for extra, packages in rows.items():
        if extra != "all":
            wanted = {Requirement(line).name for line in EXTRAS[extra]}
            assert set(re.findall(r"`([\w.-]+)`", packages)) == wanted, extra
    [whole] = [Requirement(line) for line in EXTRAS["all"]]
    assert set(re.findall(r"`(\w+)`", rows["all"])) == whole.extras
