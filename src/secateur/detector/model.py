"""The detector: a topology brought to life, whose widths are those of its tensors."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from secateur.detector.blocks import BottleneckCSP, Conv
from secateur.detector.build import build_blocks
from secateur.detector.head import Detect
from secateur.detector.topology import JOINING_KINDS, Topology
from secateur.errors import UserError

_PROBE_SIZE = 256  # px; a multiple of every stride that the family has


class Detector(nn.Module):
    """An anchor-based detector.

    Attributes:
        topology: its blocks.
        names: class id -> name.
        model: one module a block; parameter names are those of published checkpoints.
    """

    def __init__(self, topology: Topology, names: Mapping[int, str] | None = None) -> None:
        super().__init__()
        self.topology = topology
        self.names = dict(names) if names else {i: f"class{i}" for i in range(topology.nc)}
        self.model = build_blocks(topology)
        self._sources = topology.absolute_sources()
        self._joins = tuple(block.kind in JOINING_KINDS for block in topology.blocks)
        self._kept = frozenset(s for i, sources in enumerate(self._sources) for s in sources if s != i - 1)
        # Channels of one group are part of the topology: narrowing a grouped convolution removes whole groups.
        self._group_widths = {
            name: (m.in_channels // m.groups, m.out_channels // m.groups)
            for name, m in self.named_modules()
            if isinstance(m, nn.Conv2d | nn.ConvTranspose2d) and m.groups > 1
        }
        self.head.set_strides(self._probe_strides())
        self._order_anchors()
        self.initialize_biases()

    @property
    def head(self) -> Detect:
        """The detection head."""
        head = self.model[-1]
        assert isinstance(head, Detect)
        return head

    @property
    def nc(self) -> int:
        """Number of classes."""
        return self.head.nc

    @property
    def na(self) -> int:
        """Anchors at each place of a level."""
        return self.head.na

    @property
    def nl(self) -> int:
        """Number of levels."""
        return self.head.nl

    @property
    def no(self) -> int:
        """Values of one prediction: box, objectness, classes."""
        return self.head.no

    @property
    def strides(self) -> tuple[float, ...]:
        """Pixels of the image for one cell of each level."""
        return self.head.strides

    @property
    def is_fused(self) -> bool:
        """Whether BatchNorm is folded into the convolutions."""
        return any(isinstance(m, Conv) and isinstance(m.bn, nn.Identity) for m in self.modules())

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images [B, 3, H, W] in 0..1 -> raw logits [B, na, ny, nx, no], one tensor a level."""
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
        """Raw logits -> [B, N, no]: boxes xywh in pixels, then objectness and class scores, in fp32."""
        return self.head.decode(raw)

    def decode_above(self, raw: Sequence[Tensor], confidence: float) -> list[Tensor]:
        """Of each image the decoded rows [n, no] whose objectness is above `confidence`, in the order of `decode`."""
        return self.head.decode_above(raw, confidence)

    def predict(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] in 0..1 -> decoded predictions [B, N, no]."""
        return self.decode(self.forward(images))

    def initialize_biases(self) -> None:
        """Sets the head's prior: 8 objects in a 640 px image, classes equally rare."""
        self.head.initialize_biases()

    def fused(self) -> Detector:
        """A copy in eval mode with every BatchNorm that follows a convolution folded into it, without gradients."""
        detector = copy.deepcopy(self).eval().requires_grad_(False)
        for module in detector.modules():
            if isinstance(module, Conv) and isinstance(module.bn, nn.BatchNorm2d):
                _fold(module, module.bn)
        return detector

    def set_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Gives every layer the shape of its tensor and a copy of the values (in the detector's dtype, on its device).

        Args:
            tensors: a whole state dict, of an unfused or of a fused detector.

        Raises:
            UserError: tensors are missing, unknown, or do not fit together.
        """
        self._match_fusing(tensors)
        current = self.state_dict()
        missing, unexpected = sorted(current.keys() - tensors.keys()), sorted(tensors.keys() - current.keys())
        if missing or unexpected:
            parts = [f"lack {_some(missing)}"] if missing else []
            parts += [f"have the unknown {_some(unexpected)}"] if unexpected else []
            raise UserError(f"The tensors are of another network than the topology: they {' and '.join(parts)}.")
        for name, module in self.named_modules():
            prefix = f"{name}." if name else ""
            for key, old in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
                _replace(module, key, old, tensors[prefix + key], prefix + key)
            self._resize(name, module)
        self._check_shapes()

    def _match_fusing(self, tensors: Mapping[str, Tensor]) -> None:
        """Gives each Conv the layout, with or without BatchNorm, that the tensors have."""
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

    def _resize(self, name: str, module: nn.Module) -> None:
        """Brings the numbers that a layer keeps beside its tensors in line with them."""
        if isinstance(module, nn.Conv2d):
            rows, columns = module.weight.shape[:2]
            per_group = self._group_widths.get(name)
            module.groups = _groups(rows, per_group[1], name) if per_group else 1
            module.out_channels, module.in_channels = rows, columns * module.groups
            _check_group(columns, per_group[0] if per_group else columns, name)
        elif isinstance(module, nn.ConvTranspose2d):
            rows, columns = module.weight.shape[:2]
            per_group = self._group_widths.get(name)
            module.groups = _groups(rows, per_group[0], name) if per_group else 1
            module.in_channels, module.out_channels = rows, columns * module.groups
            _check_group(columns, per_group[1] if per_group else columns, name)
        elif isinstance(module, nn.BatchNorm2d):
            module.num_features = module.weight.shape[0]
        elif isinstance(module, nn.Linear):
            module.out_features, module.in_features = module.weight.shape

    def _check_shapes(self) -> None:
        """Runs shapes alone through the network, so that tensors that do not fit are refused here and not later."""
        for name, module in self.named_modules():
            width = 0
            if isinstance(module, Conv):
                width = module.conv.out_channels
            elif isinstance(module, BottleneckCSP):
                width = module.cv2.out_channels + module.cv3.out_channels
            norm = getattr(module, "bn", None)
            if isinstance(norm, nn.BatchNorm2d) and {t.numel() for t in norm.state_dict().values()} - {1} - {width}:
                raise UserError(f"The tensors of {name}.bn do not have the {width} channels of its convolution.")
            if isinstance(module, Conv | nn.Conv2d | nn.ConvTranspose2d):
                layer = module.conv if isinstance(module, Conv) else module
                if layer.bias is not None and layer.bias.numel() != layer.out_channels:
                    raise UserError(f"The bias of {name} does not have its {layer.out_channels} channels.")
        if any(convolution.get_parameter("weight").shape[0] != self.na * self.no for convolution in self.head.m):
            raise UserError(f"The head's tensors are not for {self.na} anchors and {self.nc} classes.")
        try:
            self.run_shapes(_PROBE_SIZE)
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"The tensors do not fit together as the topology joins them: {reason}.") from error

    def run_shapes(self, height: int, width: int | None = None) -> list[Tensor]:
        """A forward pass in eval mode on the meta device: shapes without arithmetic or memory; hooks fire.

        Args:
            height: px of the image.
            width: px; the same as the height when left out.
        """
        meta = {k: torch.empty_like(v, device="meta") for k, v in self.state_dict().items()}
        training = [m for m in self.modules() if m.training]
        shape = (1, self.topology.channels, height, width or height)
        try:
            self.eval()
            with torch.no_grad():
                image = torch.empty(shape, device="meta", dtype=self.head.anchors.dtype)
                raw: list[Tensor] = functional_call(self, meta, (image,))
            return raw
        finally:
            for module in training:
                module.training = True

    def _probe_strides(self) -> tuple[float, ...]:
        try:
            raw = self.run_shapes(_PROBE_SIZE)
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"The blocks of the model do not fit together: {reason}.") from error
        return tuple(_PROBE_SIZE / level.shape[2] for level in raw)

    def _order_anchors(self) -> None:
        """Files sometimes list anchors from large to small while levels go from fine to coarse; turns them around."""
        if self.nl < 2 or self.strides[0] == self.strides[-1]:
            return
        areas = [_mean_area(row) for row in self.topology.anchors]
        if (areas[-1] - areas[0]) * (self.strides[-1] - self.strides[0]) < 0:
            scale = torch.tensor(self.strides, device=self.head.anchors.device).view(-1, 1, 1)
            self.head.anchors = (self.head.anchors * scale).flip(0) / scale


def _mean_area(row: Sequence[float]) -> float:
    """Mean area of a row of (width, height) pairs."""
    return sum(w * h for w, h in zip(row[::2], row[1::2], strict=True)) / max(len(row) // 2, 1)


def _some(names: Sequence[str]) -> str:
    """Up to three names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _groups(channels: int, width: int, name: str) -> int:
    if channels % width:
        raise UserError(f"The tensor {name}.weight has {channels} channels, no multiple of its group width {width}.")
    return channels // width


def _check_group(found: int, expected: int, name: str) -> None:
    if found != expected:
        raise UserError(f"The tensor {name}.weight has {found} channels in a group instead of {expected}.")


def _replace(module: nn.Module, key: str, old: Tensor, new: Tensor, name: str) -> None:
    """Puts a copy of `new` in the place of the parameter or buffer `old`; kernels must agree, widths need not."""
    same_rank = old.ndim == new.ndim and (old.ndim < 4 or old.shape[2:] == new.shape[2:])
    fixed = name.endswith(".anchors") or old.ndim == 0
    if not same_rank or (fixed and old.shape != new.shape) or 0 in new.shape:
        raise UserError(f"The tensor {name} has the shape {list(new.shape)}; the topology has {list(old.shape)} there.")
    device = new.device if old.is_meta else old.device
    value = new.detach().to(device=device, dtype=old.dtype, copy=True).contiguous()
    if isinstance(old, nn.Parameter):
        setattr(module, key, nn.Parameter(value, requires_grad=old.requires_grad))
    else:
        setattr(module, key, value)


def _fold(block: Conv, norm: nn.BatchNorm2d) -> None:
    """Multiplies a BatchNorm with running statistics into the convolution before it, in double precision."""
    weight = block.conv.weight
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    bias = block.conv.bias.double() if block.conv.bias is not None else 0.0
    offset = norm.bias.double() + (bias - norm.running_mean.double()) * scale
    block.conv.weight = nn.Parameter((weight.double() * scale.view(-1, 1, 1, 1)).to(weight.dtype), requires_grad=False)
    block.conv.bias = nn.Parameter(offset.to(weight.dtype), requires_grad=False)
    block.bn = nn.Identity()
    if hasattr(block.act, "inplace"):
        # Nobody else reads the convolution's output, and one buffer less saves a seventh of the time on CPU.
        setattr(block.act, "inplace", True)  # noqa: B010
