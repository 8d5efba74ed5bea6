"""Every function of the Python API takes what the others take: checkpoints, files, networks, images, sizes, devices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import secateur
from latency_subjects import table_of
from secateur.data.config import load_data_config
from secateur.data.images import read_image
from secateur.deploy.runtimes import open_predictor
from secateur.errors import UserError
from secateur.evaluation.settings import ValSettings
from secateur.evaluation.validate import validate
from secateur.families.detection.predictor import TorchPredictor
from secateur.families.detection.split import DetectionSplit
from secateur.families.loading import load_checkpoint
from secateur.machine import pick_device
from secateur.networks.checkpoint import Checkpoint
from secateur.pruning.statistics import collect

pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.fixture
def images(tiny_data: Path) -> list[Path]:
    return sorted((tiny_data.parent / "images" / "train").iterdir())[:16]


def forms(weights: Path) -> list[Any]:
    """A model in every form."""
    checkpoint = load_checkpoint(weights)
    return [checkpoint, weights, str(weights), checkpoint.build()]


def same(first: Checkpoint, second: Checkpoint) -> bool:
    return first.tensors.keys() == second.tensors.keys() and all(
        torch.equal(tensor, second.tensors[name]) for name, tensor in first.tensors.items()
    )


def test_a_model_may_be_a_checkpoint_a_file_or_a_network(tiny_weights: Path, tiny_data: Path, tmp_path: Path) -> None:
    found: dict[str, list[Any]] = {}
    for number, model in enumerate(forms(tiny_weights)):
        graph = secateur.trace(model)
        scores = secateur.score(model, graph, "l2")
        plan = secateur.allocate(graph, scores, params=0.7, round_to=1)
        cut = secateur.cut(model, graph, plan)
        given: dict[str, Any] = {
            "price": graph.price(),
            "scores": scores.tolist(),
            "fisher": secateur.score(model, graph, data=tiny_data, image_size=64, statistics_images=8).tolist(),
            "cut": cut.state_dict() if isinstance(cut, nn.Module) else cut.tensors,
            "mask": secateur.mask(model, graph, plan).state_dict(),
            "repair": secateur.repair(model, graph, plan).tensors,
            "prune": secateur.prune(model, criterion="l2", params=0.7, round_to=1).tensors,
            "shorten": secateur.shorten(model, 1, layer_score="gamma").tensors,
            "zero": secateur.zero(model, 0.5).tensors,
            "evaluate": secateur.evaluate(model, tiny_data, image_size=64, workers=0).to_dict(),
        }
        file = secateur.export(model, tmp_path / f"{number}.torchscript", format="torchscript", image_size=64)
        assert file.stat().st_size > 0
        for name, value in given.items():
            found.setdefault(name, []).append(value)
    for name, values in found.items():
        first = values[0]
        for other in values[1:]:
            if isinstance(first, dict) and all(isinstance(part, torch.Tensor) for part in first.values()):
                assert all(torch.equal(tensor, other[key]) for key, tensor in first.items()), name
            elif name != "evaluate":
                assert first == other, name
    assert len({str(values["mAP50-95"]) for values in found["evaluate"]}) == 1


def test_blocks_are_removed_from_any_model(tiny_weights: Path) -> None:
    block = "model.4.m.0"
    results = [secateur.remove(model, block) for model in forms(tiny_weights)]
    assert [type(result).__name__ for result in results] == ["Checkpoint"] * 3 + ["Detector"]
    assert all(same(results[0], result) for result in results[1:3])
    assert same(results[0], Checkpoint.of(results[3]))
    assert results[0].history[-1].settings == {"removed_blocks": [block]}
    assert results[0].plan["removed_blocks"] == [block]
    assert same(secateur.remove(load_checkpoint(tiny_weights), [block]), results[0])
    assert results[0].build()(torch.zeros(1, 3, 64, 64))


def test_an_exported_file_is_evaluated_and_asked_like_its_checkpoint(
    tiny_weights: Path, tiny_data: Path, tmp_path: Path, images: list[Path]
) -> None:
    file = secateur.export(tiny_weights, tmp_path / "tiny.torchscript", format="torchscript", image_size=64)
    settings = ValSettings(image_size=64, rectangular=False, workers=0)
    detector = load_checkpoint(tiny_weights).build()
    whole = validate(TorchPredictor(detector), DetectionSplit.of(load_data_config(tiny_data), "val").index, settings)
    for model in (file, str(file), open_predictor(file)):
        metrics = secateur.evaluate(model, tiny_data, workers=0)
        assert metrics.mAP50_95 == pytest.approx(whole.mAP50_95, abs=1e-4)
    assert len(secateur.predict(file, images[:2])) == 2
    with pytest.raises(UserError, match=r"tiny\.torchscript is an exported file, which can only be run"):
        secateur.prune(file, criterion="l2", params=0.5)
    with pytest.raises(TypeError, match=r"A dict is not a model\. Give a checkpoint, a network or the path of a file"):
        secateur.evaluate({}, tiny_data)


def image_forms(files: list[Path]) -> dict[str, Callable[[], Any]]:
    """The same images in every form that keeps their order and pixels."""
    pixels = [read_image(str(file)) for file in files]

    def generated() -> Iterator[Any]:
        yield from files

    return {
        "paths": lambda: files,
        "text": lambda: [str(file) for file in files],
        "generator": generated,
        "arrays": lambda: pixels,
        "PIL": lambda: [Image.fromarray(image[:, :, ::-1].copy()) for image in pixels],
        "tensors": lambda: [torch.from_numpy(image[:, :, ::-1].copy()).permute(2, 0, 1) for image in pixels],
        "floats": lambda: [torch.from_numpy(image[:, :, ::-1].copy()).permute(2, 0, 1) / 255 for image in pixels],
        "mixed": lambda: [files[0], [pixels[1]], *pixels[2:]],
    }


def test_images_of_any_kind_are_what_a_cut_is_corrected_on(
    tiny_weights: Path, images: list[Path], tmp_path: Path
) -> None:
    for number, file in enumerate(images[:4]):
        cv2.imwrite(str(tmp_path / f"{number}.png"), read_image(str(file)))
    files = sorted(tmp_path.glob("*.png"))
    options = {"criterion": "l2", "params": 0.6, "round_to": 1, "image_size": 64, "correction_images": 4}
    whole = secateur.prune(tiny_weights, images=tmp_path, **options)
    assert not same(whole, secateur.prune(tiny_weights, **options))
    for kind, source in image_forms(files).items():
        found = secateur.prune(tiny_weights, images=source(), **options)
        if kind != "mixed":  # names, which the order follows, differ
            assert same(found, whole), kind
        assert not same(found, secateur.prune(tiny_weights, **options)), kind
    assert same(secateur.prune(tiny_weights, images=tmp_path / "*.png", **options), whole)
    arrays = [read_image(str(file))[:, :, ::-1] for file in files]
    assert same(secateur.prune(tiny_weights, images=arrays, rgb=True, **options), whole)
    assert not same(secateur.prune(tiny_weights, images=arrays, **options), whole)


def test_every_function_that_reads_images_takes_arrays(tiny_weights: Path, images: list[Path]) -> None:
    arrays = [read_image(str(file)) for file in images]
    graph = secateur.trace(tiny_weights)
    plan = secateur.allocate(graph, secateur.score(tiny_weights, graph, "l2"), params=0.6, round_to=1)
    plain = secateur.repair(tiny_weights, graph, plan)
    small = secateur.repair(tiny_weights, graph, plan, images=arrays, image_size=64)
    assert not same(plain, small)
    assert same(small, secateur.repair(tiny_weights, graph, plan, images=(array for array in arrays), image_size=64))
    shorter = secateur.shorten(
        tiny_weights, 1, images=arrays, image_size=64, layer_score="contribution", layer_images=4
    )
    assert len(shorter.plan["removed_blocks"]) == 1
    healed = secateur.heal(small, tiny_weights, arrays, image_size=64, heal_steps=2, heal_batch=4)
    assert healed.history[-1].verb == "heal" and healed.history[-1].settings["heal_steps"] == 2
    # Two steps may improve nothing; then the start is kept. Either way the widths are those of the start.
    shapes = [{name: tensor.shape for name, tensor in one.tensors.items()} for one in (healed, small)]
    assert shapes[0] == shapes[1]


def test_an_empty_list_of_images_is_said(tiny_weights: Path) -> None:
    with pytest.raises(UserError, match=r"The list of images is empty\. Give at least one image"):
        secateur.prune(tiny_weights, criterion="l2", params=0.5, images=[])
    with pytest.raises(UserError, match=r"data\.yaml cannot be part of a list of images\. Give the data\.yaml"):
        secateur.prune(tiny_weights, criterion="l2", params=0.5, images=["data.yaml"])


def test_images_in_memory_leave_no_files_behind(tiny_weights: Path, images: list[Path], tmp_path: Path) -> None:
    options = {"criterion": "l2", "params": 0.6, "round_to": 1, "image_size": 64, "correction_images": 2}
    arrays = [read_image(str(file)) for file in images[:2]]
    caches = []
    for _ in range(2):
        secateur.prune(tiny_weights, images=arrays, **options)
        caches.append(sorted(tmp_path.rglob("*.npz")))
    assert caches[0] == caches[1] and not list(tmp_path.rglob("*.png"))


def test_scores_without_gradients_to_take_say_what_to_give(tiny_weights: Path) -> None:
    graph = secateur.trace(tiny_weights)
    with pytest.raises(UserError, match=r"The criterion fisher needs images\. Give images= or data="):
        secateur.score(tiny_weights, graph)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 1))
    graph = secateur.trace(network)
    for model in (network, Checkpoint.of(network)):
        with pytest.raises(UserError, match=r"no loss is defined for a Sequential\. Give data=secateur"):
            secateur.score(model, graph)
    batches = [torch.rand(2, 3, 16, 16) for _ in range(2)]
    statistics = collect(network, graph, batches, lambda network, batch: network(batch).square().mean((1, 2, 3)).sum())
    scores = secateur.score(network, graph, statistics=statistics)
    assert scores.shape == (8,) and scores.min() > 0
    assert secateur.score(network, graph, "l2").min() > 0


def test_a_data_set_may_be_open_already(tiny_weights: Path, tiny_data: Path) -> None:
    first, second = (
        secateur.evaluate(tiny_weights, data, image_size=64, workers=0)
        for data in (tiny_data, load_data_config(tiny_data))
    )
    assert first.mAP50_95 == second.mAP50_95


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu"), torch.device("cpu", 0), "cpu:0"])
def test_a_device_may_be_pytorchs(device: Any) -> None:
    assert pick_device(device) == torch.device("cpu")


def test_a_device_that_is_none_is_one_sentence() -> None:
    with pytest.raises(UserError, match="Unknown device 'meta'"):
        pick_device(torch.device("meta"))
    if not torch.cuda.is_available():
        for device in (0, torch.device("cuda"), torch.device("cuda", 1)):
            with pytest.raises(
                UserError, match=r"Device (0|cuda|cuda:1) is not available: PyTorch finds no CUDA device"
            ):
                pick_device(device)


def test_sizes_are_one_number_where_squares_are_needed(tiny_weights: Path, tiny_data: Path) -> None:
    calls: dict[str, Callable[[Any], Any]] = {
        "prune": lambda size: secateur.prune(tiny_weights, criterion="l2", params=0.7, round_to=1, image_size=size),
        "finetune": lambda size: secateur.finetune(
            tiny_weights, tiny_data, "tuned", image_size=size, epochs=1, batch_size=8, workers=0, device="cpu"
        ),
    }
    for name, call in calls.items():
        sentence = rf"secateur\.{name} supports only square images, but image_size is \(64, 96\)\."
        with pytest.raises(UserError, match=sentence):
            call((64, 96))
        with pytest.raises(TypeError, match=rf"secateur\.{name}: image_size is '64' \(str\); it must be an integer"):
            call("64")
        with pytest.raises(TypeError, match=r"image_size is \(1, 2, 3\); it must be a number or \(height, width\)"):
            call((1, 2, 3))
        with pytest.raises(UserError, match=r"image_size is -64; it must be from 1 to 8,192 \(or 0\)"):
            call(-64)
    assert calls["prune"]((64, 64)).image_size == 64
    assert calls["prune"](np.int64(64)).image_size == 64


def test_numbers_of_other_keywords_are_checked(tiny_weights: Path) -> None:
    for words, error, sentence in (
        ({"batch_size": 0}, UserError, "batch_size is 0; it must be from 1 to 4,096"),
        ({"batch_size": "8"}, TypeError, r"batch_size is '8' \(str\); it must be an integer"),
        ({"seed": -1}, UserError, "seed is -1; it must be from 0 to"),
        ({"rgb": "yes"}, TypeError, "rgb is 'yes' .str.; it must be True or False"),
    ):
        with pytest.raises(error, match=sentence):
            secateur.prune(tiny_weights, criterion="l2", params=0.5, **words)


def test_rounds_may_be_a_number(tiny_weights: Path, tiny_data: Path) -> None:
    few = {"statistics_images": 4, "correction_images": 4}
    small = secateur.prune(tiny_weights, tiny_data, rounds=1, params=0.7, round_to=1, image_size=64, **few)
    assert small.plan["after"]["parameters"] <= 0.71 * small.plan["before"]["parameters"]


def test_int8_is_calibrated_on_images_of_any_kind(tiny_weights: Path, images: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxslim")
    arrays = [read_image(str(file)) for file in images]
    words = {"precision": "int8", "image_size": 64, "calibration": 8}
    file = secateur.export(tiny_weights, tmp_path / "arrays.onnx", images=arrays, **words)
    assert open_predictor(file).names == load_checkpoint(tiny_weights).names
    with pytest.raises(UserError, match="int8"):
        secateur.export(tiny_weights, tmp_path / "none.onnx", **words)
    assert not (tmp_path / "none.onnx").exists()


def test_a_file_is_saved_as_a_checkpoint(tiny_weights: Path, tmp_path: Path) -> None:
    secateur.save(tiny_weights, tmp_path / "copy.safetensors")
    assert same(load_checkpoint(tmp_path / "copy.safetensors"), load_checkpoint(tiny_weights))


def test_a_plan_may_count_another_shape(tiny_weights: Path) -> None:
    graph = secateur.trace(tiny_weights)
    scores = secateur.score(tiny_weights, graph, "l2")
    wide = secateur.allocate(graph, scores, flops=0.7, round_to=1, image_size=[64, 128])
    assert wide.image_size == (64, 128) and wide.before.flops == graph.price(image_size=(64, 128)).flops
    with pytest.raises(TypeError, match=r"image_size is .* it must be a number or"):
        secateur.allocate(graph, scores, flops=0.7, image_size=(64, 64, 3))


@pytest.mark.parametrize("heal", [1, np.True_])
def test_heal_may_be_any_truth(heal: Any, tiny_weights: Path, images: list[Path], tmp_path: Path) -> None:
    options = {"criterion": "l2", "params": 0.8, "round_to": 1, "image_size": 64, "correction_images": 2}
    small = secateur.prune(tiny_weights, images=images, heal=heal, heal_steps=1, heal_batch=2, **options)
    assert small.history[-1].verb == "heal"
    assert {path.name for path in tmp_path.iterdir()} <= {"cache"}


def test_a_latency_table_is_read_for_any_model(tiny_weights: Path, tmp_path: Path) -> None:
    table_of(secateur.trace(tiny_weights)).save(tmp_path / "table.json")
    for model in forms(tiny_weights):
        table = secateur.latency(model, np.int64(64), file=tmp_path / "table.json")
        assert (table.image_size, table.machine) == (64, "a machine")
    with pytest.raises(UserError, match="threads is -1; it must be from 0 to 1,024"):
        secateur.latency(tiny_weights, 64, threads=-1)
    small = secateur.prune(
        tiny_weights, criterion="l2", ms="80%", round_to=1, image_size=64, latency_table=tmp_path / "table.json"
    )
    assert small.plan["after"]["parameters"] < small.plan["before"]["parameters"]


def test_height_and_width_are_taken_where_cameras_are_not_square(
    tiny_weights: Path, tiny_data: Path, images: list[Path], tmp_path: Path
) -> None:
    assert secateur.evaluate(tiny_weights, tiny_data, image_size=(64, 96), workers=0).shape[1:] == (3, 64, 96)
    assert len(secateur.predict(tiny_weights, images[:2], image_size=(64, 96))) == 2
    file = secateur.export(tiny_weights, tmp_path / "wide.torchscript", format="torchscript", image_size=(64, 96))
    assert open_predictor(file).image_size == (64, 96)
    assert secateur.evaluate(file, tiny_data, image_size=(64, 96), workers=0).shape[1:] == (3, 64, 96)
