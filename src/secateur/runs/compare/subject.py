"""What is evaluated: a checkpoint by its family, or an exported file by its runtime."""

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
        weights: the file as it was named.
        network: the checkpoint, or what predicts.
        image_size: px, one side or height and width.
        model: the `model` part of summaries.
        line: the network in words.
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
            image_size: 0 takes what the file takes or remembers.
            precision: of a checkpoint; an exported file has its own.

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
        """The data set as the network knows it.

        Args:
            one_class: take all classes as one.

        Raises:
            UserError: the network cannot be evaluated, the file is no data set, or the network does not know its
                classes.
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
            tell: print on standard error what was found.

        Raises:
            UserError: there is no such split, or it is broken.
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
        """The scores of a checkpoint as its family gives them, or those of the boxes of an exported file.

        Args:
            folder: takes what the settings ask to be written.
            tell: print on standard error what was found of the split.

        Raises:
            UserError: the data set is broken, or its labels are of classes that the network lacks.
        """
        images = self.images(data, split, tell=tell)
        if isinstance(self.network, Checkpoint):
            family, network = family_of(self.network), self.network.build().to(device)
            scores = family.evaluate(network, images, settings, precision=precision, folder=folder)
        else:
            scores = validate(self.network, images.index, settings, folder=folder)
        return of_data(scores, data, split)
