"""TorchScript: prepared images float32 [B, C, H, W] -> the outputs of the network, for PyTorch without Python.

The file contains `config.txt`, JSON with `shape`, `stride` and `names` as in YOLOv5's exports, and additional keys. It
runs on the CPU or a GPU.

A TorchScript file is a program. PyTorch runs it without Python, but it has operators that read and write files, and
part of a program runs while it is opened. Therefore its code is scanned first, and files with such operators are
rejected. The scan reduces the risk but guarantees nothing: open files from trusted sources only.
"""

from __future__ import annotations

import io
import json
import pickletools
import re
import zipfile
import zlib
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from secateur.deploy.exporters import EXPORTERS, Exporter, Written
from secateur.deploy.metadata import Metadata
from secateur.deploy.predictor import FilePredictor, must_exist, own_precision
from secateur.deploy.runtimes import RUNTIMES, Runtime
from secateur.deploy.settings import ExportSettings
from secateur.deploy.source import Source
from secateur.errors import UserError, told
from secateur.families.outputs import Answer, tensors_of
from secateur.machine import use_threads
from secateur.networks.formats.archive import refuse_bombs
from secateur.pruning.graph import Stored
from secateur.terminal import silenced

CONFIG = "config.txt"
USUAL_BATCH, USUAL_SIZE = 1, (640, 640)
"""Assumed input shape of a file that does not state it."""
# Operators that access files, C++ classes (some open connections), and operators of packages other than torchvision.
_REACHING = re.compile(
    r"\b(?:save|load|from_file|read_file|write_file|classes|rpc\w*)\b|\bops\s*\.\s*(?!(?:prim|aten|torchvision)\b)\w+"
)
_CLASSES = re.compile(r"torch\.classes")
_MOST_TEXT = 100e6
_ITEM_BYTES = {
    "Double": 8, "Float": 4, "Half": 2, "BFloat16": 2, "Long": 8, "Int": 4, "Short": 2, "Char": 1, "Byte": 1, "Bool": 1,
}  # fmt: skip


def write(source: Source, path: Path, settings: ExportSettings) -> Written:
    """Writes the file; see `Exporter`.

    The module is not frozen: freezing makes no network faster (measured), and a program that converts the opened module
    to another dtype, as YOLOv5 does, would leave frozen weights unconverted.

    Raises:
        UserError: the network cannot be traced.
    """
    program = source.traced(settings, "TorchScript")
    told = source.metadata(settings).to_dict() | {"shape": list(source.example(settings).shape)}
    buffer = io.BytesIO()  # saving to a path would store the temporary name in the file
    with silenced():
        torch.jit.save(program, buffer, _extra_files={CONFIG: json.dumps(told)})
    path.write_bytes(buffer.getvalue())
    return Written()


class TorchScriptPredictor(FilePredictor):
    """A TorchScript program."""

    def __init__(self, path: Path, device: torch.device, threads: int, precision: str) -> None:
        """Opens a file; see `runtimes.open_predictor`. Runs it once, on black images, to get the shapes of its
        outputs.
        """
        own_precision(path, precision)
        # PyTorch's number of threads applies to the whole program.
        granted = use_threads(threads) if device.type == "cpu" else torch.get_num_threads()
        self._program, told = _open(path, device)
        metadata = Metadata.read(told)
        takes = _takes(told, metadata)
        self.device = device
        self._dtype = next((weight.dtype for weight in self._program.parameters()), torch.float32)
        try:
            outputs = self.run(np.zeros(takes, np.float32))
        except Exception as error:  # the program raises many types, some from C++
            reason = " ".join(str(error).split())[-200:]
            raise UserError(f"{path} fails on images of {' x '.join(map(str, takes))}: {reason}") from None
        batch = None if metadata.batch == 0 else takes[0]
        super().__init__(
            path,
            metadata,
            takes=(batch, *takes[1:]),
            gives=[(batch, *output.shape[1:]) for output in outputs],
            device=device,
            threads=granted,
            answer=Answer(metadata.stated, takes[0], (takes[2], takes[3]), outputs, metadata.task, metadata.strides),
        )

    def run(self, images: NDArray[np.float32]) -> list[NDArray[Any]]:
        """Images float32 [B, C, H, W] in 0..1 -> the outputs."""
        with torch.inference_mode():
            given = self._program(torch.from_numpy(images).to(self.device, self._dtype))
            return [output.float().cpu().numpy() for output in tensors_of(given)[: self.used]]


