"""The page on adding methods: its files, taken as they stand, run as plug-ins and inside the package."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from secateur.cli import main
from secateur.errors import UserError
from secateur.families.loading import load_checkpoint
from secateur.networks.formats.container import read_container
from secateur.registry import PLUGINS
from tiny_network import TINY

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text()
FILE = re.compile(r"^## [^\n]*`mine/(?P<name>[\w.]+)`\n(?:(?!```)[^\n]*\n)*?```\w+\n(?P<text>.*?)^```$", re.M | re.S)
FILES = {match["name"]: match["text"] for match in FILE.finditer(PAGE)}
# file of the example -> folder in the package
FOLDERS = {
    name: folder for folder, name in re.findall(r"^\| [^|]* \| `([\w/]+)/`[^|]* \|.*\| `([\w.]+)` \|$", PAGE, re.M)
}
SNIPPET = re.search(r"^```python\n(import secateur\n.*?)^```$", PAGE, re.M | re.S)

COMMANDS = """
import json, sys
import torch
from secateur.cli import main
from secateur.networks.checkpoint import Checkpoint, save_checkpoint
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import Topology

torch.manual_seed(0)
detector = Detector(Topology.from_yaml("excite.yaml", nc=3), {0: "disc", 1: "square", 2: "triangle"})
save_checkpoint(Checkpoint.of(detector), "excited.safetensors")
exec(sys.argv[1])
for command in json.loads(sys.argv[2]):
    main([*command, "--json"])
"""


@dataclass(frozen=True)
class Done:
    """What the commands of one process left: their folder, their summaries in order."""

    folder: Path
    summaries: list[dict[str, Any]]
    errors: str

    def of(self, command: str) -> list[dict[str, Any]]:
        return [summary for summary in self.summaries if summary["command"] == command]


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mine")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def done(mine: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("done")
    backbone = [*TINY["backbone"][:-1], [-1, 1, "SqueezeExcite", [4]]]  # type: ignore[index]
    (folder / "excite.yaml").write_text(yaml.safe_dump({**TINY, "backbone": backbone}))
    few = {**yaml.safe_load(tiny_data.read_text()), "path": str(tiny_data.parent), "train": "images/val"}
    del few["test"]
    (folder / "few.yaml").write_text(yaml.safe_dump(few))
    data, size = ["--data", "few.yaml"], ["--img", "64"]
    run = ["run", "--recipe", str(mine / "mine.yaml"), "--weights", "excited.safetensors", *data, *size]
    final, pruned = "runs/run/exp/final.safetensors", "runs/prune/exp/pruned.safetensors"
    commands = [
        [*run, "--batch", "8", "--workers", "0", "--amp", "off", "--bits", "6", "--channels", "0.7"],
        ["compare", "excited.safetensors", final, *size],
        ["export", "--weights", final, "--format", "program"],
        ["val", "--weights", "spots.safetensors", *data, *size, "--workers", "0", "--no-plots"],
        ["prune", "--weights", "spots.safetensors", "--criterion", "l2", "--params", "0.5", *size],
        ["info", pruned],
        ["export", "--weights", pruned, "--format", "program"],
    ]
    assert SNIPPET is not None
    script = [sys.executable, "-c", COMMANDS, SNIPPET[1], json.dumps(commands)]
    environment = {**os.environ, PLUGINS: str(mine), "OMP_NUM_THREADS": "1"}
    process = subprocess.run(script, capture_output=True, text=True, env=environment, check=False, cwd=folder)
    assert process.returncode == 0, process.stderr[-2000:]
    summaries, rest = [], process.stdout.strip()
    while rest:
        summary, end = json.JSONDecoder().raw_decode(rest)
        summaries.append(summary)
        rest = rest[end:].strip()
    return Done(folder, summaries, process.stderr)


def test_the_page_has_an_example_of_every_kind() -> None:
    assert len(FOLDERS) == len(FILES) == 15
    assert set(FOLDERS) == set(FILES)
    assert len(set(FOLDERS.values())) == 15
    assert all((ROOT / "src" / "secateur" / folder).is_dir() for folder in FOLDERS.values())


def test_methods_cost_and_step_run_in_one_recipe(done: Done) -> None:
    [run] = done.of("run")
    final = read_container(done.folder / run["folder"] / "final.safetensors")
    stages = final.data["history"]
    used = {key: value for stage in stages for key, value in stage["settings"].items()}
    for item in yaml.safe_load(FILES["mine.yaml"])["stages"]:
        for name in ("schedule", "layer_score", "criterion", "pruning_pattern", "pruning_criterion", "distill"):
            wanted = next(iter(item.values())).get(name)
            assert wanted is None or used[name] == wanted, name
    # Options of the command line replaced the recipe's 0.8 and 8 bits.
    assert used["budget"] == "channels 0.7"
    assert run["table"][-1]["stage"] == "6-bit weights"
    # Whole filters went, and in each of the others there are no more values than 6 bits tell apart.
    assert any(not mask.flatten(1).any(1).all() for mask in final.masks.values())
    weights = [tensor for tensor in final.tensors.values() if tensor.ndim == 4]
    assert max(len(channel.unique()) for weight in weights for channel in weight) < 2**6
    assert "d_obj" in (done.folder / run["folder"] / "finetune" / "results.csv").read_text().splitlines()[0]


def test_the_command_prints_what_it_found(done: Done) -> None:
    [compared], [run] = done.of("compare"), done.of("run")
    assert compared["after"] == pytest.approx(run["model"])
    assert compared["after"]["parameters"] < 0.8 * compared["before"]["parameters"]


def test_the_block_and_the_architecture_are_built_cut_and_exported(done: Done) -> None:
    [val], [prune], [info] = (done.of(name) for name in ("val", "prune", "info"))
    assert info["model"]["parameters"] == prune["model"]["parameters"] <= 0.5 * val["model"]["parameters"]
    assert info["strides"] == [8.0]
    assert "secateur export --weights" in done.errors and "secateur finetune" not in done.errors
    exports = [summary["export"] for summary in done.of("export")]
    assert [entry["format"] for entry in exports] == ["program", "program"]
    assert all(entry["max_error"] < 1e-3 for entry in exports)


UNFOLDED = """
import torch
from torch import nn
from secateur.pruning.graph import trace
from secateur.pruning.plan import Plan
from secateur.pruning.surgery import cut, mask

