"""A file to evaluate: a checkpoint, evaluated by its family, or an exported file, evaluated by its runtime."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from secateur.data.config import DataConfig, load_data_config
from secateur.deploy.runtimes import is_exported, open_predictor, runtime_of
from secateur.deploy.speed.comparison import megabytes
from secateur.evaluation.cost import layer_flops
from secateur.evaluation.predictor import Predictor
from secateur.evaluation.settings import ValSettings
from secateur.evaluation.validate import validate
from secateur.families.context import as_one_class, known_data
from secateur.families.detection.split import DetectionSplit
from secateur.families.evaluation import DEFAULT_SIZE, describe, of_data, usable_size
from secateur.families.family import family_of
from secateur.families.loading import load_checkpoint
from secateur.families.reading import DataSet
from secateur.families.summary import summary
from secateur.networks.checkpoint import Checkpoint
from secateur.sizes import ImageSize


@dataclass(frozen=True)
class Subject:
    """An opened file.

    Attributes:
        weights: file as given by the user.
        network: the checkpoint, or the predictor of an exported file.
        image_size: px, one side or height and width.
        model: the `model` entry of summaries.
        line: one-line description of the network.
    """

    weights: str
    network: Checkpoint | Predictor
    image_size: ImageSize
    model: dict[str, Any]
    line: str

    @staticmethod
    def of(weights: str, image_size: ImageSize, device: torch.device, precision: str) -> Subject:
        """Opens a file.

        Args:
            weights: file as given by the user.
            image_size: 0 uses the size that the file requires or stores.
            device: device of a checkpoint.
            precision: precision of a checkpoint; exported files have a fixed precision.

        Raises:
            UserError: the file cannot be opened.
        """
        file = Path(weights)
        if is_exported(file):
            predictor = open_predictor(file, device, precision=precision)
            fixed = predictor.image_size
            longest = max(fixed) if isinstance(fixed, tuple) else fixed
            model = {"parameters": None, "gflops": None, "sparsity": None, "file_mb": megabytes(file)}
            line = f"{weights}: {runtime_of(file).title}, {predictor.nc} classes"
            return Subject(weights, predictor, image_size or longest or DEFAULT_SIZE, model, line)
        checkpoint = load_checkpoint(weights)
        size = usable_size(checkpoint, image_size)
        described = summary(checkpoint, size, layer_flops(checkpoint.build(), size))
        return Subject(weights, checkpoint, size, describe(checkpoint, size), f"{weights}: {described.line()}")

    def data(self, file: str, *, one_class: bool = False) -> DataSet:
        """The data set with the classes of the network.

        Args:
            file: the data set.
            one_class: treat all classes as one.

        Raises:
            UserError: the network cannot be evaluated, the file is not a data set, or its classes do not match.
        """
        if isinstance(self.network, Checkpoint):
            family_of(self.network).require("evaluate", "evaluated")
            data: DataSet = family_of(self.network).open_data(file)
        else:
            data = load_data_config(file)
        return as_one_class(data) if one_class else known_data(self.network, data, self.weights)

    def images(self, data: DataSet, split: str, *, tell: bool = False) -> Any:
        """The checked images of a split with their labels.

        Args:
            data: the data set.
            split: train, val or test.
            tell: print findings on standard error.

        Raises:
            UserError: the split does not exist or is invalid.
        """
        if isinstance(self.network, Checkpoint):
            return family_of(self.network).split(data, split, tell=tell)
        assert isinstance(data, DataConfig)
        return DetectionSplit.of(data, split, tell=tell)

    def evaluate(
        self,
        data: DataSet,
        split: str,
        settings: ValSettings,
        device: torch.device,
        *,
        precision: str = "fp32",
        folder: Path | None = None,
        tell: bool = True,
    ) -> Any:
        """The scores: of a checkpoint by its family, of an exported file from its boxes.

        Args:
            data: the data set.
            split: train, val or test.
            settings: settings of the validation.
            device: device of a checkpoint.
            precision: precision of a checkpoint.
            folder: folder for the files that the settings request.
            tell: print findings about the split on standard error.

        Raises:
            UserError: the data set is invalid, or has labels of classes that the network lacks.
        """
        images = self.images(data, split, tell=tell)
        if isinstance(self.network, Checkpoint):
            family, network = family_of(self.network), self.network.build().to(device)
            scores = family.evaluate(network, images, settings, precision=precision, folder=folder)
        else:
            scores = validate(self.network, images.index, settings, folder=folder)
        return of_data(scores, data, split)
