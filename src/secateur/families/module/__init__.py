"""Networks of the user: their functions are passed in Python, and their files hold only tensors."""

from __future__ import annotations

from typing import Any

from secateur.data.config import load_data_config
from secateur.families.detection.split import DetectionSplit
from secateur.families.family import FAMILIES, Family
from secateur.families.module.evidence_split import EvidenceImages, EvidenceSplit
from secateur.networks.plain_module import PlainModule


class ModuleFamily(Family):
    """Networks whose code is not in the checkpoint."""

    kind = PlainModule.kind
    title = "plain module"
    architecture = PlainModule

    def open_data(self, file: str) -> Any:
        """Opens a YOLO data.yaml; only its images are read."""
        return load_data_config(file)

    def split(
        self, data: Any, name: str, *, objects: bool = True, otherwise: str = "", tell: bool = False
    ) -> DetectionSplit | EvidenceSplit:
        """The inputs of an evidence, or the images of a data.yaml or a folder for a network with one image input."""
        if isinstance(data, EvidenceImages):
            return EvidenceSplit.of(data.evidence)
        return DetectionSplit.of(data, name, objects=objects, otherwise=otherwise, tell=tell)


FAMILIES.register(ModuleFamily.kind)(ModuleFamily())
