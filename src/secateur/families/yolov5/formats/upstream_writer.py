"""Writes a detector as a `.pt` of YOLOv5 itself: its classes by name, of which no code is needed here.

What upstream's modules keep as attributes is public knowledge: a file is the tree of modules with them. One file suits
v6.0 to v7.0: `models.yolo.Model` is a name in all of them, names as a list are read by all, and grids as lists of
tensors too. The channel counts that upstream's classes compute with come from the tensors, so cut widths hold.
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
"""Classes of upstream's `models.common` (v7.0)."""


def write_upstream(detector: Detector, path: Path, image_size: int, dtype: torch.dtype = torch.float32) -> None:
    """Writes a checkpoint that upstream's `attempt_load` reads.

    Args:
        detector: on the CPU.
        path: the file.
        image_size: px of its images, noted among the options of a training.
        dtype: of weights; upstream's own final files hold float16.

    Raises:
        UserError: it has a block that upstream lacks.
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
    """Base of the stand-ins: a class that is pickled as a name, and an object as its attributes."""


@cache
def _stand_in(place: str, name: str) -> type[_Named]:
    return type(name, (_Named,), {"__module__": place})


# The pickler in C asks the place of a class for that class, and has no hook; this one is documented by its source.
_PurePython: Any = vars(pickle)["_Pickler"]


class _Pickler(_PurePython):  # type: ignore[misc]
    """Writes stand-ins by the names that they bear."""

    def save_global(self, obj: Any, name: str | None = None) -> None:
        """A stand-in's name; anything else as ever."""
        if isinstance(obj, type) and issubclass(obj, _Named):
            self.write(pickle.GLOBAL + f"{obj.__module__}\n{obj.__name__}\n".encode())
            self.memoize(obj)
        else:
            super().save_global(obj, name)


def _model(detector: Detector, dtype: torch.dtype) -> Any:
    """Upstream's model: its layers with their places, and what is read of it by name."""
    layers = nn.Sequential()
    used: set[int] = set()
    for number, (block, absolute) in enumerate(zip(detector.model, detector.topology.absolute_sources(), strict=True)):
        if number and -1 in absolute:
            raise UserError(f"Its layer {number} reads the image itself, which YOLOv5's checkpoints cannot say.")
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
    """The module as upstream has it."""
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
        raise UserError(f"YOLOv5 has no block {name}, so this detector cannot be written as its checkpoint.")
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
    """The attributes of a module with other children and its tensors in another precision."""
    state = dict(module.__dict__)
    state["training"] = False
    for group in ("_parameters", "_buffers"):
        state[group] = OrderedDict((name, _cast(value, dtype)) for name, value in state[group].items())
    state["_modules"] = OrderedDict(children)
    return state


def _cast(value: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    """Upstream's files hold nothing that is differentiated."""
    if value is None:
        return None
    tensor = value.detach().clone().contiguous()
    tensor = tensor.to(dtype) if tensor.is_floating_point() else tensor
    return nn.Parameter(tensor, requires_grad=False) if isinstance(value, nn.Parameter) else tensor


def _attention(module: Attention, dtype: torch.dtype) -> Any:
    """PyTorch's own attention, which upstream uses."""
    width = module.out_proj.in_features
    other = nn.MultiheadAttention(width, module.num_heads)
    other.load_state_dict(module.state_dict())
    return other.requires_grad_(False).to(dtype).eval()


def _rows(detector: Detector) -> dict[str, Any]:
    """The model.yaml that says how the layers are wired, with the widths from before any cut."""
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
    "YOLOv5's val.py, detect.py and export.py take this file; its train.py does not keep the cut: it builds a network "
    "anew from a YAML, which has no words for the widths inside a block. Train with secateur finetune."
)


def write_own(detector: Detector, file: Path, image_size: int) -> str:
    """Writes the file, in fp16 where that loses nothing; our reader opens it like any other checkpoint.

    Returns:
        what to know of the file of a cut detector; "" for others.
    """
    write_upstream(detector, file, image_size, torch.float16 if _fits_half(detector) else torch.float32)
    return CANNOT_TRAIN if _is_cut(detector) else ""


def _fits_half(detector: Detector) -> bool:
    """Whether float16 holds its tensors without loss, as it does those of a training's final files."""
    return all(torch.equal(tensor.half().float(), tensor.float()) for tensor in detector.state_dict().values())


def _is_cut(detector: Detector) -> bool:
    """Whether it has other widths than its topology says."""
    with torch.device("meta"):
        designed: nn.Module = Detector(detector.topology)
    shapes = {name: tensor.shape for name, tensor in designed.state_dict().items()}
    return shapes != {name: tensor.shape for name, tensor in detector.state_dict().items()}
