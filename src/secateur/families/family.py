"""The interface of a family of networks, used by all code that reads, prunes, trains, evaluates or exports networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from secateur.errors import UserError, shown
from secateur.evaluation.predictor import Predictor
from secateur.evaluation.settings import ValSettings
from secateur.families.outputs import Answer, Decoder, Form, Opened, Outputs, own_outputs
from secateur.families.reading import Split
from secateur.families.teaching import Teaching
from secateur.families.training import Trainable
from secateur.networks.architecture import Architecture, architecture_of
from secateur.networks.checkpoint import Checkpoint
from secateur.registry import PLUGINS, Registry
from secateur.training.objective import Term
from secateur.training.settings import TrainSettings

Tensors = Mapping[str, Tensor]


class OwnLabels(Protocol):
    """Targets sampled from the outputs of a network."""

    def __call__(self, images: Tensor) -> Tensor:
        """Targets for prepared images [B, C, H, W], in the format of the loss of the family."""

    def require_some(self) -> None:
        """Checks that anything was found.

        Raises:
            UserError: nothing was found on any image.
        """


@dataclass(frozen=True)
class NoHyp:
    """No hyper-parameters besides the common ones."""


class Family(Teaching, Trainable):
    """One kind of networks. A subclass overrides the verbs (methods) that it supports; `knows` reports which.

    Calling an unsupported verb raises a `UserError` that names the family and the verb. Steps and commands call
    `require` for the verbs they need before any work begins.

    Attributes:
        kind: name in files and in `FAMILIES`.
        title: name in sentences.
        architecture: dataclass with the data that a network of the family is built from.
        hyp: frozen dataclass of the hyper-parameters of the loss and head of the family, with defaults; it checks their
            ranges (`training.hyp.check_hyper_parameters`). They are keys of the same flat file.
        opens: files of other programs that `recognises` reads, as text: "YOLOX detectors"; "" for none.
        hands_out: suffix of the file that `write` creates and that pruning saves next to its checkpoint, such as ".pt";
            "" for none.
        fallback: whether it handles files that no other family recognises, because its error messages describe them
            best.
    """

    kind: ClassVar[str]
    title: ClassVar[str]
    architecture: ClassVar[type[Architecture]]
    hyp: ClassVar[type[Any]] = NoHyp
    opens: ClassVar[str] = ""
    hands_out: ClassVar[str] = ""
    fallback: ClassVar[bool] = False

    def knows(self, verb: str) -> bool:
        """Whether the family supports the verb (the name of a method)."""
        return getattr(type(self), verb) is not getattr(Family, verb)

    def require(self, verb: str, done: str, instead: str = "leave this step out") -> None:
        """Checks that the family supports a verb.

        Args:
            verb: name of the method.
            done: what would be done with the network: "trained", "healed".
            instead: alternative for the user.

        Raises:
            UserError: the family does not support it.
        """
        if not self.knows(verb):
            raise UserError(
                f"A network of the family '{self.kind}' cannot be {done}: the family does not implement `{verb}`. "
                f"Either {instead}, or implement it (docs/extending.md)."
            )

    # Files

    def reads(self, file: Path) -> bool:
        """Whether a file is in a format of the family; only its beginning is read, and nothing is executed."""
        return False

    def read(self, file: Path, cfg: str | Path = "") -> Checkpoint:
        """Reads a checkpoint in a format of the family.

        Args:
            cfg: description of the network, for files that hold only tensors.

        Raises:
            UserError: the file is damaged, or in another format.
        """
        raise self.lacks("read")

    def fetch(self, file: Path) -> bool:
        """Downloads a published checkpoint of this name to this path; False if none is published under the name.

        Raises:
            UserError: it is published, but the download fails.
        """
        return False

    def flaw(self, checkpoint: Checkpoint) -> str:
        """Describes an inconsistency in the metadata of a checkpoint, such as "broken strides"; "" if there is none."""
        return ""

    # Starting points

    def describes(self, cfg: str) -> bool:
        """Whether `--cfg` names a network of this family."""
        return False

    def fresh(self, cfg: str, names: Mapping[int, str], options: Mapping[str, Any]) -> Checkpoint:
        """An untrained network for these classes.

        Args:
            cfg: description of the network.
            options: hyper-parameters by name; a family may use some of them.

        Raises:
            UserError: `cfg` does not describe a network.
        """
        raise self.lacks("fresh")

    def configured(self, checkpoint: Checkpoint, cfg: str, names: Mapping[int, str]) -> Checkpoint:
        """The checkpoint with the settings of `--cfg` that do not change its blocks.

        Raises:
            UserError: `cfg` describes another network.
        """
        raise self.lacks("configured")

    def pick_classes(self, checkpoint: Checkpoint, classes: tuple[int, ...]) -> Checkpoint:
        """The checkpoint with the outputs of only these classes, in this order; its outputs for them do not change.

        Args:
            classes: ids, without duplicates.

        Raises:
            UserError: the outputs for a class depend on other classes.
        """
        raise self.lacks("pick_classes")

    # Data

    def open_data(self, file: str) -> Any:
        """Opens the data set of `--data`, a `families.reading.DataSet`.

        Raises:
            UserError: it is not a data set.
        """
        raise self.lacks("open_data")

    def split(self, data: Any, name: str, *, objects: bool = True, otherwise: str = "", tell: bool = False) -> Split:
        """The checked images of a split of a data set.

        Args:
            data: result of `open_data`, or images without labels: a `DataConfig` from `data.config.unlabelled_images`.
            objects: raise an error if a labelled split has no objects.
            otherwise: alternative for the user, for that error.
            tell: print a summary on stderr.

        Raises:
            UserError: there is no such split, or it is empty or damaged.
        """
        raise self.lacks("split")

    def split_for(self, subject: Checkpoint | nn.Module, data: Any, name: str, **how: Any) -> Split:
        """The images of a split in the form that this network reads; `how` as in `split`.

        Raises:
            UserError: see `split`; also if objects are required and the labels are for another task.
        """
        return self.split(data, name, **how)

    def prepare(self, images: Tensor) -> Tensor:
        """Converts images, uint8 [B, C, H, W], to network input, float32; by default in 0..1. Float images are not
        scaled."""
        return images if images.is_floating_point() else images.float().div_(255)

    # The task

    def loss(self, network: nn.Module, settings: TrainSettings) -> Term:
        """The loss that the network is trained with, as the first term of an objective."""
        raise self.lacks("loss")

    def targets_of(self, targets: Tensor, image: int) -> Tensor:
        """Targets of one image of a batch, as for a batch of one; by default the entry along dimension 0. Targets
        have any shape."""
        return targets[image : image + 1]

    def check_targets(self, network: nn.Module, targets: Tensor) -> None:
        """Checks that the loss can read the targets of a batch, which are on the CPU and have any shape.

        Raises:
            UserError: for example, the network does not have a class.
        """

    def begin_training(self, network: nn.Module, split: Split | None, settings: TrainSettings) -> list[str]:
        """Prepares the network for training, in place. Returns lines for the log.

        Args:
            split: the training images; None for a training without a data set.
        """
        return []

    def own_labels(self, whole: nn.Module, seed: int) -> OwnLabels:
        """A function that labels images without labels by sampling from the outputs of the whole network."""
        raise self.lacks("own_labels")

    def evaluate(
        self,
        network: nn.Module,
        split: Split,
        settings: ValSettings,
        *,
        precision: str = "fp32",
        folder: Path | None = None,
        progress: bool = True,
    ) -> Any:
        """The `Scores` of a network on a split.

        Args:
            settings: image size, batch size, workers, and options of the task.
            precision: "fp32", "bf16" or "fp16".
            folder: folder for files that the settings request.
            progress: show a progress bar on stderr.

        Raises:
            UserError: there are no images, or the network does not have the classes of the labels.
        """
        raise self.lacks("evaluate")

    def predictor(self, network: nn.Module, precision: str = "fp32") -> Predictor:
        """A predictor of boxes from a copy of the network in its current state, on its device.

        Args:
            precision: "fp32", "bf16" or "fp16".

        Raises:
            UserError: the precision is unknown.
        """
        raise self.lacks("predictor")

    # Exported files

    def outputs(self, network: nn.Module, form: Form) -> Outputs:
        """The outputs of an exported file of a network; by default the outputs of the network itself.

        Args:
            network: on the CPU, fp32, in eval mode; it is not changed.

        Raises:
            UserError: the network has no outputs of this form.
        """
        return own_outputs(network, form)

    def decoder(self, opened: Opened) -> Decoder | None:
        """The decoder for the outputs of a file of the family; None returns outputs without decoding.

        Raises:
            ValueError: the outputs do not match the metadata of the file.
        """
        return None

    def recognises(self, answer: Answer) -> Decoder | str:
        """The decoder for a file of another program, recognised by its outputs for black images.

        If the family does not read the file, returns a hint for the error message, which continues "it maps
        these shapes to those, "; "" for none. The outputs of `answer` have any shape.
        """
        return ""

    def write(self, network: nn.Module, file: Path, image_size: int) -> str:
        """Writes a file in a format of the family, for other programs.

        Args:
            network: on the CPU, fp32, in eval mode.
            image_size: image size in pixels.

        Returns:
            A note for the user about the file; "" for none.

        Raises:
            UserError: the format cannot represent the network.
        """
        raise self.lacks("write")

    # The control

    def check_narrow(self, dense: Checkpoint) -> None:
        """Checks that the widths of a network can be scaled.

        Raises:
            UserError: they cannot; the message states why.
        """
        raise self.lacks("narrow")

    def narrowing(self, dense: Checkpoint, final: Checkpoint, image_size: int) -> dict[str, Any]:
        """How to scale the widths of the dense network to the FLOPs of the final one, as data that JSON can hold.

        Its "note" is appended to the title of a row; "" if the FLOPs are nearly equal.
        """
        raise self.lacks("narrow")

    def narrow(self, dense: Checkpoint, start: Checkpoint, narrowing: Mapping[str, Any], seed: int) -> Checkpoint:
        """The narrow network before its training (`--control`).

        Args:
            start: checkpoint that the run started from; its tensors are used where their shapes match.
        """
        raise self.lacks("narrow")

    # Descriptions

    def rows(self, network: nn.Module, flops: Mapping[str, int] | None) -> tuple[Any, ...]:
        """Rows of `secateur info --layers` (`families.summary.BlockRow`).

        Args:
            flops: FLOPs by module name, if counted.
        """
        return ()

    def lacks(self, verb: str) -> UserError:
        """The error for a verb that the family does not support."""
        return UserError(f"The family '{self.kind}' does not implement `{verb}` (see docs/extending.md).")


FAMILIES: Registry[Family] = Registry("family", "secateur.families")


def family_named(kind: str, path: str | Path) -> Family:
    """The family named in a file.

    Raises:
        UserError: the family is not registered.
    """
    if kind not in FAMILIES:
        raise UserError(
            f"{path} holds a network of the unknown family {shown(kind)}. Set the environment variable {PLUGINS} to "
            "the file that registers it."
        )
    return FAMILIES[kind]


def family_of(subject: Checkpoint | nn.Module | Architecture) -> Family:
    """The family of a checkpoint, a network or an architecture; `module` for a network of the user.

    Raises:
        UserError: the family is not registered.
    """
    architecture = subject if isinstance(subject, Architecture) else architecture_of(subject)
    return FAMILIES["module" if architecture is None else architecture.kind]


def predictor_of(subject: Checkpoint | nn.Module, device: torch.device | None = None, precision: str = "fp32") -> Any:
    """The predictor of boxes of the family of a checkpoint or a network.

    Args:
        device: device to run on; None: the device of the network, and the CPU for a checkpoint.

    Raises:
        UserError: the family does not predict boxes, the precision is unknown, or the network cannot be built.
    """
    family = family_of(subject)
    if not family.knows("predictor"):
        raise UserError(
            f"Networks of the family '{family.kind}' do not predict boxes: the family does not implement `predictor` "
            "(see docs/extending.md)."
        )
    network = subject.build() if isinstance(subject, Checkpoint) else subject
    predictor: Any = family.predictor(network if device is None else network.to(device), precision)
    if isinstance(subject, Checkpoint):
        predictor.single_cls, predictor.narrowed = subject.single_cls, subject.narrowed
    return predictor
