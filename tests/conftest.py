"""Fixtures shared by all tests."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml

from secateur.data.synthetic import generate
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import Topology
from secateur.networks.checkpoint import Checkpoint, save_checkpoint
from secateur.pruning.cliff import RUNGS, cliff
from tiny_network import TINY
from working_folder import REPOSITORY, STARTED_IN, entries

# Several test processes share the machine's cores.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"

# Tests change the folder, and programs that they start look for the package from there.
if "PYTHONPATH" in os.environ:
    places = os.environ["PYTHONPATH"].split(os.pathsep)
    os.environ["PYTHONPATH"] = os.pathsep.join(str(STARTED_IN / place) for place in places)

# Tests of `make test-slow`: the longest ones. Most repeat with more effort what a test of `make test` checks too.
SLOW = (
    "tests/checkpoints/test_pruning_in_rounds.py::test_killed_rounds_go_on",
    "tests/checkpoints/test_pruning_in_rounds.py::test_rounds_meet_the_budget[False]",
    "tests/deploy/formats/test_int8_openvino.py::test_layers_go_back_to_float_until_the_judge_is_content",
    "tests/deploy/test_exporters.py::test_nothing_is_printed_not_even_where_the_exporter_stumbles",
    "tests/deploy/test_file_size.py::test_predicted_sizes_are_those_of_the_files[onnx-fp16]",
    "tests/deploy/test_file_size.py::test_predicted_sizes_are_those_of_the_files[onnx-int8]",
    "tests/deploy/test_file_size.py::test_predicted_sizes_are_those_of_the_files[torchscript-fp32]",
    "tests/deploy/test_file_size.py::test_predicted_sizes_are_those_of_the_files[yolov5-fp32]",
    "tests/deploy/test_runtimes.py::test_makers_of_onnx_runtime_learn_nothing[code2]",
    "tests/deploy/test_runtimes.py::test_makers_of_onnx_runtime_learn_nothing[from secateur.deploy.timing",
    "tests/evaluation/test_validate.py::test_published_figures_of_yolov5n_on_coco128[train]",
    "tests/families/yolov5/test_architecture.py::test_an_architecture_of_a_users_file",
    "tests/families/yolov5/test_control.py::test_every_topology_can_be_mad",
    "tests/families/yolov5/test_control.py::test_stock_networks_come_within_a_percent",
    "tests/families/yolov5/test_control.py::test_very_narrow_networks_too_cost",
    "tests/fuzz/test_fuzz.py::test_damaged_files_are_read_or_refused",
    "tests/laws/test_devices.py",
    "tests/laws/test_healing.py::test_a_healed_network_is_a_cut_one[odd]",
    "tests/laws/test_healing.py::test_a_healed_network_is_a_cut_one[yolov5-bifpn]",
    "tests/laws/test_healing.py::test_a_healed_network_is_a_cut_one[yolov5-p2]",
    "tests/laws/test_healing.py::test_a_healed_network_is_a_cut_one[yolov5s-ghost]",
    "tests/laws/test_healing.py::test_a_healed_network_is_a_cut_one[yolov5s6]",
    "tests/laws/test_removal.py::test_what_is_left_is_priced_saved_loaded_cut_trained_and_shortened_again[yolov5-ghost]",
    "tests/laws/test_removal.py::test_what_is_left_is_priced_saved_loaded_cut_trained_and_shortened_again[yolov5-p6]",
    "tests/pruning/test_remaining.py::test_detectors[yolov5s-ghost]",
    "tests/pruning/test_remaining.py::test_other_networks[mobilenet_v3_small]",
    "tests/pruning/test_remaining.py::test_other_networks[shufflenet]",
    "tests/pruning/test_shared_rounds.py::test_the_smallest_budget_is_a_",
    "tests/pruning/test_tokens.py::test_a_price_that_modules_do_not_tell_is_refused_at_another_size",
    "tests/pruning/test_tokens.py::test_a_transformer_is_priced_at_every_size_of_its_own",
    "tests/pruning/test_tokens.py::test_case[product over places]",
    "tests/pruning/test_tokens.py::test_scoring_reads_linear_layers_inside_windows",
    "tests/runs/pareto/test_pareto_curve.py::test_a_kill_in_the_descent_continues_it",
    "tests/runs/pareto/test_pareto_curve.py::test_killed_again_and_again",
    "tests/runs/pareto/test_pareto_curve.py::test_rounds_are_shared",
    "tests/runs/pareto/test_pareto_curve.py::test_the_smallest_point_is_what_prune_gives",
    "tests/runs/test_prune_heal.py::test_two_processes_cut_once_and_heal_together",
    "tests/runs/test_recipes.py::test_killed_at_a_random_step_it_ends_with_the_same_weights[pruned-yolo]",
    "tests/runs/test_recipes.py::test_layers_and_channels_on_other_topologies[yolov5s6]",
    "tests/runs/test_recipes.py::test_runs_from_end_to_end[quick-int8]",
    "tests/runs/test_recipes.py::test_runs_from_end_to_end[slimming-chains]",
    "tests/runs/test_recipes.py::test_runs_from_end_to_end[slimming-conv]",
    "tests/runs/test_recipes.py::test_runs_from_end_to_end[slimyolov3]",
    "tests/runs/test_resume_same_data.py",
    "tests/runs/test_run.py::test_killed_inside_a_training_it_ends_with_the_same_weights[5]",
    "tests/runs/test_run.py::test_the_steps_by_hand_equal_the_run",
    "tests/runs/test_run.py::test_two_equal_commands_at_once",
    "tests/runs/test_run_control.py::test_one_that_was_not_asked_for_is_trained_only_where_it_is_cheap",
    "tests/runs/test_single_cls.py",
    "tests/runs/test_sweep.py::test_an_unfinished_sweep_of_version_0_2_goes_on",
    "tests/runs/test_sweep.py::test_killed_again_and_again",
    "tests/sparsity/test_one_shot.py::test_published_accuracy_of_yolov5n_with_zeros",
    "tests/test_api_any_network.py::test_the_parts_of_a_retinanet_are_cut_apart_and_put_back",
    "tests/test_cli.py::test_one_class_training_is_eva",
    "tests/test_cli.py::test_sweep_prints_its_table",
    "tests/test_cli.py::test_train_resumes_a_finished_",
    "tests/test_cli.py::test_two_processes_share_one_run_folder",
    "tests/test_cli_grey.py::test_train_val_predict_prune_heal_finetune",
    "tests/test_extending.py::test_methods_cost_and_step_run_in_one_recipe",
    "tests/test_page_commands.py::test_commands_and_snippets_of_a_page_run[choosing.md]",
    "tests/test_page_commands.py::test_commands_and_snippets_of_a_page_run[fewer-milliseconds.md]",
    "tests/test_page_commands.py::test_commands_and_snippets_of_a_page_run[int8.md]",
    "tests/test_page_commands.py::test_commands_and_snippets_of_a_page_run[methods.md]",
    "tests/test_page_commands.py::test_commands_and_snippets_of_a_page_run[own-network.md]",
    "tests/test_page_commands.py::test_commands_and_snippets_of_a_page_run[phone.md]",
    "tests/test_page_commands.py::test_commands_and_snippets_of_a_page_run[slimming.md]",
    "tests/test_page_commands.py::test_commands_and_snippets_of_a_page_run[smaller-file.md]",
    "tests/test_page_commands.py::test_commands_and_snippets_of_a_page_run[ultralytics-tutorial.md]",
    "tests/test_page_commands.py::test_commands_and_snippets_of_a_page_run[yolov5.md]",
    "tests/test_page_commands.py::test_costly_commands_of_a_page_run",
    "tests/training/test_loop.py::test_a_state_that_lacks_anything_or_holds_something_else",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the slow tests, before those that are not asked for are left out."""
    for item in items:
        if item.nodeid.startswith(SLOW):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def _repository_stays_as_it_is(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fixtures for several tests work in a temporary folder, with caches that the tests share; nothing new is left."""
    # What imports made stays to the end: no collection of garbage has to look through it again.
    gc.collect()
    gc.freeze()
    before = entries(REPOSITORY)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("session"))
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(os, "fsync", lambda _: None)  # no file of a test has to outlive a power cut
        yield
    left = sorted(str(entry) for entry in entries(REPOSITORY) - before)
    assert not left, f"tests left files in the repository: {', '.join(left)}"


@pytest.fixture(scope="session", autouse=True)
def _bare_commands() -> Iterator[None]:
    """Whole commands draw nothing, and their cliff curves have two rungs: both take longer than the rest of them.

    Plots are drawn in tests/report and, by the commands themselves, in tests/test_cli_grey.py; tests/pruning has the
    whole ladder.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("secateur.report.run_folder_plots.plots_available", lambda: False)
        patch.setattr("secateur.pruning.prune.cliff", partial(cliff, budgets=RUNGS[3::4]))
        yield


@pytest.fixture(autouse=True)
def _own_working_folder(_repository_stays_as_it_is: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test works in its own folder: commands write into runs/ of the current one."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def reference_dir() -> Path:
    """Folder with real data and checkpoints (`data/`, `weights/`, `reference/`); tests that need it skip without it.

    It is `$SECATEUR_REFERENCE`, or a folder `shared` beside the checkout.
    """
    folder = STARTED_IN / os.environ.get("SECATEUR_REFERENCE", REPOSITORY.parent / "shared")
    if not (folder / "weights").is_dir():
        pytest.skip("reference data and weights are not here")
    return folder


@pytest.fixture(scope="session")
def tiny_cfg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("cfg") / "tiny.yaml"
    file.write_text(yaml.safe_dump(TINY))
    return file


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(tmp_path_factory.mktemp("data") / "shapes", images=(24, 8, 8), size=64, classes=3)


@pytest.fixture(scope="session")
def tiny_weights(tiny_cfg: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    detector = Detector(Topology.from_yaml(tiny_cfg, nc=3), {0: "disc", 1: "square", 2: "triangle"})
    file = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_checkpoint(Checkpoint.of(detector), file)
    return file


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches too are of this test alone; for tests of what is in them, or of what is measured anew."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
