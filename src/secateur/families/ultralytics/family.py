"""The verbs of the family `ultralytics`, each answered by the file that knows about it."""

from __future__ import annotations

from pathlib import Path

from secateur.families.detection.family import DetectionFamily
from secateur.families.ultralytics.architecture import Ultralytics
from secateur.families.ultralytics.reading import is_theirs, read_file
from secateur.networks.checkpoint import Checkpoint


class UltralyticsFamily(DetectionFamily):
    """Networks that the user's own package `ultralytics` builds."""

    kind = Ultralytics.kind
    title = "Ultralytics"
    architecture = Ultralytics

    def reads(self, file: Path) -> bool:
        """A `.pt` whose pickle names the package's models."""
        return is_theirs(file)

    def read(self, file: Path, cfg: str | Path = "") -> Checkpoint:
        """A `.pt` of the package, as data."""
        return read_file(file)
