"""A network of Ultralytics in Secateur: wraps the module of the package and returns the raw outputs of the head."""

from __future__ import annotations

import copy
import json
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from secateur.errors import UserError, told
from secateur.evaluation.nms import Candidates
from secateur.families.ultralytics.chains import chain_blocks, joined, lengths_of, shorten_
from secateur.families.ultralytics.package import installed_version, needed
from secateur.layers import evaluating
from secateur.limits import MAX_PARAMETERS
from secateur.networks.tensors import group_widths, set_tensors_
from secateur.pruning.depth.chains import ChainBlock
from secateur.pruning.removal import Removal

Numbers = Mapping[str, Mapping[str, int]]
"""Integers stored in modules, by module and name."""
MODELS = {
    "detect": "DetectionModel",
    "segment": "SegmentationModel",
    "pose": "PoseModel",
    "obb": "OBBModel",
    "classify": "ClassificationModel",
}
MOST_BOXES = 300
"""Maximum number of final boxes per image."""
_NO_WIDTHS = frozenset(("i", "f", "np"))
"""Numbers of a module that describe its position instead of its computation."""


class UltralyticsNetwork(nn.Module):
    """Maps images [B, C, H, W] in 0..1 to the raw outputs of the head, in training and evaluation mode alike.

    For detectors, the output is a dict: "boxes" [B, N, 4 * bins], "scores" [B, N, nc] (logits), outputs of other tasks
    ("mask_coefficient", "proto", "kpts", "angle"), and "sizes", height and width of each level. For a network with
    final boxes, it is a dict of two such dicts, "one2many" and "one2one". For classifiers it is logits [B, nc].

    Attributes:
        model: the module of the package.
        names: class id -> name.
        strides: pixels per cell of each level; () for classifiers.
    """

    def __init__(self, architecture: Any, names: Mapping[int, str], model: Any) -> None:
        super().__init__()
        self.model = model
        self.names = dict(names)
        stride = model.stride.tolist() if architecture.task != "classify" else []
        self.strides = tuple(float(value) for value in stride)
        self._designed = replace(architecture, numbers={})
        self._groups = group_widths(self)
        self._numbers = dict(self.whole_numbers())
        self._give_numbers_(architecture.numbers)

    @property
    def architecture(self) -> Any:
        """The architecture, an `Ultralytics` with the current integers of its modules."""
        changed: dict[str, dict[str, int]] = {}
        for module, kept in self.whole_numbers():
            designed = self._numbers.get(module, {})
            other = {name: value for name, value in kept.items() if designed.get(name, value) != value}
            if other:
                changed[module] = other
        return replace(self._designed, numbers=changed)

    @property
    def nc(self) -> int:
        """Number of classes."""
        return self._designed.nc

    @property
    def head(self) -> Any:
        """The last layer."""
        return self.model.model[-1]

    def reads_maps(self) -> tuple[str, ...]:
        """Names of the layers that read the input of the head: one convolution per level, or the last layer."""
        place = f"model.model.{len(self.model.model) - 1}"
        if not self.strides:
            return (f"{place}.linear",)
        return tuple(f"{place}.cv2.{level}.0.conv" for level in range(len(self.strides)))

    def forward(self, images: Tensor) -> Any:
        """See the class."""
        with as_before(self.head):
            return _raw(self.model(images))

    def example_inputs(self, image_size: int | None = None) -> tuple[Tensor, ...]:
        """A black image [1, C, H, W]."""
        side, like = image_size or 64, next(self.parameters())
        return (torch.zeros(1, self._designed.channels, side, side, dtype=like.dtype, device=like.device),)

    def set_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """See `networks.tensors.set_tensors_`."""
        set_tensors_(self, tensors, self._groups)

    def chain_blocks(self) -> tuple[ChainBlock, ...]:
        """All residual blocks of all chains; see `pruning.depth.Chained`."""
        with evaluating(self), torch.no_grad():
            return chain_blocks(self.model, lambda: self(*self.example_inputs()), "model.")

    def joined(self, kept: Mapping[str, Sequence[int]], named: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `pruning.depth.chains.Joining`."""
        return joined(self.model, kept, named, "model.")

    def without_blocks(self, kept: Mapping[str, Sequence[int]], tensors: Mapping[str, Tensor]) -> UltralyticsNetwork:
        """The network with only the blocks `kept` (indices by chain), and copies of the tensors, any shape, by name."""
        lengths = {f"model.{chain}": length for chain, length in lengths_of(self.model).items()}
        gone = [f"{chain}.{i}" for chain, stay in kept.items() for i in range(lengths[chain]) if i not in stay]
        numbers = Removal(tuple(gone), tuple(lengths.items())).tensors(
            {f"model.{module}": own for module, own in self.architecture.numbers.items()}
        )
        shorter = replace(
            self.architecture,
            chains={
                **self._designed.chains,
                **{chain.removeprefix("model."): len(indices) for chain, indices in kept.items()},
            },
            numbers={module.removeprefix("model."): own for module, own in numbers.items()},
        )
        with torch.random.fork_rng(devices=[]):
            network = built(shorter, self.names)
        network.set_tensors(tensors)
        return network.to(next(self.parameters())).eval()

    def whole_numbers(self) -> Iterator[tuple[str, dict[str, int]]]:
        """The integers stored in each module of the package; modules of PyTorch derive theirs from their tensors."""
        for name, module in self.model.named_modules():
            if not type(module).__module__.startswith("torch."):
                kept = {key: value for key, value in vars(module).items() if type(value) is int and key[0] != "_"}
                yield name, {key: value for key, value in kept.items() if key not in _NO_WIDTHS}

    def initialize_biases(self) -> None:
        """Initialises the biases of a new head for rare objects."""
        if hasattr(self.head, "bias_init"):
            self.head.bias_init()

    def structure(self) -> Hashable:
        """Key that is equal for networks that differ only in the values of their tensors."""
        plain = json.dumps({**self.architecture.to_dict(), "args": {}}, sort_keys=True)
        state = self.state_dict(keep_vars=True).items()
        fused = getattr(self.model, "is_fused", lambda: False)()
        return plain, fused, tuple((name, tuple(tensor.shape)) for name, tensor in state)

    def fused(self) -> Any:
        """A copy in eval mode without gradients; norms are folded if the head has only one branch."""
        copied = copy.deepcopy(self).eval().requires_grad_(False)
        if not self._designed.end_to_end:
            copied.model.fuse(verbose=False)
        return copied

    def _give_numbers_(self, numbers: Numbers) -> None:
        """Sets integers of modules.

        Raises:
            UserError: the module or number does not exist.
        """
        modules = dict(self.model.named_modules())
        for module, kept in numbers.items():
            for name, value in kept.items():
                if name not in self._numbers.get(module, {}):
                    raise UserError(f"its module {told(module, 60)} has no number {told(name, 40)}")
                setattr(modules[module], name, value)


class ProposingYOLO(UltralyticsNetwork):
    """A network with overlapping boxes."""

    def candidates(self, raw: Any, confidence: float) -> Sequence[Candidates]:
        """Boxes [n, 4] and scores [n, nc] of each image; see `families.detection.network.Proposing`."""
        corners, scores = self._decoded(raw)
        if confidence < 0:  # a selection of all rows cannot be exported to ONNX
            return [Candidates(*of_image) for of_image in zip(corners, scores, strict=True)]
        sure = [(of_image > confidence).any(1) for of_image in scores]
        return [Candidates(corners[i][keep], scores[i][keep]) for i, keep in enumerate(sure)]

    def _decoded(self, raw: Any) -> tuple[Tensor, Tensor]:
        """Corners [B, N, 4] in pixels and scores [B, N, nc]."""
        return decoded(raw, self.head, self.strides)


class DecidingYOLO(UltralyticsNetwork):
    """A network with final boxes."""

    def boxes(self, raw: Any) -> Sequence[Tensor]:
        """Boxes [n, 6] of each image: x1, y1, x2, y2 in pixels, score, class."""
        corners, scores = decoded(raw["one2one"], self.head, self.strides)
        nc = scores.shape[2]
        best, places = scores.flatten(1).topk(min(MOST_BOXES, scores.shape[1]), dim=1)
        rows = (places // nc)[..., None].expand(-1, -1, 4)
        chosen = corners.gather(1, rows)
        found: Tensor = torch.cat((chosen, best[..., None], (places % nc)[..., None].to(best.dtype)), 2)
        return list(found)


def decoded(raw: Mapping[str, Any], head: Any, strides: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Converts raw outputs of one branch to corners [B, N, 4] in pixels and scores [B, N, nc], float32."""
    scores = raw["scores"].float().sigmoid()
    # Distances from the centre of a cell to the four sides of its box, in cells.
    bins = raw["boxes"].float().to(_dtype_of(head.dfl)).transpose(1, 2)
    distances = head.dfl(bins).float().transpose(1, 2)
    places, steps = [], []
    for (height, width), stride in zip(raw["sizes"], strides, strict=True):
        y, x = torch.meshgrid(
            torch.arange(height, device=scores.device) + 0.5,
            torch.arange(width, device=scores.device) + 0.5,
            indexing="ij",
        )
        places.append(torch.stack((x, y), -1).reshape(-1, 2))
        steps.append(torch.full((height * width, 1), stride, device=scores.device))
    centres, step = torch.cat(places), torch.cat(steps)
    low, high = centres - distances[..., :2], centres + distances[..., 2:]
    # A head without bins can predict a negative distance; such a box becomes empty.
    return torch.cat((low, torch.maximum(low, high)), 2) * step, scores


def _dtype_of(module: nn.Module) -> torch.dtype:
    return next((parameter.dtype for parameter in module.parameters()), torch.float32)


def built(architecture: Any, names: Mapping[int, str]) -> UltralyticsNetwork:
    """An untrained network on the CPU.

    Raises:
        UserError: the package is missing, the network is too large, or the package cannot build it.
    """
    tasks = needed("nn.tasks")
    description = copy.deepcopy(dict(architecture.description))
    try:
        with torch.device("meta"):
            layers, _ = tasks.parse_model(copy.deepcopy(description), ch=architecture.channels, verbose=False)
        count = sum(parameter.numel() for parameter in layers.parameters())
        if count > MAX_PARAMETERS:
            raise UserError(
                f"its model.yaml describes {count:,} parameters, but at most {MAX_PARAMETERS:,} are supported"
            )
        with torch.device("cpu"):
            make = getattr(tasks, MODELS[architecture.task])
            model = make(description, ch=architecture.channels, verbose=False)
            shorten_(model, architecture.chains)
            if architecture.nc != description["nc"]:
                with_outputs_(model, architecture.nc)
    except UserError:
        raise
    except Exception as error:  # the package raises many types of errors
        raise UserError(
            f"The package ultralytics {installed_version()} cannot build its model.yaml "
            f"({told(f'{type(error).__name__}: {error}', 120)})."
        ) from error
    model.names = dict(names) or {number: f"class{number}" for number in range(architecture.nc)}
    model.task = architecture.task
    model.args = needed("cfg").get_cfg(overrides=dict(architecture.args))
    kind: type[UltralyticsNetwork] = UltralyticsNetwork
    if architecture.task in ("detect", "segment", "pose"):
        kind = DecidingYOLO if architecture.end_to_end else ProposingYOLO
    network = kind(architecture, model.names, model)
    network.initialize_biases()
    return network


def with_outputs_(model: Any, nc: int) -> None:
    """Creates new last layers for another number of classes; all other widths of the head are kept, cut or not."""
    head = model.model[-1]
    branches = [getattr(head, name, None) for name in ("cv3", "one2one_cv3")]
    ends = [level for branch in branches if branch is not None for level in branch]
    semantic = getattr(getattr(head, "proto", None), "semseg", None)
    for end in [*ends, *([semantic] if semantic is not None else [])]:
        last = end[-1]
        end[-1] = nn.Conv2d(last.in_channels, nc, last.kernel_size, bias=last.bias is not None).to(last.weight)
    if isinstance(getattr(head, "linear", None), nn.Linear):
        old = head.linear
        head.linear = nn.Linear(old.in_features, nc).to(old.weight)
    else:
        head.no += nc - head.nc
        head.nc = nc
    model.yaml["nc"] = nc
    model.nc = nc


@contextmanager
def as_before(module: nn.Module) -> Iterator[None]:
    """Removes cached attributes of a call on exit, because they would not fit another size, device or mode."""
    before = dict(vars(module))
    try:
        yield
    finally:
        kept = vars(module)
        for name in [name for name in kept if name not in before]:
            del kept[name]
        kept.update(before)


def _raw(given: Any) -> Any:
    """Outputs of the head before decoding; of its input maps only the sizes are kept."""
    if isinstance(given, tuple):
        given = given[1]
    return _without_maps(given)


def _without_maps(given: Any) -> Any:
    """Moves positions before channels, [B, N, C], as in all code that compares outputs."""
    if isinstance(given, Tensor):
        return given.transpose(1, 2) if given.ndim == 3 else given
    if not isinstance(given, dict):
        return given
    kept = {key: _without_maps(value) for key, value in given.items() if key != "feats"}
    if "feats" in given:
        kept["sizes"] = tuple((level.shape[2], level.shape[3]) for level in given["feats"])
    return kept
