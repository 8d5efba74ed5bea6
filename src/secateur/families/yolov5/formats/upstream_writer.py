"""Writes a detector as a `.pt` of YOLOv5, with classes stored by name; the code of YOLOv5 is not needed.

A file is a tree of modules with their attributes, which are publicly documented. One file works with v6.0 to v7.0: all
have the class `models.yolo.Model`, and all read names as a list and grids as lists of tensors. Upstream classes take
channel counts from the tensors, so cut widths are preserved.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from secateur.errors import UserError
from secateur.families.yolov5.blocks.attention import Attention, TransformerBlock
from secateur.families.yolov5.blocks.detect import Detect
from secateur.families.yolov5.model import Detector

_COMMON = (
    *("Conv", "DWConv", "DWConvTranspose2d", "Focus", "Bottleneck", "BottleneckCSP", "C3", "C3x", "C3TR", "C3SPP"),
    *("C3Ghost", "SPP", "SPPF", "GhostConv", "GhostBottleneck", "Concat", "CrossConv"),
    *("TransformerLayer", "TransformerBlock"),
)
KNOWN = frozenset(_COMMON)
"""Classes of `models.common` in upstream v7.0."""


def write_upstream(detector: Detector, path: Path, image_size: int, dtype: torch.dtype = torch.float32) -> None:
    """Writes a checkpoint that `attempt_load` of upstream reads.

    Args:
        detector: on the CPU.
        path: target file.
        image_size: image size in pixels, stored in the training options.
        dtype: dtype of weights; final files of upstream use float16.

    Raises:
        UserError: the detector has a block that upstream lacks.
    """
    content = {
        "epoch": -1,
        "best_fitness": None,
        "model": _model(detector, dtype),
        "ema": None,
        "updates": None,
        "optimizer": None,
        "wandb_id": None,
        "opt": {"imgsz": image_size},
        "date": datetime.now(timezone.utc).isoformat(),
    }
    by_name = ModuleType("pickle")
    by_name.Pickler = _Pickler  # type: ignore[attr-defined]
    torch.save(content, path, pickle_module=by_name)


class _Named:
    """Base of the stand-ins: the class is pickled by name, and an object by its attributes."""


@cache
def _stand_in(place: str, name: str) -> type[_Named]:
    return type(name, (_Named,), {"__module__": place})


# The C pickler compares classes with their declared location and has no hook; the Python version can be overridden.
_PurePython: Any = vars(pickle)["_Pickler"]


class _Pickler(_PurePython):  # type: ignore[misc]
    """Writes stand-ins under the names that they represent."""

    def save_global(self, obj: Any, name: str | None = None) -> None:
        """Writes the name of a stand-in; other objects as usual."""
        if isinstance(obj, type) and issubclass(obj, _Named):
            self.write(pickle.GLOBAL + f"{obj.__module__}\n{obj.__name__}\n".encode())
            self.memoize(obj)
        else:
            super().save_global(obj, name)


def _model(detector: Detector, dtype: torch.dtype) -> Any:
    """The model of upstream: its layers with their positions, and the attributes that upstream reads."""
    layers = nn.Sequential()
    used: set[int] = set()
    for number, (block, absolute) in enumerate(zip(detector.model, detector.topology.absolute_sources(), strict=True)):
        if number and -1 in absolute:
            raise UserError(f"Its layer {number} reads the image directly, which YOLOv5 checkpoints do not support.")
        sources = [-1 if source == number - 1 else source for source in absolute]
        used.update(source for source in sources if source != -1)
        twin = _twin(block, detector, dtype)
        twin.__dict__.update(
            i=number,
            f=sources[0] if len(sources) == 1 else sources,
            type=f"{type(twin).__module__}.{type(twin).__name__}",
            np=sum(parameter.numel() for parameter in block.parameters()),
        )
        layers._modules[str(number)] = twin
    names = [detector.names[number] for number in range(detector.nc)]
    model = _stand_in("models.yolo", "Model")()
    model.__dict__.update(_like(layers, dtype, {"model": layers}))
    model.__dict__.update(
        yaml=_rows(detector),
        save=sorted(used),
        stride=torch.tensor(detector.strides),
        names=names,
        nc=detector.nc,
        inplace=True,
    )
    return model


def _twin(module: nn.Module, detector: Detector, dtype: torch.dtype) -> Any:
    """The upstream equivalent of a module."""
    if isinstance(module, Attention):
        return _attention(module, dtype)
    children = {
        name: None if child is None else _twin(child, detector, dtype) for name, child in module._modules.items()
    }
    own = type(module).__module__.startswith("torch.nn")
    name = type(module).__name__
    if own:
        twin: Any = type(module).__new__(type(module))
    elif isinstance(module, Detect):
        twin = _stand_in("models.yolo", "Detect")()
    elif name in KNOWN:
        twin = _stand_in("models.common", name)()
    else:
        raise UserError(f"YOLOv5 has no block {name}, so this detector cannot be saved as a YOLOv5 checkpoint.")
    twin.__dict__.update(_like(module, dtype, children))
    if isinstance(module, Detect):
        levels = module.nl
        twin.__dict__.update(
            stride=torch.tensor(module.strides),
            grid=[torch.zeros(1)] * levels,
            anchor_grid=[torch.zeros(1)] * levels,
            inplace=True,
        )
        del twin.__dict__["strides"]
    if isinstance(module, TransformerBlock):
        twin.__dict__["c2"] = module.linear.out_features
    return twin


def _like(module: nn.Module, dtype: torch.dtype, children: dict[str, Any]) -> dict[str, Any]:
    """The attributes of a module with other children and with its tensors in another precision."""
    state = dict(module.__dict__)
    state["training"] = False
    for group in ("_parameters", "_buffers"):
        state[group] = OrderedDict((name, _cast(value, dtype)) for name, value in state[group].items())
    state["_modules"] = OrderedDict(children)
    return state


def _cast(value: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    """Converts a tensor; files of upstream hold no tensors that require gradients."""
    if value is None:
        return None
    tensor = value.detach().clone().contiguous()
    tensor = tensor.to(dtype) if tensor.is_floating_point() else tensor
    return nn.Parameter(tensor, requires_grad=False) if isinstance(value, nn.Parameter) else tensor


def _attention(module: Attention, dtype: torch.dtype) -> Any:
    """The attention module of PyTorch, which upstream uses."""
    width = module.out_proj.in_features
    other = nn.MultiheadAttention(width, module.num_heads)
    other.load_state_dict(module.state_dict())
    return other.requires_grad_(False).to(dtype).eval()


def _rows(detector: Detector) -> dict[str, Any]:
    """The model.yaml with the connections of the layers, and the widths before any cut."""
    topology = detector.topology
    anchors = [[round(float(value), 4) for value in level] for level in topology.anchors]
    rows = []
    for row in topology.blocks[:-1]:
        sources = row.sources[0] if len(row.sources) == 1 else list(row.sources)
        args = [list(value) if isinstance(value, tuple) else value for value in row.args]
        rows.append([sources, row.repeats, row.kind, args])
    head = [list(topology.blocks[-1].sources), 1, "Detect", ["nc", "anchors"]]
    config = {
        "nc": detector.nc,
        "ch": topology.channels,
        "depth_multiple": 1.0,
        "width_multiple": 1.0,
        "channel_multiple": 1,
        "anchors": anchors,
        "backbone": rows,
        "head": [head],
    }
    if topology.activation != "SiLU":
        config["activation"] = f"nn.{topology.activation}" + ("" if "(" in topology.activation else "()")
    return config


CANNOT_TRAIN = (
    "YOLOv5's val.py, detect.py and export.py read this file. Its train.py does not keep the cut: it rebuilds the "
    "network from a YAML, which cannot describe widths inside a block. Train with secateur finetune."
)


def write_own(detector: Detector, file: Path, image_size: int) -> str:
    """Writes the file, in fp16 if that is lossless; our reader opens it like any other checkpoint.

    Returns:
        A note for the user about the file of a cut detector; otherwise "".
    """
    write_upstream(detector, file, image_size, torch.float16 if _fits_half(detector) else torch.float32)
    return CANNOT_TRAIN if _is_cut(detector) else ""


def _fits_half(detector: Detector) -> bool:
    """Whether float16 holds its tensors without loss, as in the final files of a training."""
    return all(torch.equal(tensor.half().float(), tensor.float()) for tensor in detector.state_dict().values())


def _is_cut(detector: Detector) -> bool:
    """Whether its widths differ from its topology."""
    with torch.device("meta"):
        designed: nn.Module = Detector(detector.topology)
    shapes = {name: tensor.shape for name, tensor in designed.state_dict().items()}
    return shapes != {name: tensor.shape for name, tensor in detector.state_dict().items()}
