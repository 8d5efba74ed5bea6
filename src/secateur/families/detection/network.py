"""Interface of detection networks: the methods needed to predict boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from secateur.errors import UserError
from secateur.evaluation.nms import Candidates
from secateur.networks.architecture import DescribedNetwork


@runtime_checkable
class DetectionNetwork(DescribedNetwork, Protocol):
    """A described network that finds objects.

    It also has the method of either `Proposing`, whose candidates need non-maximum suppression, or `Deciding`, whose
    boxes are final.
    """

    names: dict[int, str]

    @property
    def nc(self) -> int:
        """Number of classes."""

    @property
    def strides(self) -> tuple[float, ...]:
        """Pixels of the image per cell of each level; image sides must be multiples of the largest one."""


class Proposing(Protocol):
    """A network with overlapping boxes, which need non-maximum suppression."""

    def candidates(self, raw: Any, confidence: float) -> Sequence[Candidates]:
        """Converts raw outputs of `forward` to float32 boxes [n, 4] and scores [n, nc] of each image.

        Args:
            confidence: candidates whose scores are all at or below it may be omitted; if negative, none are.
        """


class Deciding(Protocol):
    """A network with final boxes, one per object."""

    def boxes(self, raw: Any) -> Sequence[Tensor]:
        """Converts raw outputs of `forward` to boxes [n, 6] of each image: x1, y1, x2, y2 in pixels, score, class."""


_OFFERED = (*(name for name in (*vars(DescribedNetwork), *vars(DetectionNetwork)) if not name.startswith("_")), "names")


def decides(network: nn.Module) -> bool:
    """Whether the boxes of a detector are final (`Deciding`) and need no suppression."""
    # Checked on the class, because a layer may have that name.
    return hasattr(type(network), "boxes")


def check_detector(network: nn.Module) -> None:
    """Checks that a network can predict boxes.

    Raises:
        UserError: part of the `DetectionNetwork` interface is missing.
    """
    lacking = [name for name in dict.fromkeys(_OFFERED) if not hasattr(network, name)]
    if not decides(network) and not hasattr(type(network), "candidates"):
        lacking.append("candidates (or boxes)")
    if lacking:
        raise UserError(
            f"{type(network).__name__} cannot be used as a detector: it lacks {', '.join(lacking)}. "
            "See secateur.families.detection.network for the interface of detection networks."
        )
