"""Checkpoints that lie: they are refused in one sentence, with memory in proportion to the file."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from detector_files import tiny
from hostile_checkpoints import PICKLES, archive, bomb, changed, raw, stream, tensor
from torch import nn

from hostile_yaml import check_sentence
from secateur.errors import UserError
from secateur.families.loading import load_checkpoint
from secateur.families.yolov5.model import Detector
from secateur.networks.checkpoint import Checkpoint, save_checkpoint
from secateur.networks.formats.records import Record, refuse_endless


def refused(path: Path, *words: str) -> None:
    """Loading, and building, ends in one sentence."""
    with pytest.raises(UserError) as caught:
        load_checkpoint(path).build()
    check_sentence(caught.value, *words)


@pytest.fixture(scope="module")
def hostile_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All small files that declare gigabytes."""
    folder = tmp_path_factory.mktemp("hostile")
    for number, content in enumerate(PICKLES.values()):
        archive(folder / f"zip{number}.pt", content)
        stream(folder / f"stream{number}.pt", content, 4)
        (folder / f"bare{number}.pt").write_bytes(content)
    stream(folder / "long.pt", tensor(2**40, (2**40,), (1,)), 2**40)
    stream(folder / "longer.pt", tensor(4, (4,), (1,)), 2**62)
    bomb(folder / "bomb.pt")
    return folder


def test_small_files_take_little_memory(hostile_folder: Path) -> None:
    """One process reads them all: it may not grow by more than what reading takes, and each is refused."""
    code = f"""
        import resource
        from pathlib import Path
        from secateur.families.loading import load_checkpoint
        from secateur.networks.formats.pickled import read_plain
        from secateur.errors import UserError
        files = sorted(Path({str(hostile_folder)!r}).iterdir())
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 500_000_000,) * 2)
        before = peak()
        for file in files:
            for read in (load_checkpoint, read_plain):
                try:
                    found = read(file)
                    if read is load_checkpoint or len(str(found)) > 200:
                        print("read", file.name)
                except UserError as error:
                    if len(str(error)) - len(str(file)) > 300 or "MemoryError" in repr(error.__cause__):
                        print(error, error.__cause__)
        print(len(files), peak() - before)
    """
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    *told, last = ran.stdout.splitlines()
    assert told == []
    files, kilobytes = map(int, last.split())
    assert files == 3 * len(PICKLES) + 3
    assert kilobytes < 60_000


def test_a_zip_bomb_is_named(hostile_folder: Path) -> None:
    assert (hostile_folder / "bomb.pt").stat().st_size < 2_000_000
    refused(hostile_folder / "bomb.pt", "bomb.pt", "unpacked bytes")


def test_an_archive_that_was_compressed_is_read(tmp_path: Path, write_upstream: Any) -> None:
    import zipfile

    with zipfile.ZipFile(write_upstream(tiny())) as whole, zipfile.ZipFile(tmp_path / "z.pt", "w", 8) as packed:
        for name in whole.namelist():
            packed.writestr(name, whole.read(name))
    expected, found = load_checkpoint(tmp_path / "stock.pt"), load_checkpoint(tmp_path / "z.pt")
    assert all(torch.equal(value, found.tensors[name]) for name, value in expected.tensors.items())