def _open(path: Path, device: torch.device) -> tuple[Any, Any]:
    """A program, and its metadata."""
    must_exist(path)
    try:
        word = _checked(path)
    except (zipfile.BadZipFile, zlib.error, OSError, ValueError, NotImplementedError, RuntimeError, EOFError) as error:
        raise UserError(f"Cannot read {path} as a TorchScript file: {error}") from None
    if word:
        raise UserError(
            f"{path} was not opened: its program contains '{word}', which no network needs. Export the network "
            "again from a trusted source."
        )
    extra: dict[str, Any] = {CONFIG: ""}
    try:
        with silenced():
            program = torch.jit.load(str(path), map_location=device, _extra_files=extra).eval()
    except Exception as error:  # torch raises many types, some from C++
        raise UserError(f"PyTorch cannot run {path}: {told(error, 200)}") from None
    try:
        return program, json.loads(extra[CONFIG] or "{}")
    except (ValueError, RecursionError):
        return program, {}


def _checked(path: Path) -> str:
    """The first forbidden word in the program's code; "" if there is none.

    Raises:
        ValueError: the file is damaged, which PyTorch would not detect.
        UserError: it declares more data than it contains.
    """
    with zipfile.ZipFile(path) as archive:
        # PyTorch compresses only the code of a program, which can expand a lot.
        refuse_bombs(path, archive, path.stat().st_size, text="/code/")
        if sum(entry.file_size for entry in archive.infolist() if "/code/" in entry.filename) > _MOST_TEXT:
            raise ValueError("its program is too long")
        if damaged := archive.testzip():
            raise ValueError(f"{damaged} is damaged")
        for entry in archive.infolist():
            is_code = "/code/" in entry.filename and not entry.filename.endswith(".debug_pkl")
            if not is_code and not entry.filename.endswith(".pkl"):
                continue
            if entry.file_size > _MOST_TEXT:
                raise ValueError("one of its pickles is too long")
            content = archive.read(entry)
            if found := (_REACHING if is_code else _CLASSES).search(content.decode("utf-8", "replace")):
                return found[0]
            if entry.filename.endswith(("/data.pkl", "/constants.pkl")):
                _check_storages(archive, entry.filename.removesuffix(".pkl"), content)
    return ""


def _check_storages(archive: zipfile.ZipFile, folder: str, pickled: bytes) -> None:
    """Rejects tensors that are longer than their data: PyTorch would read beyond the end of the memory.

    The pickle is not executed; only the numbers and strings of its opcodes are read.

    Raises:
        ValueError: the message names the data.
    """
    sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
    known: dict[Any, Any] = {}
    last: deque[Any] = deque(maxlen=4)  # storage type, key, device, number of items
    for operation, argument, _ in pickletools.genops(pickled):
        if operation.name in ("BINPUT", "LONG_BINPUT"):
            known[argument] = last[-1] if last else None
        elif operation.name in ("BINGET", "LONG_BINGET"):
            last.append(known.get(argument))
        elif operation.name == "BINPERSID" and len(last) == 4:
            kind, key, _device, count = last
            item = _ITEM_BYTES.get(str(kind).removeprefix("torch ").removesuffix("Storage"), 1)
            if isinstance(count, int) and count * item > sizes.get(f"{folder}/{key}", 0):
                raise ValueError(f"a tensor is longer than its data, {folder}/{key}")
        elif argument is not None:
            last.append(argument)


def _takes(told: Any, metadata: Metadata) -> tuple[int, ...]:
    """The input shape with which the file was traced, if stated."""
    shape = told.get("shape") if isinstance(told, dict) else None
    if isinstance(shape, list) and len(shape) == 4 and all(isinstance(side, int) and 0 < side < 1e5 for side in shape):
        return tuple(shape)
    return (metadata.batch or USUAL_BATCH, metadata.channels, *(metadata.size or USUAL_SIZE))


EXPORTERS.register("torchscript")(
    Exporter(
        "TorchScript",
        ".torchscript",
        (),
        "",
        write,
        precisions=("fp32", "fp16"),
        outputs=("decoded", "raw", "detections"),
        dynamic=True,
        stored={"fp32": Stored(4, 4, 4), "fp16": Stored(2, 2, 2)},
    )
)
RUNTIMES.register(".torchscript")(Runtime("TorchScript", TorchScriptPredictor))
