"""Our own files: what goes in comes out bit for bit, and broken ones are told apart."""

from __future__ import annotations

import json
import resource
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from secateur.errors import UserError
from secateur.families.loading import load_checkpoint
from secateur.families.yolov5.architecture import YOLOv5, topology_of
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.start import check_topology
from secateur.families.yolov5.topology import Topology
from secateur.networks.checkpoint import Checkpoint, HistoryEntry, save_checkpoint

Lively = Callable[..., Detector]
X = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def full(lively: Lively) -> Checkpoint:
    """A checkpoint with every field set."""
    detector = lively("yolov5s-ghost", nc=2)
    detector.names = {0: "Katze", 1: "犬"}
    name = "model.2.cv1.conv.weight"
    mask = detector.state_dict()[name] > 0
    stage = HistoryEntry("prune", {"flops": 0.5, "exclude": ["a"]}, {"mAP50": 0.75}, {"parameters": 3})
    return Checkpoint.of(
        detector,
        masks={name: mask},
        training={"epochs": 3},
        plan={"keep": [1, 2]},
        history=(stage, HistoryEntry("fit")),
        image_size=96,
    )


def _equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    same_bits = all(torch.equal(a[k].view(torch.uint8), b[k].view(torch.uint8)) for k in a if a[k].ndim)
    return a.keys() == b.keys() and same_bits and all(a[k].dtype == b[k].dtype for k in a)


def test_round_trip_bit_for_bit(full: Checkpoint, tmp_path: Path) -> None:
    full.tensors["model.0.bn.running_mean"][0] = float("nan")
    save_checkpoint(full, tmp_path / "a.safetensors")
    loaded = load_checkpoint(tmp_path / "a.safetensors", sound=False)
    assert _equal(loaded.tensors, full.tensors)
    assert _equal(loaded.masks, full.masks)
    for field in ("architecture", "names", "strides", "training", "plan", "history", "image_size"):
        assert getattr(loaded, field) == getattr(full, field)
    save_checkpoint(loaded, tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_outputs_survive_saving(full: Checkpoint, tmp_path: Path) -> None:
    before = full.build()
    save_checkpoint(full, tmp_path / "a.safetensors")
    after = load_checkpoint(str(tmp_path / "a.safetensors")).build()
    assert not after.training
    assert after.names == {0: "Katze", 1: "犬"}
    with torch.no_grad():
        assert torch.equal(before.predict(X), after.predict(X))


def test_narrowed_and_fused_detectors_survive(lively: Lively, tmp_path: Path) -> None:
    detector = lively("yolov5n", nc=2)
    for i, variant in enumerate((detector, detector.fused())):
        path = tmp_path / f"{i}.safetensors"
        save_checkpoint(Checkpoint.of(variant), path)
        with torch.no_grad():
            assert torch.equal(load_checkpoint(path).build().predict(X), variant.predict(X))


def test_half_halves_the_file_and_widens_back(full: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(full, tmp_path / "a.safetensors")
    save_checkpoint(full.half(), tmp_path / "b.safetensors")
    assert (tmp_path / "b.safetensors").stat().st_size < 0.6 * (tmp_path / "a.safetensors").stat().st_size
    detector = load_checkpoint(tmp_path / "b.safetensors").build()
    assert {p.dtype for p in detector.parameters()} == {torch.float32}


def test_a_checkpoint_shares_no_memory(lively: Lively) -> None:
    detector = lively("yolov3-tiny", nc=1)
    checkpoint = Checkpoint.of(detector)
    checkpoint.build().model[0].conv.weight.data.zero_()
    detector.model[0].conv.weight.data.zero_()
    assert float(checkpoint.tensors["model.0.conv.weight"].abs().sum()) > 0


def test_like_and_changes(full: Checkpoint) -> None:
    other = Checkpoint.of(full.build(), like=full, plan=None)
    assert (other.history, other.plan, other.training) == (full.history, None, {"epochs": 3})


def test_another_number_of_classes_keeps_all_but_the_head(lively: Lively) -> None:
    checkpoint = Checkpoint.of(lively("yolov5n", nc=2))
    detector = checkpoint.build_for({0: "a", 1: "b", 2: "c"})
    assert (detector.nc, detector.names[2], detector.strides) == (3, "c", (8, 16, 32))
    for name, tensor in detector.state_dict().items():
        assert torch.equal(tensor, checkpoint.tensors[name]) != name.startswith("model.24.m.")
    assert detector.predict(X).shape[-1] == 8
    assert float(detector.predict(X)[..., 4].detach().mean()) < 0.2, "the fresh head has the prior of rare objects"
    same = checkpoint.build_for({0: "x", 1: "y"})
    assert torch.equal(same.head.m[0].weight, checkpoint.tensors["model.24.m.0.weight"])


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ("yolov5s", "Block 0"),
        ("yolov3-tiny", "20.*25|25.*20|21"),
        ("yolov5s-ghost", "Block"),
        ("yolov5-bifpn", "Block"),
    ],
)
def test_a_model_file_of_another_network_is_refused(lively: Lively, other: str, words: str) -> None:
    checkpoint = Checkpoint.of(lively("yolov5n", nc=2))
    check_topology(checkpoint, Topology.from_yaml("yolov5n"))
    with pytest.raises(UserError, match=words) as error:
        check_topology(checkpoint, Topology.from_yaml(other))
    assert "--cfg" in str(error.value)


