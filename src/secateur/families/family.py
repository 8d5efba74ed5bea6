"""What a family of networks answers: everything that reads, prunes, trains, measures or exports a network asks here."""

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
    """Targets drawn from what a network believes."""

    def __call__(self, images: Tensor) -> Tensor:
        """Targets of prepared images [B, C, H, W]."""

    def require_some(self) -> None:
        """Refuses images on which nothing was seen.

        Raises:
            UserError: nothing was.
        """


@dataclass(frozen=True)
class NoHyp:
    """No hyper-parameters beyond those of every training."""


class Family(Teaching, Trainable):
    """One kind of networks. A subclass answers the verbs that it knows; `knows` tells which these are.

    A verb that a family does not answer raises a `UserError` that names the family and the verb, and the checks of
    steps and commands ask `require` for what they need before any work begins.

    Attributes:
        kind: name in files and in `FAMILIES`.
        title: name in sentences.
        architecture: the plain data that builds a network of the family.
        hyp: frozen dataclass of the hyper-parameters that the family's loss and head read, with their defaults; it
            checks their ranges (`training.hyp.check_hyper_parameters`). They are keys of the same flat file.
        opens: files of other programs that `recognises` reads, in words: "YOLOX detectors"; "" for none.
        hands_out: ending of the file that `write` makes and that a pruning leaves next to its checkpoint, such as
            ".pt"; "" for none.
        fallback: it reads the files that no other family recognises, for its sentences say best what they are.
    """

    kind: ClassVar[str]
    title: ClassVar[str]
    architecture: ClassVar[type[Architecture]]
    hyp: ClassVar[type[Any]] = NoHyp
    opens: ClassVar[str] = ""
    hands_out: ClassVar[str] = ""
    fallback: ClassVar[bool] = False

    def knows(self, verb: str) -> bool:
        """Whether the family answers the verb (the name of a method)."""
        return getattr(type(self), verb) is not getattr(Family, verb)

    def require(self, verb: str, done: str, instead: str = "leave this step out") -> None:
        """Refuses work for which the family lacks a verb.

        Args:
            verb: name of the method.
            done: what would be done with the network: "trained", "healed".
            instead: what the user can do.

        Raises:
            UserError: the family does not answer it.
        """
        if not self.knows(verb):
            raise UserError(
                f"A network of the family '{self.kind}' cannot be {done}: the family has no `{verb}`; {instead}, or "
                "give the family one (docs/extending.md)."
            )

    # Files

    def reads(self, file: Path) -> bool:
        """Whether a file is one of the family's own format; a look at its beginning, nothing is executed."""
        return False

    def read(self, file: Path, cfg: str | Path = "") -> Checkpoint:
        """The checkpoint in a file of the family's own format.

        Args:
            cfg: description of the network, for files that hold tensors alone.

        Raises:
            UserError: it is damaged, or of something else.
        """
        raise self.lacks("read")

    def fetch(self, file: Path) -> bool:
        """Downloads a published checkpoint of this name to this place; False where none is published under it.

        Raises:
            UserError: it is published, but cannot be fetched.
        """
        return False

    def flaw(self, checkpoint: Checkpoint) -> str:
        """What in the metadata of a checkpoint contradicts itself, such as "broken strides"; "" where all fits."""
        return ""

    # Starting points

    def describes(self, cfg: str) -> bool:
        """Whether `--cfg` names a network of this family."""
        return False

    def fresh(self, cfg: str, names: Mapping[int, str], options: Mapping[str, Any]) -> Checkpoint:
        """An untrained network of these classes.

        Args:
            cfg: what it is built from.
            options: hyper-parameters by name, of which a family may read some.

        Raises:
            UserError: nothing can be built from it.
        """
        raise self.lacks("fresh")

    def configured(self, checkpoint: Checkpoint, cfg: str, names: Mapping[int, str]) -> Checkpoint:
        """A checkpoint with what `--cfg` says beyond its blocks.

        Raises:
            UserError: it describes another network.
        """
        raise self.lacks("configured")

    def pick_classes(self, checkpoint: Checkpoint, classes: tuple[int, ...]) -> Checkpoint:
        """The checkpoint with the outputs of only these classes, in this order; its answers for them stay the same.

        Args:
            classes: ids, each once.

        Raises:
            UserError: what it answers for a class depends on the others.
        """
        raise self.lacks("pick_classes")

    # Data

    def open_data(self, file: str) -> Any:
        """The data set that `--data` names, a `families.reading.DataSet`.

        Raises:
            UserError: it is none.
        """
        raise self.lacks("open_data")

    def split(self, data: Any, name: str, *, objects: bool = True, otherwise: str = "", tell: bool = False) -> Split:
        """The checked images of a split of a data set.

        Args:
            data: what `open_data` gave; or images without labels, a `DataConfig` that `unlabelled_images`
                of `data.config` made.
            objects: a labelled split on which nothing is to be seen is an error.
            otherwise: what can be done instead, for that error.
            tell: print on stderr what was found.

        Raises:
            UserError: there is no such split, or it is empty or broken.
        """
        raise self.lacks("split")

    def split_for(self, subject: Checkpoint | nn.Module, data: Any, name: str, **how: Any) -> Split:
        """The images of a split as this network reads them; `how` is as in `split`.

        Raises:
            UserError: also where objects are asked for and the labels are not those of the network's task.
        """
        return self.split(data, name, **how)

    def prepare(self, images: Tensor) -> Tensor:
        """Images uint8 [B, C, H, W] -> what the network is called with, float32: by default 0..1; floats stay."""
        return images if images.is_floating_point() else images.float().div_(255)

    # The task

    def loss(self, network: nn.Module, settings: TrainSettings) -> Term:
        """The loss that the network is trained for, as the first term of an objective."""
        raise self.lacks("loss")

    def targets_of(self, targets: Tensor, image: int) -> Tensor:
        """The targets of one image of a batch, as those of a batch of one: by default its entry along dimension 0."""
        return targets[image : image + 1]

    def check_targets(self, network: nn.Module, targets: Tensor) -> None:
        """Refuses targets of a batch, still on the CPU, that the loss cannot read.

        Raises:
            UserError: such as a class that the network does not have.
        """

    def begin_training(self, network: nn.Module, split: Split | None, settings: TrainSettings) -> list[str]:
        """What the network needs before its first step, in place; lines for the log.

        Args:
            split: the training images, where the training has some of a data set.
        """
        return []

    def own_labels(self, whole: nn.Module, seed: int) -> OwnLabels:
        """What the whole network believes to see on images without labels, as targets drawn from its belief."""
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
            settings: image size, batch size, workers, and what the task has beyond these.
            precision: "fp32", "bf16" or "fp16".
            folder: for files that the settings ask for.
            progress: show a bar on standard error.

        Raises:
            UserError: there are no images, or their labels are of classes that the network lacks.
        """
        raise self.lacks("evaluate")

    def predictor(self, network: nn.Module, precision: str = "fp32") -> Predictor:
        """What answers images with boxes: a copy of the network as it is now, on its device.

        Args:
            precision: "fp32", "bf16" or "fp16".

        Raises:
            UserError: unknown precision.
        """
        raise self.lacks("predictor")

    # Exported files

    def outputs(self, network: nn.Module, form: Form) -> Outputs:
        """What an exported file of a network gives; by default the network's own outputs.

        Args:
            network: on the CPU, fp32, in evaluation mode; it is left as it is.

        Raises:
            UserError: the network has no outputs of this form.
        """
        return own_outputs(network, form)

    def decoder(self, opened: Opened) -> Decoder | None:
        """How the outputs of a file of the family's become answers; None takes them as they are.

        Raises:
            ValueError: they are not what the file says.
        """
        return None

    def recognises(self, answer: Answer) -> Decoder | str:
        """How a file of another program is read, by what it answers to black images.

        Where the family does not read it: what it looks like that only the family knows, in words that follow "it maps
        these shapes to those, "; "" for nothing.
        """
        return ""

    def write(self, network: nn.Module, file: Path, image_size: int) -> str:
        """Writes a file of the family's own format, which programs other than Secateur read.

        Args:
            network: on the CPU, fp32, in evaluation mode.
            image_size: px of the images that it is for.

        Returns:
            What the user has to know of the file; "" for nothing.

        Raises:
            UserError: the format has no words for the network.
        """
        raise self.lacks("write")

    # The control

    def check_narrow(self, dense: Checkpoint) -> None:
        """Refuses a network whose widths cannot be scaled.

        Raises:
            UserError: saying why.
        """
        raise self.lacks("narrow")

    def narrowing(self, dense: Checkpoint, final: Checkpoint, image_size: int) -> dict[str, Any]:
        """How the widths of the dense network are scaled to the FLOPs of the final one, as plain JSON data.

        Its "note" is what the title of a row adds, "" where the FLOPs are as good as equal.
        """
        raise self.lacks("narrow")

    def narrow(self, dense: Checkpoint, start: Checkpoint, narrowing: Mapping[str, Any], seed: int) -> Checkpoint:
        """The narrow network before its training (`--control`).

        Args:
            start: what the run started from; its tensors are taken where they fit.
        """
        raise self.lacks("narrow")

    # Descriptions

    def rows(self, network: nn.Module, flops: Mapping[str, int] | None) -> tuple[Any, ...]:
        """Rows of `secateur info --layers` (`families.summary.BlockRow`).

        Args:
            flops: FLOPs by module name, where they were counted.
        """
        return ()

    def lacks(self, verb: str) -> UserError:
        """The error of a verb that the family does not answer."""
        return UserError(f"The family '{self.kind}' of networks has no `{verb}`; give it one (docs/extending.md).")


FAMILIES: Registry[Family] = Registry("family", "secateur.families")


def family_named(kind: str, path: str | Path) -> Family:
    """The family that a file names.

    Raises:
        UserError: it is not known here.
    """
    if kind not in FAMILIES:
        raise UserError(
            f"{path} holds a network of the family {shown(kind)}, which is not known here; name the file that "
            f"registers it in the environment variable {PLUGINS}."
        )
    return FAMILIES[kind]


def family_of(subject: Checkpoint | nn.Module | Architecture) -> Family:
    """The family of a checkpoint, of a network, or of an architecture; `module` for a network of the user's own.

    Raises:
        UserError: the family is not known here.
    """
    architecture = subject if isinstance(subject, Architecture) else architecture_of(subject)
    return FAMILIES["module" if architecture is None else architecture.kind]


def predictor_of(subject: Checkpoint | nn.Module, device: torch.device | None = None, precision: str = "fp32") -> Any:
    """What answers images with boxes for a checkpoint or a network, as its family does.

    Args:
        device: where it runs; None leaves a network where it is, and takes the CPU for a checkpoint.

    Raises:
        UserError: the family does not answer with boxes, unknown precision, or the network cannot be built.
    """
    family = family_of(subject)
    if not family.knows("predictor"):
        raise UserError(
            f"Networks of the family '{family.kind}' do not answer with boxes: the family has no `predictor` "
            "(docs/extending.md)."
        )
    network = subject.build() if isinstance(subject, Checkpoint) else subject
    predictor: Any = family.predictor(network if device is None else network.to(device), precision)
    if isinstance(subject, Checkpoint):
        predictor.single_cls, predictor.narrowed = subject.single_cls, subject.narrowed
    return predictor
