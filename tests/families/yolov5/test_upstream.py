"""Foreign checkpoints: stock's outputs come out, everything else is refused in one sentence, and nothing is run."""

from __future__ import annotations

import argparse
import functools
import io
import os
import pickle
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detector_files import Fork, enliven, fake_class, tiny
from torch import nn

from secateur.deploy.exporting import about
from secateur.errors import UserError
from secateur.families.loading import load_checkpoint
from secateur.families.yolov5.architecture import topology_of
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import parse_topology
from secateur.networks.classes import knows_classes

X = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
OFFICIAL = ["yolov5n", "yolov5n-v6.0"]
OTHERS = ["fire1_v7.0_pruned_17k", "food11_v6.2", "head1_v7.0_windowspath", "yolov5n-7_crossconv_dwconv"]


FORKS = ["crops6_pruned_common_1.30M"]


@pytest.mark.parametrize(
    "name", [*OFFICIAL, *(f"others/{name}" for name in OTHERS), *(f"forks/{name}" for name in FORKS)]
)
def test_outputs_are_those_of_stock(reference_dir: Path, name: str) -> None:
    outputs = reference_dir / "reference/outputs"
    image = torch.from_numpy(np.load(outputs / "input.npz")["image"]).float() / 255
    expected = torch.from_numpy(np.load(outputs / f"{Path(name).name}.npz")["decoded"])
    detector = load_checkpoint(reference_dir / f"weights/{name}.pt").build()
    with torch.no_grad():
        for found in (detector.predict(image), detector.fused().predict(image)):
            torch.testing.assert_close(found[..., :4], expected[..., :4], atol=1e-3, rtol=0)
            torch.testing.assert_close(found[..., 4:], expected[..., 4:], atol=1e-4, rtol=0)