torch.manual_seed(0)
network = nn.Sequential(nn.Conv2d(3, 6, 1), nn.Unfold(2, stride=2), nn.Conv1d(24, 2, 1)).eval()
graph, images = trace(network), torch.rand(1, 3, 8, 8)
print(graph.units, *dict.fromkeys(entry.by for entry in graph.frozen), sep="|")
if graph.units:
    plan = Plan.of(graph, graph.everything() & (torch.arange(graph.units) != 1).numpy())
    print(bool(torch.allclose(cut(network, graph, plan)(images), mask(network, graph, plan)(images), atol=1e-6)))
"""


def test_an_operator_of_ones_own_lets_channels_go(mine: Path) -> None:
    with_rule = python(UNFOLDED, {PLUGINS: str(mine / "unfold.py")}).splitlines()
    assert with_rule == ["6|the network's output", "True"]
    assert python(UNFOLDED, {}).splitlines() == ["0|im2col in Unfold|the network's output"]


def test_without_them_the_names_are_unknown(
    mine: Path, done: Done, tiny_weights: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="SqueezeExcite"):
        load_checkpoint(done.folder / "excited.safetensors")
    with pytest.raises(UserError, match=f"unknown architecture 'spots'.*{PLUGINS}"):
        load_checkpoint(done.folder / "spots.safetensors")
    recipe = FILES["mine.yaml"]
    for text, message in {
        recipe: "unknown stage 'round_weights'; choose from ",
        recipe.partition("  - round_weights")[0]: "unknown setting 'channels'. Known settings are ",
        recipe.partition("  - prune")[0]: "Unknown schedule of the sparsity rate 'square'; choose one of constant, ",
    }.items():
        file = tmp_path / "mine.yaml"
        file.write_text(text)
        command = ["run", "--recipe", str(file), "--weights", str(tiny_weights), "--data", str(tiny_data)]
        with pytest.raises(SystemExit, match="2"):
            main([*command, "--project", str(tmp_path / "runs")])
        assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


LISTED = """
import json, sys
import secateur
from secateur.commands import COMMANDS
options = [entry.options() for entry in COMMANDS.values()]
heavy = [name for name in ("torch", "cv2", "onnx", "matplotlib") if name in sys.modules]
from secateur.pruning.options import budget_options
from secateur.deploy.exporters import EXPORTERS
from secateur.families.family import FAMILIES
from secateur.families.yolov5.blocks import BLOCKS
from secateur.families.yolov5.distillation import DISTILLATIONS
from secateur.pruning.costs import COSTS
from secateur.pruning.graph.flow import OPERATORS
from secateur.pruning.importance import CRITERIA
from secateur.pruning.layer_scores import LAYER_SCORES
from secateur.runs.recipes.recipe import available
from secateur.sparsity.criteria import WEIGHT_CRITERIA
from secateur.sparsity.patterns import PATTERNS
from secateur.sparsity.rates import RATES
from secateur.sparsity.schedules import SPARSITY_SCHEDULES
from secateur.steps.step import STEPS
kinds = [CRITERIA, LAYER_SCORES, WEIGHT_CRITERIA, PATTERNS, SPARSITY_SCHEDULES, RATES, DISTILLATIONS, COSTS, STEPS,
         COMMANDS, EXPORTERS, BLOCKS, FAMILIES, OPERATORS]
names = [name for kind in kinds for name in kind] + [recipe.name for recipe in available()]
print(json.dumps([secateur.__file__, heavy, names, [field for field in budget_options().__annotations__]]))
"""
REPLACING = """
from dataclasses import dataclass

from secateur.pruning.options import ChannelSettings
from secateur.steps.prune import Prune
from secateur.steps.step import step


@step("export", purpose="exports in another way")
@dataclass(frozen=True)
class Export(Prune):
    pass
"""


def test_the_same_files_live_in_the_package(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("*.egg-info"))
    for name, text in FILES.items():
        (tmp_path / "src" / "secateur" / FOLDERS[name] / name).write_text(text)
    listed = python(LISTED, {"PYTHONPATH": str(tmp_path / "src")})
    file, heavy, names, costs = json.loads(listed)
    assert Path(file).is_relative_to(tmp_path)
    assert heavy == []
    assert {"spread", "smallness", "steady", "filter", "eager", "square", "objectness", "channels"} < set(names)
    assert {"round_weights", "compare", "program", "SqueezeExcite", "spots", "mine", "im2col"} < set(names)
    assert "channels" in costs


def test_a_users_file_may_use_and_replace_what_looks_it_up(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(REPLACING)
    code = """
from secateur.commands import COMMANDS
options = [entry.options() for entry in COMMANDS.values()]
from secateur.steps.step import STEPS
print(STEPS["export"].purpose)
"""
    assert python(code, {PLUGINS: str(tmp_path)}) == "exports in another way\n"


def python(code: str, environment: dict[str, str]) -> str:
    command = [sys.executable, "-c", code]
    process = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, check=False)
    assert process.returncode == 0, process.stderr[-2000:]
    return process.stdout
