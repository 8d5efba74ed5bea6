"""What a detection network offers, so that it can answer images with boxes."""

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

    It also has one of two methods: that of `Proposing`, whose candidates are suppressed, or that of `Deciding`, whose
    boxes are final.
    """

    names: dict[int, str]

    @property
    def nc(self) -> int:
        """Number of classes."""

    @property
    def strides(self) -> tuple[float, ...]:
        """Pixels of the image for one cell of each level; the sides of images are multiples of the largest."""


class Proposing(Protocol):
    """A network whose boxes overlap: which of them stay is decided by non-maximum suppression."""

    def candidates(self, raw: Any, confidence: float) -> Sequence[Candidates]:
        """Raw outputs of `forward` -> boxes [n, 4] and scores [n, nc] of each image, in fp32.

        Args:
            confidence: candidates whose scores are all at most this may be left out; below 0 none is.
        """


class Deciding(Protocol):
    """A network whose boxes are final, one for each object."""

    def boxes(self, raw: Any) -> Sequence[Tensor]:
        """Raw outputs of `forward` -> boxes [n, 6] of each image: x1, y1, x2, y2 in pixels, score, class."""


_OFFERED = (*(name for name in (*vars(DescribedNetwork), *vars(DetectionNetwork)) if not name.startswith("_")), "names")


def decides(network: nn.Module) -> bool:
    """Whether the boxes of a detector are final (`Deciding`), so that nothing is suppressed."""
    # Asked of the class, for a layer may have that name.
    return hasattr(type(network), "boxes")


def check_detector(network: nn.Module) -> None:
    """Refuses a network that cannot answer with boxes.

    Raises:
        UserError: it lacks something of `DetectionNetwork`.
    """
    lacking = [name for name in dict.fromkeys(_OFFERED) if not hasattr(network, name)]
    if not decides(network) and not hasattr(type(network), "candidates"):
        lacking.append("candidates (or boxes)")
    if lacking:
        raise UserError(
            f"A {type(network).__name__} lacks {', '.join(lacking)}; "
            "secateur.families.detection.network lists what a detection network offers."
        )