def test_another_activation_is_another_network(lively: Lively) -> None:
    checkpoint = Checkpoint.of(lively("yolov5s", nc=1))
    with pytest.raises(UserError, match="LeakyReLU"):
        check_topology(checkpoint, Topology.from_yaml("yolov5s-LeakyReLU"))


def test_full_disk_leaves_the_old_file(full: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        # Python ignores the signal, so writing past the limit fails like a full disk.
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        with pytest.raises(UserError, match="free disk space"):
            save_checkpoint(full, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_wrong_suffix_and_unsaveable_settings(full: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="safetensors"):
        save_checkpoint(full, tmp_path / "a.pt")
    save_checkpoint(replace(full, training={"path": Path("a"), "n": torch.tensor(3)}), tmp_path / "a.safetensors")
    assert load_checkpoint(tmp_path / "a.safetensors").training == {"path": "a", "n": 3}


def _with_header(path: Path, header: dict[str, Any]) -> None:
    data = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(data)) + data)


def test_broken_files_are_told_apart(full: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_checkpoint(full, path)
    whole = path.read_bytes()
    cases: dict[str, bytes | dict[str, Any]] = {
        "truncated": whole[: len(whole) // 2],
        "damaged": whole[:1000],
        "empty": b"",
        "LFS": b"version https://git-lfs.github.com/spec/v1\n",
        "another program": {"__metadata__": {"format": "pt"}},
        "newer": {"__metadata__": {"secateur": '{"version": 99}'}},
        "damaged metadata": {"__metadata__": {"secateur": '{"version": 1, "topology": {}}'}},
    }
    for words, content in cases.items():
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            _with_header(path, content)
        with pytest.raises(UserError, match=words):
            load_checkpoint(path)


def test_folders_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="folder"):
        load_checkpoint(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        load_checkpoint(tmp_path / "nothing.pt")


def test_a_checkpoint_whose_tensors_are_not_its_topology(full: Checkpoint) -> None:
    with pytest.raises(UserError, match="another network"):
        replace(full, architecture=YOLOv5(Topology.from_yaml("yolov5n", nc=2))).build()


def _rewrite(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes the JSON data of a file."""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    data = json.loads(header["__metadata__"]["secateur"])
    change(data)
    header["__metadata__"]["secateur"] = json.dumps(data)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])


def test_files_of_before_are_read(full: Checkpoint, tmp_path: Path) -> None:
    """They name no architecture and no image size, but their stages tell which one was used last."""
    path = tmp_path / "a.safetensors"
    settings = [{"image_size": 64}, {"image_size": 320}, {"epochs": 3}]
    save_checkpoint(replace(full, history=tuple(HistoryEntry("finetune", s) for s in settings)), path)

    def age(data: dict[str, Any]) -> None:
        del data["architecture"], data["image_size"]

    _rewrite(path, age)
    old = load_checkpoint(path)
    assert old.architecture == full.architecture
    assert old.image_size == 320
    with torch.no_grad():
        assert torch.equal(old.build().predict(X), full.build().predict(X))


def test_a_checkpoint_prints_in_a_few_lines(full: Checkpoint) -> None:
    text = repr(full)
    assert text == str(full)
    assert len(text.splitlines()) <= 4
    assert max(map(len, text.splitlines())) < 160
    for words in ("YOLOv5 network of", "2 classes (Katze, 犬)", "1 have masks", "96 px", "history: prune, fit"):
        assert words in text
    assert len(repr(topology_of(full))) < 120


def test_other_names_for_as_many_classes_start_the_head_afresh(lively: Lively) -> None:
    detector = lively("yolov5n", nc=2)
    detector.names = {0: "cat", 1: "dog"}
    checkpoint = Checkpoint.of(detector)
    turned = checkpoint.build_for({0: "dog", 1: "cat"})
    assert turned.names == {0: "dog", 1: "cat"}
    for name, tensor in turned.state_dict().items():
        assert torch.equal(tensor, checkpoint.tensors[name]) != name.startswith("model.24.m.")


def test_values_beyond_half_precision_survive(tiny_weights: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(tiny_weights)
    name = next(name for name in checkpoint.tensors if name.endswith("running_var"))
    variance = checkpoint.tensors[name].clone()
    variance[0] = 236_272.0
    half = replace(checkpoint, tensors={**checkpoint.tensors, name: variance}).half()
    save_checkpoint(half, tmp_path / "half.safetensors")
    loaded = load_checkpoint(tmp_path / "half.safetensors")
    assert loaded.tensors[name][0] == 236_272.0 == loaded.build().state_dict()[name][0]
    assert {tensor.dtype for key, tensor in half.tensors.items() if tensor.is_floating_point() and key != name} == {
        torch.float16
    }
