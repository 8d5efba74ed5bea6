"""The architecture of the YOLOv5 family: a topology, which is a list of blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from secateur.errors import UserError
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import Topology
from secateur.networks.checkpoint import Checkpoint


@dataclass(frozen=True)
class YOLOv5:
    """Anchor-based detectors built from the blocks of YOLOv5 model files.

    Attributes:
        topology: its blocks, with the widths before any cut.
    """

    topology: Topology
    _strides: list[tuple[float, ...]] = field(default_factory=list, init=False, compare=False, repr=False)
    kind: ClassVar[str] = "yolov5"

    @property
    def nc(self) -> int:
        """Number of classes."""
        return self.topology.nc

    @property
    def channels(self) -> int:
        """Channels of the image."""
        return self.topology.channels

    def build(self, names: Mapping[int, str]) -> Detector:
        """An untrained detector.

        Raises:
            UserError: the blocks do not fit together.
        """
        detector = Detector(self.topology, names, *self._strides)
        self._strides[:] = [detector.strides]  # the next detector then needs no shape pass
        return detector

    def with_classes(self, nc: int) -> YOLOv5:
        """The architecture for another number of classes."""
        return YOLOv5(self.topology.with_classes(nc))

    def to_dict(self) -> dict[str, Any]:
        """Data that JSON can hold."""
        return self.topology.to_dict()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> YOLOv5:
        """The inverse of `to_dict`.

        Raises:
            UserError: the data does not describe a topology.
        """
        return cls(Topology.from_dict(data))

    def __str__(self) -> str:
        return f"YOLOv5 network of {len(self.topology.blocks)} blocks"


def topology_of(checkpoint: Checkpoint) -> Topology:
    """The topology of a checkpoint of this family.

    Raises:
        UserError: the checkpoint is of another family.
    """
    if not isinstance(checkpoint.architecture, YOLOv5):
        raise UserError(
            f"The checkpoint holds a {checkpoint.architecture}, which is not a network of the YOLOv5 family."
        )
    return checkpoint.architecture.topology
