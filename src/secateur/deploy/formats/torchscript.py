"""TorchScript: prepared images float32 [B, C, H, W] -> the outputs of the network, for PyTorch without Python.

The file carries `config.txt`, JSON with `shape`, `stride` and `names`, as YOLOv5's exports do, and more. It runs on the
CPU or a GPU, by PyTorch.

Such a file is a program. PyTorch runs it without Python, but it knows operators that read and write files, and some of
a program runs while it is opened. So its text is looked through first, and a file with words of that kind is refused.
That is a fence and no proof: open files of people whom you trust.
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
"""What a file takes that does not tell."""
# Operators that reach files, classes of C++ (some open connections), and operators of other packages than torchvision.
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

    It is not frozen: measured, that makes no network faster, and a program that turns what it has opened into another
    dtype, as YOLOv5's does, would leave frozen weights behind.

    Raises:
        UserError: the network cannot be traced.
    """
    program = source.traced(settings, "TorchScript")
    told = source.metadata(settings).to_dict() | {"shape": list(source.example(settings).shape)}
    buffer = io.BytesIO()  # saved straight into a file, it would hold that file's temporary name
    with silenced():
        torch.jit.save(program, buffer, _extra_files={CONFIG: json.dumps(told)})
    path.write_bytes(buffer.getvalue())
    return Written()


class TorchScriptPredictor(FilePredictor):
    """A TorchScript program."""

    def __init__(self, path: Path, device: torch.device, threads: int, precision: str) -> None:
        """Opens a file; see `runtimes.open_predictor`. It runs once, on black images, for the shapes that it gives."""
        own_precision(path, precision)
        # PyTorch's number of threads is one for the whole program.
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
            raise UserError(f"{path} does not run on images of {' x '.join(map(str, takes))}: {reason}") from None
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
    """A program, and what its file says of it."""
    must_exist(path)
    try:
        word = _checked(path)
    except (zipfile.BadZipFile, zlib.error, OSError, ValueError, NotImplementedError, RuntimeError, EOFError) as error:
        raise UserError(f"{path} is not a TorchScript file that can be read: {error}") from None
    if word:
        raise UserError(f"{path} is not opened: its program holds '{word}', which no network needs.")
    extra: dict[str, Any] = {CONFIG: ""}
    try:
        with silenced():
            program = torch.jit.load(str(path), map_location=device, _extra_files=extra).eval()
    except Exception as error:  # torch raises many types, some from C++
        raise UserError(f"{path} is not a TorchScript program that PyTorch can run: {told(error, 200)}") from None
    try:
        return program, json.loads(extra[CONFIG] or "{}")
    except (ValueError, RecursionError):
        return program, {}


def _checked(path: Path) -> str:
    """The first word of the program's text that reaches beyond tensors; "" without.

    Raises:
        ValueError: the file is damaged, which PyTorch would not notice.
        UserError: it declares more than it holds.
    """
    with zipfile.ZipFile(path) as archive:
        # PyTorch packs the text of a program, which grows a lot, and nothing else.
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
    """Refuses tensors that are longer than their data: PyTorch would read beyond the end of the memory.

    The pickle is not run: of its operations only the numbers and words are read.

    Raises:
        ValueError: naming the data.
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
    """The shape of images that the file was traced with, as far as it tells."""
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