def test_names_strides_and_anchors(reference_dir: Path) -> None:
    checkpoint = load_checkpoint(reference_dir / "weights/yolov5n.pt")
    assert checkpoint.names[0] == "person"
    assert (len(checkpoint.names), checkpoint.strides) == (80, (8, 16, 32))
    assert topology_of(checkpoint).anchors[0] == (10, 13, 16, 30, 33, 23)
    assert load_checkpoint(reference_dir / "weights/others/head1_v7.0_windowspath.pt").names == {0: "head"}


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("43EVER__detect__best_lfs_pointer.pt", "git-LFS pointer"),
        ("AbyssSkb__RM__best_not_yolo_state_dict.pt", "bare state dict"),
        ("OBaruch__yolov5_obb__yolov5n_truncated_1MiB.pt", "is truncated after"),
        ("we0091234__plate_rec_color_not_yolo.pth", "bare state dict"),
    ],
)
def test_bad_files_are_told_apart(reference_dir: Path, file: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        load_checkpoint(reference_dir / "weights/bad" / file)
    message = str(error.value)
    assert file in message
    assert "Expected a YOLOv5 checkpoint" in message
    assert "\n" not in message


def _same(path: Path, detector: Detector, atol: float = 0.0) -> None:
    loaded = load_checkpoint(path).build()
    with torch.no_grad():
        torch.testing.assert_close(loaded.predict(X), detector.predict(X), atol=atol, rtol=0)


@pytest.mark.parametrize("name", ["yolov5n", "yolov5s-ghost", "yolov5s-transformer", "yolov3-tiny", "odd"])
def test_every_block_is_read(name: str, lively: Callable[..., Detector], write_upstream: Any, odd_yaml: Path) -> None:
    detector = lively(odd_yaml if name == "odd" else name, nc=3)
    _same(write_upstream(detector, half=False), detector)


def test_old_names_ema_half_and_extras(lively: Callable[..., Detector], write_upstream: Any) -> None:
    detector = lively("yolov5n", nc=2)
    extras = {
        "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.01}]},
        "best_fitness": np.array([0.5]),
        "opt": {"weights": Path("a/b.pt"), "lr": np.float64(0.1)},
        "training_results": None,
    }
    path = write_upstream(detector, kind="Model", ema=True, names={0: "cat", 1: "dog"}, **extras)
    checkpoint = load_checkpoint(path)
    assert checkpoint.names == {0: "cat", 1: "dog"}
    assert checkpoint.training["epoch"] == 3
    assert {t.dtype for k, t in checkpoint.tensors.items() if k.endswith("conv.weight")} == {torch.float16}
    _same(path, detector.half().float())


@pytest.mark.parametrize(
    ("options", "size"),
    [({"imgsz": 416}, 416), (argparse.Namespace(imgsz=320), 320), ({"imgsz": None}, None), ({}, None), (None, None)],
)
def test_the_image_size_of_the_training_is_kept(options: Any, size: int | None, write_upstream: Any) -> None:
    assert load_checkpoint(write_upstream(tiny(), opt=options)).image_size == size


@pytest.mark.parametrize(("words", "told"), [("AGPL-3.0", "AGPL-3.0"), (None, None), (3, None)])
def test_the_licence_goes_on_into_exported_files(words: Any, told: str | None, write_upstream: Any) -> None:
    checkpoint = load_checkpoint(write_upstream(tiny(), license=words))
    assert about(checkpoint).get("license") == told


@pytest.mark.parametrize(("options", "epochs"), [({"epochs": 300}, 300), ({"epochs": 0}, None), (None, None)])
def test_the_epochs_of_the_training_are_kept(options: Any, epochs: int | None, write_upstream: Any) -> None:
    assert load_checkpoint(write_upstream(tiny(), opt=options)).training["epochs"] == epochs


@pytest.mark.parametrize(
    ("names", "known"),
    [
        ([], True),
        ({}, True),
        (["cat", "dog"], False),
        # These were given, though they are the numbers of their classes.
        (["0", "1"], False),
        ({0: "1", 1: "0"}, False),
    ],
)
def test_names_that_a_file_lacks_fit_every_data_set(names: Any, known: bool, write_upstream: Any) -> None:
    checkpoint = load_checkpoint(write_upstream(tiny(nc=2), names=names))
    assert knows_classes(checkpoint.names, {0: "left", 1: "right"}) is known


@pytest.mark.parametrize(
    ("options", "nc", "single"),
    [
        ({"single_cls": True}, 1, True),
        ({"single_cls": False}, 1, False),
        ({"single_cls": True}, 2, False),
        (None, 1, False),
    ],
)
def test_a_training_with_one_class_for_all_is_known(options: Any, nc: int, single: bool, write_upstream: Any) -> None:
    file = write_upstream(tiny(nc=nc), opt=options)
    assert load_checkpoint(file).single_cls is single


def test_shapes_repeats_and_shortcuts_win_over_the_yaml(lively: Callable[..., Detector], write_upstream: Any) -> None:
    # A model whose blocks were changed after it was built still carries the first YAML.
    stale = {
        "nc": 80,
        "anchors": 3,
        "backbone": [
            [-1, 1, "Conv", [64, 3, 2]],
            [-1, 9, "C3", [64, False]],
            [-1, 1, "SPPF", [128, 5]],
        ],
        "head": [[[2], 1, "Detect", ["nc", "anchors"]]],
    }
    true = {
        **stale,
        "nc": 2,
        "anchors": [[7, 9, 11, 13]],
        "backbone": [[-1, 1, "Conv", [24, 3, 2]], [-1, 2, "C3", [24]], [-1, 1, "SPPF", [40, 5]]],
    }
    detector = enliven(Detector(parse_topology(true, "true")))
    path = write_upstream(detector, half=False, yaml=stale)
    checkpoint = load_checkpoint(path)
    assert topology_of(checkpoint).blocks[1].repeats == 2
    assert topology_of(checkpoint).blocks[1].args == (64, True)
    assert topology_of(checkpoint).anchors == ((7, 9, 11, 13),)
    _same(path, detector)


@pytest.mark.parametrize("change", ["stride", "groups", "kind", "activation"])
def test_a_layer_that_contradicts_the_yaml_is_refused(
    change: str, lively: Callable[..., Detector], write_upstream: Any
) -> None:
    detector = lively("yolov5n", nc=2)
    config = None
    if change == "stride":
        detector.model[0].conv.stride = (1, 1)
    elif change == "groups":
        detector.model[1].conv.groups = 2
    elif change == "activation":
        detector.model[3].act = nn.ReLU()
    elif change == "kind":
        topology = detector.topology
        detector.model[9] = nn.MaxPool2d(5, 1, 2)
        assert topology.blocks[9].kind == "SPPF"
    with pytest.raises(UserError, match=r"stock\.pt"):
        load_checkpoint(write_upstream(detector, yaml=config))


def test_attention_in_another_layout_is_refused(
    lively: Callable[..., Detector], write_upstream: Any, odd_yaml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turned = functools.partial(nn.MultiheadAttention, batch_first=True)
    monkeypatch.setattr(nn, "MultiheadAttention", turned)
    with pytest.raises(UserError, match=r"layer model\.14\.m\.tr\.0\.ma has batch_first True"):
        load_checkpoint(write_upstream(lively(odd_yaml)))


def test_a_folded_file_is_read(lively: Callable[..., Detector], write_upstream: Any) -> None:
    detector = lively("yolov5n", nc=2).fused()
    detector.model[0].bound = Evil(getattr, "text", "upper")  # as a bound method is pickled; stays inert
    _same(write_upstream(detector, half=False), detector)


def test_another_eps_gives_the_same_outputs(lively: Callable[..., Detector], write_upstream: Any) -> None:
    detector = lively("yolov5n", nc=2)
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-5
    _same(write_upstream(detector, half=False), detector, atol=2e-3)


class Evil:
    """Pickles into a call."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


def _attacks(flag: Path) -> dict[str, Any]:
    return {
        "os.system": Evil(os.system, f"touch {flag}"),
        "eval": Evil(eval, f"open({str(flag)!r}, 'w')"),
        "exec": Evil(exec, f"open({str(flag)!r}, 'w')"),
        "open": Evil(open, str(flag), "w"),
        "subprocess": Evil(subprocess.check_call, ["touch", str(flag)]),
        "import": Evil(__import__, "antigravity"),
    }


@pytest.mark.parametrize("layout", ["zip", "legacy", "pickle", "beside a model"])
@pytest.mark.parametrize("attack", ["os.system", "eval", "exec", "open", "subprocess", "import"])
def test_malicious_pickles_run_nothing(layout: str, attack: str, tmp_path: Path, write_upstream: Any) -> None:
    flag = tmp_path / "executed"
    evil = _attacks(flag)[attack]
    path = tmp_path / "evil.pt"
    if layout == "pickle":
        path.write_bytes(pickle.dumps({"model": evil}, protocol=2))
    elif layout == "beside a model":
        path = write_upstream(tiny(), extra=evil)
    else:
        torch.save({"model": evil}, path, _use_new_zipfile_serialization=layout == "zip")
    with pytest.raises(UserError, match=path.name) as error:
        load_checkpoint(path)
    assert not flag.exists()
    assert "\n" not in str(error.value)


def test_code_in_state_of_a_known_class_runs_nothing(tmp_path: Path, write_upstream: Any) -> None:
    flag = tmp_path / "executed"
    detector = tiny()
    detector.model[0].conv.note = Evil(os.system, f"touch {flag}")
    with pytest.raises(UserError, match="was not run"):
        load_checkpoint(write_upstream(detector))
    assert not flag.exists()


def test_an_attribute_cannot_hide_a_method(write_upstream: Any) -> None:
    detector = tiny()
    for name in ("kind", "get", "members", "attributes"):
        setattr(detector.model[0].conv, name, "x")
    _same(write_upstream(detector, half=False), detector)


def _zip(name: str, data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, data)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"just some text\n", "text file"),
        (bytes(range(200, 256)) * 4, "not a PyTorch file"),
        (b"\x80\x02broken", "damaged"),
        (b"\x80", "damaged"),
        (_zip("a.txt", b"a"), "zip archive"),
        (_zip("archive/data.pkl", b"\x80\x02N."), "not a detector|damaged"),
        (_zip("net/code/__torch__.py", b""), "TorchScript"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "LFS"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=words):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"model": nn.Linear(2, 2).state_dict()}, "bare state dict"),
        (nn.Linear(2, 2).state_dict(), "bare state dict"),
        (nn.Sequential(nn.Linear(2, 2)), "not a detector"),
        ({"weights": 1, "epoch": 2}, "weights, epoch"),
        ([1, 2], "something else"),
        ({"model": None}, "not a detector"),
    ],
)
def test_other_networks_are_refused(tmp_path: Path, content: Any, words: str) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(UserError, match=words):
        load_checkpoint(tmp_path / "x.pt")


PLACES = {"DetectionModel": ("yolo_pruned", "ModelPruned")}
PLACES |= {name: ("pruned_common", name) for name in ("C3", "Bottleneck", "SPPF")}
SUFFIXES = {name: ("models.common", f"{name}Pruned") for name in ("C3", "Bottleneck", "SPPF")}
STRANGERS = {name: ("models.slim", f"Thin{number}") for number, name in enumerate(("C3", "Bottleneck", "SPPF"))}


FORKS_OF = {
    "places": Fork(PLACES),
    "suffixes": Fork(SUFFIXES),
    "other suffixes": Fork({name: ("models.common", f"{name}_Prune") for name in SUFFIXES}),
    "strangers": Fork(STRANGERS),
    "other children": Fork(STRANGERS, {"C3": ("one", "two", "three", "chain"), "SPPF": ("a", "b", "pool")}),
}


@pytest.mark.parametrize("fork", FORKS_OF)
def test_blocks_of_forks_are_read(
    fork: str, lively: Callable[..., Detector], write_upstream: Any, caplog: pytest.LogCaptureFixture
) -> None:
    detector = lively("yolov5n", nc=3)
    _same(write_upstream(detector, half=False, fork=FORKS_OF[fork]), detector)
    assert ("Thin0 layers have the structure of C3" in caplog.text) == (FORKS_OF[fork].homes is STRANGERS)


def test_a_block_that_only_looks_alike_is_refused(lively: Callable[..., Detector], write_upstream: Any) -> None:
    """Two convolutions without a word about a shortcut may be anything."""
    detector = lively("yolov5n", nc=3)
    for bottleneck in detector.model[2].m:
        del bottleneck.add
    with pytest.raises(UserError, match=r"models\.slim\.Thin1, which is not a supported block"):
        load_checkpoint(write_upstream(detector, fork=Fork(STRANGERS)))


@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_checkpoints_of_other_tasks_are_told_apart(task: str, write_upstream: Any) -> None:
    fork = Fork({"Detect": ("models.yolo", "Segment"), "C3": ("models.common", "Classify")})
    with pytest.raises(UserError, match=rf"is a YOLOv5 checkpoint for {task}\. Only detectors"):
        load_checkpoint(write_upstream(tiny(), kind=f"{task.title()}Model", fork=fork))


def test_an_unknown_block_is_named(write_upstream: Any) -> None:
    detector = tiny()
    detector.model[0].attention = fake_class("models.common", "CBAM")()
    with pytest.raises(UserError, match=r"models\.common\.CBAM"):
        load_checkpoint(write_upstream(detector))


def test_every_cut_off_length_is_refused(write_upstream: Any, tmp_path: Path) -> None:
    whole = write_upstream(tiny()).read_bytes()
    for share in (0.01, 0.3, 0.9, 0.999):
        path = tmp_path / "part.pt"
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(UserError, match=r"part\.pt"):
            load_checkpoint(path)


def test_damaged_tables_of_contents_are_refused(write_upstream: Any, tmp_path: Path) -> None:
    """A byte of the zip archive's table is another one: a bad name, an unknown version, a record out of the file."""
    whole = bytearray(write_upstream(tiny()).read_bytes())
    table = whole.index(b"PK\x01\x02")
    path, refused = tmp_path / "damaged.pt", 0
    for place in [*range(table, table + 46), *range(len(whole) - 22, len(whole))]:
        damaged = whole.copy()
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        try:
            load_checkpoint(path)  # some bytes, such as dates, mean nothing
        except UserError as error:
            refused += 1
            assert "damaged.pt" in str(error) and "\n" not in str(error)
    assert refused > 15