def test_older_streams_are_read(write_upstream: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    detector = tiny()
    expected = load_checkpoint(write_upstream(detector))
    save = torch.save
    monkeypatch.setattr(torch, "save", lambda *args: save(*args, _use_new_zipfile_serialization=False))
    found = load_checkpoint(write_upstream(detector))
    assert not (tmp_path / "stock.pt").read_bytes().startswith(b"PK")
    assert expected.tensors.keys() == found.tensors.keys()
    for name, value in expected.tensors.items():
        assert torch.equal(value, found.tensors[name]) and value.dtype == found.tensors[name].dtype


def test_every_dtype_and_shape_comes_out(tmp_path: Path) -> None:
    from secateur.networks.formats.pickled import read_records

    base = torch.arange(24.0)
    values = {
        "double": base.double().view(2, 3, 4),
        "bfloat": base.bfloat16(),
        "half": base.half().view(4, 6).t(),
        "ints": base.to(torch.int32)[3:9:2],
        "bytes": base.to(torch.uint8),
        "bools": base > 3,
        "scalar": torch.tensor(3),
        "empty": torch.zeros(0, 3),
        "expanded": torch.zeros(1).expand(5, 5),
        "parameter": nn.Parameter(base),
        "complex": torch.complex(base, base),
        "size": base.view(2, 12).shape,
    }
    for zipped in (True, False):
        torch.save(values, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
        found = read_records(tmp_path / "x.pt", (), lambda name: None)
        assert found.pop("size") == (2, 12)
        for name, value in found.items():
            assert torch.equal(value, values[name]) and value.dtype == values[name].dtype, name


def _set(detector: Detector, name: str, value: Any) -> None:
    module, _, attribute = name.rpartition(".")
    setattr(detector.get_submodule(module), attribute, value)


def _row(kind: str, args: list[Any], repeats: Any = 1) -> dict[str, Any]:
    rows = [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "C3", [8]], [-1, 1, "Conv", [16, 3, 2]], [-1, repeats, kind, args]]
    head = [[[1, 3], 1, "Detect", ["nc", "anchors"]]]
    return {"nc": 1, "anchors": 3, "backbone": rows, "head": head}


def _shared(depth: int) -> list[Any]:
    value: list[Any] = ["x"]
    for _ in range(depth):
        value = [value] * 10
    return value


@pytest.mark.parametrize(
    "change",
    [
        lambda d: _set(d, "model.4.nc", 30_000_000),
        lambda d: _set(d, "model.4.nc", "x" * 6000),
        lambda d: _set(d, "model.4.nc", _shared(40)),
        lambda d: _set(d, "model.4.anchors", torch.zeros(1, 1, 1).expand(2, 10**6, 2)),
        lambda d: _set(d, "model.4.anchors", torch.zeros(1, 1, 1).expand(2, 10**9, 2)),
        lambda d: _set(d, "model.0.conv.weight", nn.Parameter(torch.zeros(1, 1, 1, 1).expand(10**5, 3, 10**4, 3))),
        lambda d: _set(d, "model.0.conv.stride", _shared(40)),
        lambda d: _set(d, "model.0.conv.stride", "x" * 6000),
    ],
    ids=["nc", "nc text", "nc lists", "anchors", "huge anchors", "expanded", "stride lists", "stride text"],
)
def test_stock_files_that_declare_too_much(change: Callable[[Detector], None], write_upstream: Any) -> None:
    detector = tiny()
    change(detector)
    refused(write_upstream(detector, half=False, names=["a"]), "stock.pt")


def test_modules_that_contain_themselves_are_refused() -> None:
    within = Record()
    within.attributes["_modules"] = {"again": within}
    often = Record()
    for _ in range(20):
        outer = Record()
        outer.attributes["_modules"] = {str(number): often for number in range(10)}
        often = outer
    for record in (within, often):
        with pytest.raises(UserError, match="contain themselves"):
            refuse_endless(record)


# Made in the test: what pytest would print of these never ends.
YAML_INSIDE: dict[str, Callable[[], dict[str, Any]]] = {
    "repeats": lambda: _row("Bottleneck", [16], 10**6),
    "repeats of 400 digits": lambda: _row("Bottleneck", [16], 10**400),
    "width": lambda: _row("Conv", [10**9]),
    "argument": lambda: _row("SPPF", [16, _shared(30)]),
    "kind": lambda: _row("x" * 6000, [16]),
    "kind of lists": lambda: _row(_shared(30), [16]),  # type: ignore[arg-type]
    "depth": lambda: {**_row("SPPF", [16, 5]), "depth_multiple": float("inf")},
    "activation": lambda: {**_row("SPPF", [16, 5]), "activation": _shared(40)},
    "nothing": lambda: {"backbone": [], "head": []},
    "rows of lists": lambda: {"backbone": [_shared(40)], "head": [_shared(40)]},
}


@pytest.mark.parametrize("name", YAML_INSIDE)
def test_stock_files_with_a_hostile_yaml_inside(name: str, write_upstream: Any) -> None:
    refused(write_upstream(tiny(), yaml=YAML_INSIDE[name]()), "stock.pt")


def test_settings_that_repeat_without_end_are_refused(write_upstream: Any) -> None:
    refused(write_upstream(tiny(), date=_shared(40)), "stock.pt")
    refused(write_upstream(tiny(), names=_shared(40)), "stock.pt")


DEEP = "[" * 100_000 + "]" * 100_000


def _update(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda data: data.update(changes)


def _topology(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda data: data["topology"].update(changes)


def _block(index: int, place: int, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        data["topology"]["blocks"][index][place] = value

    return change


METADATA: dict[str, Callable[[dict[str, Any]], None]] = {
    "version": _update(version=float("inf")),
    "version list": _update(version=[1]),
    "a newer version": _update(version=10**400),
    "image size": _update(image_size=float("inf")),
    "image size 1e10": _update(image_size=10**10),
    "image size NaN": _update(image_size=float("nan")),
    "strides": _update(strides=[8.0]),
    "no strides": _update(strides=[]),
    "strides of inf": _update(strides=[float("inf"), 8.0]),
    "strides text": _update(strides="x" * 6000),
    "names": _update(names={"0": "a"}),
    "names of text": _update(names={"x" * 6000: "a"}),
    "names list": _update(names=["a", "b"]),
    "plan": _update(plan=7),
    "history": _update(history=[{"verb": "x", "settings": 3}]),
    "history metrics": _update(history=[{"verb": "x", "metrics": [1]}]),
    "history keys": _update(history=[{"x" * 6000: 1}]),
    "training": _update(training=3),
    "architecture": _update(architecture="x" * 6000),
    "architecture list": _update(architecture=[1]),
    "topology": _update(topology=[]),
    "nc": _topology(nc=30_000_000),
    "nc inf": _topology(nc=float("inf")),
    "nc 0": _topology(nc=0),
    "channels": _topology(channels=10**9),
    "anchors": _topology(anchors=[[1e12] * 4] * 2),
    "anchors inf": _topology(anchors=[[float("inf")] * 4] * 2),
    "anchors empty": _topology(anchors=[[], []]),
    "no anchors": _topology(anchors=[]),
    "no blocks": _topology(blocks=[]),
    "activation": _topology(activation="x" * 6000),
    "activation inf": _topology(activation="LeakyReLU(inf)"),
    "repeats": _block(1, 1, 10**6),
    "repeats inf": _block(1, 1, float("inf")),
    "width": _block(0, 3, [10**9, 3, 2]),
    "width 400 digits": _block(0, 3, [10**400, 3, 2]),
    "width text": _block(0, 3, ["x" * 6000]),
    "no width": _block(0, 3, []),
    "width NaN": _block(0, 3, [float("nan"), 3, 2]),
    "kernel": _block(0, 3, [8, {}, 2]),
    "kernel text": _block(0, 3, [8, "x", 2]),
    "kernel 0": _block(0, 3, [8, 0, 0]),
    "sources": _block(0, 0, [10**400]),
    "sources text": _block(0, 0, ["x"]),
    "no sources": _block(0, 0, []),
    "kind": _block(0, 2, "x" * 6000),
    "args": _block(0, 3, 5),
}


@pytest.mark.parametrize("name", METADATA)
def test_broken_metadata_is_refused(name: str, tmp_path: Path) -> None:
    refused(changed(tmp_path / "x.safetensors", METADATA[name]))


@pytest.mark.parametrize("text", [DEEP, f'{{"version": {DEEP}}}', '{"version": Infinity}', "1", '"x"', "null", "{", ""])
def test_metadata_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    refused(raw(tmp_path / "x.safetensors", text, {}, b""), "x.safetensors")


MASK = "masks/model.0.conv.weight"  # [8, 3, 3, 3]: 216 bits, 27 bytes


@pytest.mark.parametrize(
    ("dtype", "shape", "size"),
    [
        ("F32", [8, 3, 3, 3], 864),
        ("F32", [27], 108),
        ("I64", [27], 216),
        ("U8", [26], 26),
        ("U8", [1], 1),
        ("U8", [0], 0),
    ],
)
def test_masks_of_another_kind_are_refused(dtype: str, shape: list[int], size: int, tmp_path: Path) -> None:
    refused(changed(tmp_path / "x.safetensors", _update(), {MASK: (dtype, shape, bytes(size))}), "mask")
    sound = changed(tmp_path / "y.safetensors", _update(), {MASK: ("U8", [27], bytes(27))})
    assert not load_checkpoint(sound).masks["model.0.conv.weight"].any()


@pytest.mark.parametrize("shape", [[2**40, 2**40], [2**62, 8], [10**9], [-1], ["x"], [1.5], [2**64]])
def test_shapes_that_overflow_are_refused(shape: list[Any], tmp_path: Path) -> None:
    path = changed(tmp_path / "x.safetensors", _update(), {"extra": ("F32", shape, bytes(4))})
    refused(path, "x.safetensors")


def test_a_header_longer_than_the_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    for start in (b"\xff" * 8, b"\x00" * 8, (10**8).to_bytes(8, "little")):
        path.write_bytes(start + b"{}" + bytes(100))
        refused(path, "x.safetensors")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("model.0.conv.weight", float("nan"), "NaN in model.0.conv.weight"),
        ("model.2.bn.bias", float("inf"), "infinite values in model.2.bn.bias"),
        ("model.2.bn.running_mean", float("-inf"), "infinite values in model.2.bn.running_mean"),
        ("model.2.bn.running_var", -0.5, "a negative variance in model.2.bn.running_var"),
    ],
)
@pytest.mark.parametrize("half", [False, True])
def test_broken_weights_are_named(name: str, value: float, words: str, half: bool, tmp_path: Path) -> None:
    checkpoint = Checkpoint.of(tiny())
    checkpoint.tensors[name].view(-1)[1] = value
    path = tmp_path / "x.safetensors"
    save_checkpoint(checkpoint.half() if half else checkpoint, path)
    refused(path, "x.safetensors", words)
    assert load_checkpoint(path, sound=False).tensors[name].view(-1)[1].isnan() == (value != value)


def test_large_weights_are_no_broken_ones(tmp_path: Path) -> None:
    checkpoint = Checkpoint.of(tiny())
    checkpoint.tensors["model.0.conv.weight"].fill_(3e38)
    save_checkpoint(checkpoint, tmp_path / "x.safetensors")
    assert load_checkpoint(tmp_path / "x.safetensors").nc == 1


def test_stock_files_with_broken_weights_are_named(write_upstream: Any) -> None:
    detector = tiny()
    detector.model[0].conv.weight.data[0, 0, 0, 0] = float("nan")
    refused(write_upstream(detector), "NaN in model.0.conv.weight")


def test_info_shows_broken_weights_and_others_refuse(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from secateur.cli import main

    monkeypatch.chdir(tmp_path)
    checkpoint = Checkpoint.of(tiny())
    checkpoint.tensors["model.0.conv.weight"][0] = float("nan")
    save_checkpoint(checkpoint, "x.safetensors")
    main(["info", "x.safetensors"])
    assert "warning: the weights contain NaN in model.0.conv.weight" in capsys.readouterr().out
    main(["info", "x.safetensors", "--json"])
    assert json.loads(capsys.readouterr().out)["flaw"] == "NaN in model.0.conv.weight"
    for words in (["prune", "--flops", "0.5"], ["export"], ["val", "--data", "none.yaml"]):
        with pytest.raises(SystemExit) as stopped:
            main([words[0], "--weights", "x.safetensors", *words[1:]])
        assert stopped.value.code == 2
        capsys.readouterr()
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]
