"""The detector network of a topology; its widths are those of its tensors."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from secateur.errors import UserError, shown, told
from secateur.evaluation.nms import Candidates, corners_of
from secateur.families.family import FAMILIES
from secateur.families.yolov5.blocks import BLOCKS, Site
from secateur.families.yolov5.blocks.convolutions import Conv
from secateur.families.yolov5.blocks.detect import Detect
from secateur.families.yolov5.chains import block_shapes, chain_blocks, shorter_topology
from secateur.families.yolov5.topology import Topology, numbers_of
from secateur.layers import hooked, shape_pass
from secateur.limits import MAX_PARAMETERS
from secateur.networks.architecture import Architecture
from secateur.networks.tensors import group_widths, set_tensors_
from secateur.pruning.depth.chains import ChainBlock

_PROBE_SIZE = 256  # px; a multiple of every stride of the family
_PLAIN = (bool, int, float, str, tuple, frozenset)


class Detector(nn.Module):
    """An anchor-based detector.

    Attributes:
        topology: its blocks.
        names: class id -> name.
        model: one module per block; parameter names are those of published checkpoints.

    Args:
        strides: strides, if known; otherwise a shape pass determines them.
    """

    def __init__(
        self, topology: Topology, names: Mapping[int, str] | None = None, strides: Sequence[float] = ()
    ) -> None:
        super().__init__()
        self.topology = topology
        self.names = dict(names) if names else {i: f"class{i}" for i in range(topology.nc)}
        _refuse_huge(topology)
        self.model = _blocks_of(topology)
        self._sources = topology.absolute_sources()
        self._joins = tuple(BLOCKS[block.kind].joins for block in topology.blocks)
        self._kept = frozenset(s for i, sources in enumerate(self._sources) for s in sources if s != i - 1)
        # The width of a group is fixed: narrowing a grouped convolution removes whole groups.
        self._group_widths = group_widths(self)
        self.head.set_strides(strides or self._probe_strides())
        self._order_anchors()
        self.initialize_biases()

    @property
    def architecture(self) -> Architecture:
        """Its architecture, a topology."""
        return FAMILIES["yolov5"].architecture.from_dict(self.topology.to_dict())

    @property
    def head(self) -> Detect:
        """The detection head."""
        head = self.model[-1]
        if not isinstance(head, Detect):
            # An export replaces the head, and the TorchScript tracer calls hasattr() on all attributes.
            raise AttributeError("This detector has no detection head.")
        return head

    @property
    def nc(self) -> int:
        """Number of classes."""
        return self.head.nc

    @property
    def na(self) -> int:
        """Number of anchors per cell of a level."""
        return self.head.na

    @property
    def nl(self) -> int:
        """Number of levels."""
        return self.head.nl

    @property
    def no(self) -> int:
        """Number of values of one prediction: box, objectness, classes."""
        return self.head.no

    @property
    def strides(self) -> tuple[float, ...]:
        """Pixels of the image per cell of each level."""
        return self.head.strides

    @strides.setter
    def strides(self, strides: Sequence[float]) -> None:
        self.head.strides = tuple(strides)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images [B, C, H, W] in 0..1 -> raw logits [B, na, ny, nx, no], one tensor per level."""
        outputs: dict[int, Tensor] = {-1: images}
        x: Tensor = images
        raw: list[Tensor] = []
        for i, (block, sources) in enumerate(zip(self.model, self._sources, strict=True)):
            inputs = [x if s == i - 1 else outputs[s] for s in sources]
            result = block(inputs) if self._joins[i] else block(inputs[0])
            if i == len(self.model) - 1:
                raw = result
            else:
                x = result
                if i in self._kept:
                    outputs[i] = x
        return raw

    def decode(self, raw: Sequence[Tensor]) -> Tensor:
        """Raw logits -> float32 [B, N, no]: boxes xywh in pixels, then objectness and class scores."""
        return self.head.decode(raw)

    def decode_above(self, raw: Sequence[Tensor], confidence: float) -> list[Tensor]:
        """Decoded rows [n, no] of each image whose objectness is above `confidence`, in the order of `decode`."""
        return self.head.decode_above(raw, confidence)

    def candidates(self, raw: Sequence[Tensor], confidence: float) -> list[Candidates]:
        """Boxes [n, 4] and scores [n, nc] of each image; the score of a class is objectness x class score.

        Args:
            raw: raw logits [B, na, ny, nx, no], one tensor per level.
            confidence: rows whose objectness is not above it are omitted.
        """
        found = self.decode_above(raw, confidence)
        return [Candidates(corners_of(rows[:, :4]), rows[:, 5:] * rows[:, 4:5]) for rows in found]

    def predict(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] in 0..1 -> decoded predictions [B, N, no]."""
        return self.decode(self.forward(images))

    def initialize_biases(self) -> None:
        """Sets the head's prior: 8 objects in a 640 px image, classes equally rare."""
        self.head.initialize_biases()

    def fused(self) -> Detector:
        """A copy in eval mode without gradients, with every batch norm after a convolution folded into it."""
        detector = copy.deepcopy(self).eval().requires_grad_(False)
        for module in detector.modules():
            if isinstance(module, Conv) and isinstance(module.bn, nn.BatchNorm2d):
                _fold(module, module.bn)
        return detector

    def chain_blocks(self) -> tuple[ChainBlock, ...]:
        """All bottleneck-like blocks of all chains, in order: the candidates of layer pruning."""
        with torch.device("meta"):
            dense = Detector(self.topology, self.names, self.strides)
        shapes, designed = (
            block_shapes(network.topology, network.model, partial(network.run_shapes, _PROBE_SIZE))
            for network in (self, dense)
        )
        return chain_blocks(self.topology, self.model, shapes, designed)

    def without_blocks(self, kept: Mapping[str, Sequence[int]], tensors: Mapping[str, Tensor]) -> Detector:
        """The detector with only the blocks `kept` (indices by chain), and copies of the tensors, any shape, by
        name."""
        with torch.device("meta"):
            shorter = Detector(shorter_topology(self.topology, kept), self.names, self.strides)
        shorter.set_tensors(tensors)
        return shorter.to(self.head.anchors).eval()

    def set_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Gives every layer the shape and a copy of its tensor, in the dtype and on the device of the detector.

        Args:
            tensors: a complete state dict, any shape, of an unfused or fused detector.

        Raises:
            UserError: tensors are missing, unknown, or do not fit together.
        """
        self._match_fusing(tensors)
        set_tensors_(self, tensors, self._group_widths, fixed=(f"model.{len(self.model) - 1}.anchors",))
        self._check_shapes()

    def _match_fusing(self, tensors: Mapping[str, Tensor]) -> None:
        """Gives each Conv the layout of the tensors, with or without batch norm."""
        for name, module in self.named_modules():
            if not isinstance(module, Conv):
                continue
            fused = f"{name}.conv.bias" in tensors and f"{name}.bn.weight" not in tensors
            like = module.conv.weight
            if fused and isinstance(module.bn, nn.BatchNorm2d):
                module.bn = nn.Identity()
                module.conv.bias = nn.Parameter(like.new_zeros(module.conv.out_channels))
            elif f"{name}.bn.weight" in tensors and isinstance(module.bn, nn.Identity):
                module.conv.bias = None
                module.bn = nn.BatchNorm2d(module.conv.out_channels, eps=1e-3, momentum=0.03).to(like)
                module.bn.train(module.training)

    def _check_shapes(self) -> None:
        """Runs a shape pass through the network, so that tensors that do not fit are rejected here."""
        if any(convolution.get_parameter("weight").shape[0] != self.na * self.no for convolution in self.head.m):
            raise UserError(f"The tensors of the head do not match {self.na} anchors and {self.nc} classes.")
        norms = [(name, m) for name, m in self.named_modules() if isinstance(m, nn.BatchNorm2d)]
        try:
            with hooked(norm.register_forward_pre_hook(_width_check(name)) for name, norm in norms):
                self.run_shapes(_PROBE_SIZE)
        except UserError:
            raise
        except Exception as error:  # blocks with invalid arguments fail in many ways
            raise UserError(f"The tensors do not fit the topology: {told(error)}.") from error

    def structure(self) -> Hashable:
        """Key of everything that the forward pass depends on, except the values of tensors.

        It includes attributes of modules, because a cut or an export may have changed them.
        """
        tensors = tuple(
            (name, tuple(x.shape), x.dtype, x.device) for name, x in self.state_dict(keep_vars=True).items()
        )
        modules = tuple(
            (type(module), *((k, v) for k, v in vars(module).items() if k != "training" and isinstance(v, _PLAIN)))
            for module in self.modules()
        )
        return self.topology, tensors, modules

    def example_inputs(self, image_size: int | None = None) -> tuple[Tensor, ...]:
        """One black image [1, C, H, W] of `image_size` px, or of twice the largest stride."""
        like, side = self.head.anchors, image_size or 2 * int(max(self.strides))
        return (torch.zeros(1, self.topology.channels, side, side, dtype=like.dtype, device=like.device),)

    def run_shapes(self, height: int, width: int | None = None) -> list[Tensor]:
        """Runs a forward pass in eval mode on the meta device: shapes without arithmetic or memory; hooks are called.

        Args:
            height: image height in pixels.
            width: image width in pixels; None: same as the height.

        Returns:
            Raw logits [1, na, ny, nx, no] per level, on the meta device.
        """
        shape = (1, self.topology.channels, height, width or height)
        raw: list[Tensor] = shape_pass(self, torch.empty(shape, device="meta", dtype=self.head.anchors.dtype))
        return raw

    def _probe_strides(self) -> tuple[float, ...]:
        try:
            return tuple(_PROBE_SIZE / level.shape[2] for level in self.run_shapes(_PROBE_SIZE))
        except Exception as error:  # blocks with invalid arguments fail in many ways
            raise UserError(f"The blocks of the model do not fit together: {told(error)}.") from error

    def _order_anchors(self) -> None:
        """Reverses anchors if a file lists them from large to small while levels go from fine to coarse."""
        if self.nl < 2 or self.strides[0] == self.strides[-1]:
            return
        areas = [_mean_area(row) for row in self.topology.anchors]
        if (areas[-1] - areas[0]) * (self.strides[-1] - self.strides[0]) < 0:
            scale = torch.tensor(self.strides, device=self.head.anchors.device).view(-1, 1, 1)
            self.head.anchors = (self.head.anchors * scale).flip(0) / scale


def _refuse_huge(topology: Topology) -> None:
    """Raises a UserError if the network exceeds `limits`, before memory is allocated."""
    if torch.empty(0).is_meta or _most_parameters(topology) <= MAX_PARAMETERS:
        return
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in _blocks_of(topology).parameters())
    if count > MAX_PARAMETERS:
        raise UserError(
            f"The network of {len(topology.blocks)} blocks would have {count:,} parameters, but at most "
            f"{MAX_PARAMETERS:,} are supported. Lower its widths or its multiples."
        )


def _most_parameters(topology: Topology) -> float:
    """Upper bound of the number of parameters without building the network: all layers have the largest numbers of
    their rows."""
    widths: list[int] = []
    total = 0.0
    for block, sources in zip(topology.blocks, topology.absolute_sources(), strict=True):
        entering = sum(topology.channels if source < 0 else widths[source] for source in sources)
        leaving = block.args[0] if BLOCKS[block.kind].wide else entering
        numbers = list(numbers_of(block.args[1:]))
        largest = max([1.0, *map(abs, numbers)])
        total += 16 * block.repeats * (1 + len(numbers)) * ((entering + leaving) * largest) ** 2
        widths.append(leaving)
    outputs = len(topology.anchors[0]) * (topology.nc + 5)
    return total + outputs * sum(widths)


def _blocks_of(topology: Topology) -> nn.ModuleList:
    """New modules, one per block.

    Raises:
        UserError: a block does not accept its arguments.
    """
    modules: list[nn.Module] = []
    widths: list[int] = []
    for i, (block, sources) in enumerate(zip(topology.blocks, topology.absolute_sources(), strict=True)):
        inputs = tuple(topology.channels if s < 0 else widths[s] for s in sources)
        site = Site(inputs, block.repeats, block.args, topology.activation, topology.nc, topology.anchors)
        try:
            module, width = BLOCKS[block.kind].build(site)
        except Exception as error:  # modules fail with invalid arguments in many ways
            raise UserError(
                f"Block {i} ({block.kind}) does not accept the arguments {shown(list(block.args))}: {told(error)}."
            ) from error
        if width < 1 or any(p.numel() == 0 for p in module.parameters()):
            raise UserError(
                f"Block {i} ({block.kind}) is too narrow: a layer in it has no channels. Increase its width."
            )
        modules.append(module)
        widths.append(width)
    for module in nn.ModuleList(modules).modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps, module.momentum = 1e-3, 0.03
    return nn.ModuleList(modules)


def _width_check(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    """A hook for the batch norm of this name that checks the width of its input, which a shape pass does not."""

    def check(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        if norm.num_features != inputs[0].shape[1]:
            raise UserError(
                f"The tensors of {name} have {norm.num_features} channels, but the input has {inputs[0].shape[1]}."
            )

    return check


def _mean_area(row: Sequence[float]) -> float:
    """Mean area of a row of (width, height) pairs."""
    return sum(w * h for w, h in zip(row[::2], row[1::2], strict=True)) / max(len(row) // 2, 1)


def _fold(block: Conv, norm: nn.BatchNorm2d) -> None:
    """Folds a batch norm with running statistics into the convolution before it, in double precision."""
    weight = block.conv.weight
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    bias = block.conv.bias.double() if block.conv.bias is not None else 0.0
    offset = norm.bias.double() + (bias - norm.running_mean.double()) * scale
    block.conv.weight = nn.Parameter((weight.double() * scale.view(-1, 1, 1, 1)).to(weight.dtype), requires_grad=False)
    block.conv.bias = nn.Parameter(offset.to(weight.dtype), requires_grad=False)
    block.bn = nn.Identity()
    if hasattr(block.act, "inplace"):
        # The activation is the only reader of the convolution, and one buffer less saves a seventh of the time on CPU.
        setattr(block.act, "inplace", True)  # noqa: B010
