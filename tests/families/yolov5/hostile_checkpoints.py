"""Small `.pt` and `.safetensors` files that declare far more than they hold, or what no detector is."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from detector_files import tiny

from secateur.networks.checkpoint import Checkpoint, save_checkpoint


def call(name: str, *args: bytes) -> bytes:
    """A pickle (protocol 2) of a dict whose model is a call of `name` ("builtins bytearray") with these arguments."""
    module, _, function = name.partition(" ")
    inner = b"(" + b"".join(args) + b"t"
    return b"\x80\x02}X\x05\x00\x00\x00model" + f"c{module}\n{function}\n".encode() + inner + b"Rs."


def number(value: int) -> bytes:
    """A whole number in a pickle."""
    return pickle.dumps(value, protocol=2)[2:-1]


def storage(count: int, key: str = "0", kind: str = "FloatStorage") -> bytes:
    """A storage, as PyTorch names it."""
    text = b"X" + struct.pack("<I", len(key)) + key.encode()
    return (
        b"(X\x07\x00\x00\x00storage"
        + f"ctorch\n{kind}\n".encode()
        + text
        + b"X\x03\x00\x00\x00cpu"
        + number(count)
        + b"tQ"
    )


def tensor(count: int, size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> bytes:
    """A tensor that is a view of a storage of `count` values."""
    shape, steps = (b"(" + b"".join(map(number, numbers)) + b"t" for numbers in (size, stride))
    args = storage(count) + number(offset) + shape + steps + b"\x89" + b"ccollections\nOrderedDict\n)R"
    return call("torch._utils _rebuild_tensor_v2", args)


def archive(path: Path, pickled: bytes, storages: dict[str, bytes] | None = None, compression: int = 0) -> Path:
    """A zip archive laid out as PyTorch's."""
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("archive/data.pkl", pickled)
        for key, data in (storages or {"0": bytes(16)}).items():
            file.writestr(f"archive/data/{key}", data)
        file.writestr("archive/version", "3\n")
    return path


def _doubled(times: int) -> bytes:
    """Bytes that are encoded again and again: each time twice as long."""
    text = b"X\x08\x00\x00\x00deadbeef"
    for _ in range(times):
        text = b"c_codecs\nencode\n(" + text + b"X\x03\x00\x00\x00hext" + b"R"
    return b"\x80\x02" + text + b"."


def _nested(times: int) -> bytes:
    """A list that holds a list ten times, which holds a list ten times, ..."""
    out = b"\x80\x02]q\x00"
    for level in range(times):
        out += b"](" + b"h" + bytes([level]) + (b"h" + bytes([level])) * 9 + b"eq" + bytes([level + 1])
    return out + b"."


PICKLES: dict[str, bytes] = {
    "bytearray": call("builtins bytearray", number(8_000_000_000)),
    "bytearray of Python 2": call("__builtin__ bytearray", number(8_000_000_000)),
    "a tensor by its class": call("torch FloatTensor", number(2_000_000_000)),
    "a storage by its class": call("torch.storage UntypedStorage", number(8_000_000_000)),
    "stride 0": tensor(4, (2_000_000_000,), (0,)),
    "stride 0 twice": tensor(4, (2**40, 2**40), (0, 0)),
    "larger than its storage": tensor(4, (2_000_000_000,), (1,)),
    "behind its storage": tensor(4, (1,), (1,), offset=2_000_000_000),
    "a negative stride": tensor(4, (2,), (-1,)),
    "a negative size": tensor(4, (-1,), (1,)),
    "a storage that is not there": tensor(2_000_000_000, (2_000_000_000,), (1,)),
    "encoded again and again": _doubled(40),
    "lists of lists": _nested(60),
    "a place of a memo": b"\x80\x02]r" + struct.pack("<I", 2**32 - 1) + b".",
    "a string": b"\x80\x02X" + struct.pack("<I", 2**32 - 1) + b"a.",
    "a byte array of protocol 5": b"\x80\x05\x96" + struct.pack("<Q", 8_000_000_000) + b"a.",
    "attributes of a function": call("collections OrderedDict")[:-2] + b"}bs.",
    "a key of tuples": b"\x80\x02}" + b"(" * 30 + b"t" * 30 + b"Ns.",
    "range": call("__builtin__ xrange", number(10**12)),
    "no end": b"\x80\x02(((((",
    "deep": b"\x80\x02" + b"]" * 5000 + b"a" * 4999 + b".",
}


def bomb(path: Path, megabytes: int = 1000) -> Path:
    """A zip archive that unpacks to a thousand times its size."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", tensor(megabytes * 250_000, (megabytes * 250_000,), (1,)))
        with file.open("archive/data/0", "w", force_zip64=True) as entry:
            for _ in range(megabytes):
                entry.write(bytes(1_000_000))
    return path


def stream(path: Path, content: bytes, length: int) -> Path:
    """A file of PyTorch before 1.6 whose one storage says that it has `length` values."""
    head = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({}, 2)
    path.write_bytes(head + content + pickle.dumps(["0"], 2) + struct.pack("<q", length) + bytes(16))
    return path


def changed(path: Path, change: Callable[[dict[str, Any]], None], tensors: dict[str, Any] | None = None) -> Path:
    """A sound `.safetensors` checkpoint whose metadata is changed in place, and to which tensors may be added."""
    save_checkpoint(Checkpoint.of(tiny(nc=2)), path)
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    data = json.loads(header["__metadata__"]["secateur"])
    change(data)
    return raw(path, json.dumps(data), header, content[8 + length :], tensors)


def raw(path: Path, metadata: str, header: dict[str, Any], body: bytes, tensors: dict[str, Any] | None = None) -> Path:
    """A `.safetensors` file put together by hand; `tensors` are (dtype, shape, bytes) by name."""
    header["__metadata__"] = {"secateur": metadata}
    for name, (dtype, shape, data) in (tensors or {}).items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return path
