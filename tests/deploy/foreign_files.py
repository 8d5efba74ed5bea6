"""Small files as other programs export them: any outputs, any metadata, in ONNX, TorchScript and OpenVINO."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from secateur.terminal import silenced

SIZE = (64, 96)
ULTRALYTICS = {"description": "Ultralytics YOLOv8n model", "author": "Ultralytics", "stride": 32, "batch": 1}


class Answers(nn.Module):
    """Gives the same outputs for every image."""

    def __init__(self, *outputs: Tensor) -> None:
        super().__init__()
        self.count = len(outputs)
        for number, output in enumerate(outputs):
            self.register_buffer(f"output{number}", output.float())

    def forward(self, images: Tensor) -> Any:
        nothing = images.mean() * 0
        found = [getattr(self, f"output{number}") + nothing for number in range(self.count)]
        return found[0] if self.count == 1 else tuple(found)


class Sick(nn.Module):
    """YOLOv5's rows for two classes; for bright images one row holds a fault."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault
        self.register_buffer("output0", rows(2))
        self.register_buffer("first", torch.zeros(1, self.output0.shape[1], 1))
        self.first[0, 7] = 1

    def forward(self, images: Tensor) -> Tensor:
        light = images.mean((1, 2, 3)).view(-1, 1, 1)
        bright = (light > 0.5).float()
        found = self.output0 * torch.ones_like(light)
        box, score, classes = found[..., :4], found[..., 4:5], found[..., 5:]
        score = score + bright * self.first * (1 - score)
        if self.fault == "all NaN":
            return torch.cat((box, score, classes), -1) + torch.log(1 - bright * 2)
        if self.fault == "NaN box":
            box = box + torch.log(1 - bright * self.first * 2)
        if self.fault == "infinite box":
            box = box / (1 - bright * self.first)
        if self.fault == "negative width":
            box = box * (1 - 2 * bright * self.first)
        if self.fault == "score":
            classes = classes + 2.7 * bright * self.first
        return torch.cat((box, score, classes), -1)


class Pooled(nn.Module):
    """YOLOv8's layout for images of any size: [B, 4 + nc, cells]."""

    def __init__(self, nc: int) -> None:
        super().__init__()
        self.widen = nn.Conv2d(3, 4 + nc, 1)

    def forward(self, images: Tensor) -> Tensor:
        maps = [nn.functional.avg_pool2d(self.widen(images), stride).flatten(2) for stride in (8, 16, 32)]
        return torch.cat(maps, 2).sigmoid()


def cells(size: tuple[int, int] = SIZE, strides: Sequence[int] = (8, 16, 32)) -> int:
    return sum((size[0] // stride) * (size[1] // stride) for stride in strides)


def rows(
    nc: int,
    size: tuple[int, int] = SIZE,
    strides: Sequence[int] = (8, 16, 32),
    anchors: int = 3,
    extra: int = 0,
) -> Tensor:
    """YOLOv5's decoded rows [1, N, 5 + nc + extra], with random values behind the scores."""
    generator = torch.Generator().manual_seed(0)
    parts = []
    for stride in strides:
        ny, nx = size[0] // stride, size[1] // stride
        for _ in range(anchors):
            p = torch.rand(ny, nx, 5 + nc, generator=generator)
            line, column = torch.meshgrid(torch.arange(ny), torch.arange(nx), indexing="ij")
            xy = (p[..., :2] * 2 - 0.5 + torch.stack((column, line), -1)) * stride
            wh = (p[..., 2:4] * 2) ** 2 * stride
            masks = 2 * torch.randn(ny, nx, extra, generator=generator)
            parts.append(torch.cat((xy, wh, p[..., 4:], masks), -1).reshape(1, ny * nx, -1))
    return torch.cat(parts, 1)


def boxes(count: int, width: int) -> Tensor:
    """Boxes after suppression [1, count, width]: x1, y1, x2, y2, score, class."""
    found = torch.rand(1, count, width)
    found[..., :2] *= 30
    found[..., 2:4] = found[..., :2] + 30 * found[..., 2:4]
    found[..., 5:] = 0
    return found


def columns(nc: int, size: tuple[int, int] = SIZE, strides: Sequence[int] = (8, 16, 32), extra: int = 0) -> Tensor:
    """YOLOv8's decoded columns [1, 4 + nc + extra, N]: centre x and y, width, height in pixels, scores, angles."""
    generator = torch.Generator().manual_seed(0)
    parts = []
    for stride in strides:
        ny, nx = size[0] // stride, size[1] // stride
        p = torch.rand(ny, nx, 4 + nc, generator=generator)
        line, column = torch.meshgrid(torch.arange(ny), torch.arange(nx), indexing="ij")
        xy = (torch.stack((column, line), -1) + 0.5 + 4 * (p[..., :2] - 0.5)) * stride
        angles = torch.rand(ny, nx, extra, generator=generator)
        parts.append(torch.cat((xy, p[..., 2:4] * 8 * stride, p[..., 4:], angles), -1).reshape(ny * nx, -1))
    return torch.cat(parts).T[None]


def onnx_file(
    network: nn.Module,
    path: Path,
    metadata: Mapping[str, Any] | None = None,
    size: tuple[int, int] = SIZE,
    dynamic: bool = False,
) -> Path:
    """Writes ONNX; with `dynamic` every side is open."""
    import onnx

    axes = {"images": {0: "batch", 2: "height", 3: "width"}, "output0": {0: "batch", 1: "a", 2: "b"}}
    with silenced():
        torch.onnx.export(
            network.eval(),
            (torch.zeros(1, 3, *size),),
            str(path),
            dynamo=False,
            input_names=["images"],
            output_names=["output0"],
            dynamic_axes=axes if dynamic else None,
        )
    if metadata:
        model = onnx.load(str(path))
        onnx.helper.set_model_props(model, {key: str(value) for key, value in metadata.items()})
        onnx.save(model, str(path))
    return path


def torchscript_file(network: nn.Module, path: Path, metadata: Mapping[str, Any] | None = None) -> Path:
    told = {"imgsz": list(SIZE), **(metadata or {})}
    with silenced():
        program = torch.jit.trace(network.eval(), torch.zeros(1, 3, *SIZE), check_trace=False)
        torch.jit.save(program, str(path), _extra_files={"config.txt": json.dumps(told)})
    return path


def openvino_file(network: nn.Module, path: Path, metadata: Mapping[str, Any] | None = None) -> Path:
    import openvino

    with silenced():
        program = torch.jit.trace(network.eval(), torch.zeros(1, 3, *SIZE), check_trace=False)
        model = openvino.convert_model(program, input=[[1, 3, *SIZE]])
    openvino.save_model(model, path / "model.xml", compress_to_fp16=False)
    if metadata:
        (path / "metadata.yaml").write_text(yaml.safe_dump(dict(metadata)))
    return path


def names(nc: int) -> dict[int, str]:
    return {number: f"thing {number}" for number in range(nc)}
