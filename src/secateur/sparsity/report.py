"""Counts zero weights of a detector per layer, as three ratios and in bytes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateur.files import write_json, write_text
from secateur.networks.checkpoint import Checkpoint
from secateur.sparsity.patterns import Pattern, parse_pattern, zeros_per_block
from secateur.sparsity.selection import layers

NO_SPEED = (
    "Zeros do not increase speed: dense runtimes (PyTorch, ONNX Runtime, OpenVINO, TensorRT) compute with them "
    "like with any other number. Use a runtime or hardware for the pattern, or cut channels."
)


@dataclass(frozen=True)
class LayerZeros:
    """One convolution or linear layer: name and shape of its weight, number of weights, and number of zeros.

    `covered` is True if the layer was to be pruned.
    """

    name: str
    shape: tuple[int, ...]
    weights: int
    zeros: int
    covered: bool


@dataclass(frozen=True)
class SparsityReport:
    """Zeros of a detector, counted in its tensors, independent of masks.

    The names of the three ratios are those of Intel Neural Compressor.

    Attributes:
        pattern: name of the pattern for `block_zeros`.
        layers: all convolutions and linear layers.
        parameters: number of parameters, including biases and norms.
        parameter_zeros: number of zeros among them.
        block_zeros: zeros of the covered layers in completely pruned blocks.
        dense_bytes: size of all tensors in fp16.
        compressed_bytes: size with each layer stored as a bit mask and its nonzero weights, if that is smaller.
    """

    pattern: str
    layers: tuple[LayerZeros, ...]
    parameters: int
    parameter_zeros: int
    block_zeros: int
    dense_bytes: int
    compressed_bytes: int

    @property
    def elementwise_over_matmul_gemm_conv(self) -> float:
        """Zeros of convolutions and linear layers relative to their weights."""
        return _share(sum(x.zeros for x in self.layers), self._weights)

    @property
    def elementwise_over_all(self) -> float:
        """Zeros relative to all parameters, as `sparsity` of Ultralytics."""
        return _share(self.parameter_zeros, self.parameters)

    @property
    def blockwise_over_matmul_gemm_conv(self) -> float:
        """Zeros in completely pruned blocks relative to the weights of convolutions and linear layers."""
        return _share(self.block_zeros, self._weights)

    @property
    def over_covered(self) -> float:
        """Zeros of the covered layers relative to their weights: the figure to compare with a target."""
        covered = [x for x in self.layers if x.covered]
        return _share(sum(x.zeros for x in covered), sum(x.weights for x in covered))

    @property
    def _weights(self) -> int:
        return sum(x.weights for x in self.layers)

    def ratios(self) -> dict[str, float]:
        """The shares of zeros by name."""
        return {
            "elementwise_over_matmul_gemm_conv": self.elementwise_over_matmul_gemm_conv,
            "elementwise_over_all": self.elementwise_over_all,
            "blockwise_over_matmul_gemm_conv": self.blockwise_over_matmul_gemm_conv,
            "over_covered": self.over_covered,
        }

    def to_dict(self) -> dict[str, Any]:
        """Data that JSON can hold: the attributes and the ratios."""
        return {**self.ratios(), **asdict(self)}

    def table(self) -> str:
        """One line per layer, then the ratios, the sizes and a note on speed."""
        rows = [("layer", "shape", "weights", "zeros")]
        for x in self.layers:
            share = f"{100 * _share(x.zeros, x.weights):.2f} %" + ("" if x.covered else " (dense)")
            rows.append((x.name.removesuffix(".weight"), "x".join(map(str, x.shape)), f"{x.weights:,}", share))
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        lines = [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}  {d}" for a, b, c, d in rows]
        lines += ["", *(f"{name}: {value:.4f}" for name, value in self.ratios().items())]
        dense, compressed = self.dense_bytes / 1e6, self.compressed_bytes / 1e6
        lines.append(f"fp16 file: {dense:.2f} MB; with zeros stored as a bit mask, about {compressed:.2f} MB.")
        return "\n".join([*lines, NO_SPEED])


def sparsity_report(
    detector: nn.Module, covered: Collection[str] | None = None, pattern: Pattern | None = None
) -> SparsityReport:
    """Counts the zeros of a detector.

    Args:
        detector: any module.
        covered: names of the weights that were to be pruned ("model.0.conv.weight"); None: all convolutions and linear
            layers.
        pattern: blocks of the blockwise ratio; None: single weights.
    """
    pattern = pattern or parse_pattern("1x1")
    rows, block_zeros, saved = [], 0, 0
    for module_name, module in layers(detector):
        name, weight = f"{module_name}.weight", module.get_parameter("weight").detach()
        row = LayerZeros(
            name, tuple(weight.shape), weight.numel(), zeros_of(weight), covered is None or name in covered
        )
        rows.append(row)
        if row.covered and pattern.fits(weight):
            block_zeros += _zeros_in_blocks(weight, pattern)
        # fp16: a zero saves two bytes, the mask costs one bit per weight.
        saved += max(2 * row.zeros - -(-row.weights // 8), 0)
    parameters = list(detector.parameters())
    dense = sum(2 * x.numel() if x.is_floating_point() else x.nbytes for x in detector.state_dict().values())
    return SparsityReport(
        pattern=pattern.name,
        layers=tuple(rows),
        parameters=sum(x.numel() for x in parameters),
        parameter_zeros=sum(map(zeros_of, parameters)),
        block_zeros=block_zeros,
        dense_bytes=dense,
        compressed_bytes=dense - saved,
    )


def report_of(checkpoint: Checkpoint) -> SparsityReport | None:
    """Counts the zeros of a detector with masks; None if it has no masks."""
    if not checkpoint.masks:
        return None
    # The third ratio uses the blocks of the last weight pruning.
    words = [entry.settings.get("pruning_pattern") or entry.settings.get("pattern") for entry in checkpoint.history]
    names = [word for word in words if word]
    return sparsity_report(checkpoint.build(), list(checkpoint.masks), parse_pattern(names[-1] if names else "1x1"))


def write_sparsity(folder: Path, checkpoint: Checkpoint) -> SparsityReport | None:
    """Writes sparsity.txt and sparsity.json and prints the ratios with a note on speed, if there are masks.

    Returns:
        The report; None if the checkpoint has no masks.
    """
    report = report_of(checkpoint)
    if report is None:
        return None
    write_text(folder / "sparsity.txt", report.table() + "\n")
    write_json(folder / "sparsity.json", report.to_dict())
    print(f"Zeros: {', '.join(f'{name} {value:.4f}' for name, value in report.ratios().items())}")
    print(NO_SPEED)
    return report


def zeros_of(tensor: Tensor) -> int:
    """Number of exact zeros of a tensor of any shape."""
    return tensor.numel() - int(torch.count_nonzero(tensor))


def _zeros_in_blocks(weight: Tensor, pattern: Pattern) -> int:
    # A block is pruned if the weights that it would lose are zero; for N:M, if at most N are nonzero.
    lost = pattern.reduce(weight.abs(), "max")
    return int((lost == 0).sum()) * zeros_per_block(pattern, weight.numel(), lost.numel())


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
