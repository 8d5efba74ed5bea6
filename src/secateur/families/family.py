"""What a family of networks answers: everything that reads, prunes, trains, measures or exports a network asks here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from torch import Tensor, nn

from secateur.distillation.imitate import Imitate
from secateur.distillation.methods import METHODS
from secateur.distillation.pairing import check_pair, fed_channels
from secateur.distillation.settings import DistillSettings, HealSettings
from secateur.errors import UserError, shown
from secateur.families.reading import Split
from secateur.networks.architecture import Architecture
from secateur.networks.checkpoint import Checkpoint
from secateur.registry import Registry
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


class Family:
    """One kind of networks. A subclass answers the verbs that it knows; `knows` tells which these are.

    A verb that a family does not answer raises a `UserError` that names the family and the verb, and the checks of
    steps and commands ask `require` for what they need before any work begins.

    Attributes:
        kind: name in files and in `FAMILIES`.
        title: name in sentences.
        architecture: the plain data that builds a network of the family.
        hyp: frozen dataclass of the hyper-parameters that the family's loss and head read, with their defaults; it
            checks their ranges (`training.hyp.check_hyper_parameters`). They are keys of the same flat file.
        imitated: the method of `--distill` by which healing imitates answers.
        fallback: it reads the files that no other family recognises, for its sentences say best what they are.
    """

    kind: ClassVar[str]
    title: ClassVar[str]
    architecture: ClassVar[type[Architecture]]
    hyp: ClassVar[type[Any]] = NoHyp
    imitated: ClassVar[str] = "outputs"
    fallback: ClassVar[bool] = False

    def knows(self, verb: str) -> bool:
        """Whether the family answers the verb (the name of a method)."""
        return getattr(type(self), verb) is not getattr(Family, verb)

    def require(self, verb: str, done: str) -> None:
        """Refuses work for which the family lacks a verb.

        Args:
            verb: name of the method.
            done: what would be done with the network: "trained", "healed".

        Raises:
            UserError: the family does not answer it.
        """
        if not self.knows(verb):
            raise UserError(
                f"A network of the family '{self.kind}' cannot be {done}: the family has no `{verb}`; leave this step "
                "out, or give the family one (docs/extending.md)."
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

    def in_class_order(self, checkpoint: Checkpoint, tensors: Tensors, order: tuple[int, ...]) -> dict[str, Tensor]:
        """Tensors, or masks, of a checkpoint with the outputs of its classes in another order.

        Args:
            order: for every class its place up to now.
        """
        raise self.lacks("in_class_order")

    # Data

    def open_data(self, file: str) -> Any:
        """The data set that `--data` names: it has `file`, `names`, `nc`, `labelled`, `one_class` and `splits`.

        Raises:
            UserError: it is none.
        """
        raise self.lacks("open_data")

    def split(self, data: Any, name: str, *, objects: bool = True, otherwise: str = "") -> Split:
        """The checked images of a split of a data set.

        Args:
            objects: a split on which nothing is to be seen is an error.
            otherwise: what can be done instead, for that error.

        Raises:
            UserError: there is no such split, or it is empty or broken.
        """
        raise self.lacks("split")

    def prepare(self, images: Tensor) -> Tensor:
        """Images uint8 [B, C, H, W] -> what the network is called with, float32: by default 0..1."""
        return images.float().div_(255)

    # The task

    def loss(self, network: nn.Module, settings: TrainSettings) -> Term:
        """The loss that the network is trained for, as the first term of an objective."""
        raise self.lacks("loss")

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

    def evaluate(self, network: nn.Module, split: Split, settings: Any) -> Any:
        """The `Scores` of a network on a split."""
        raise self.lacks("evaluate")

    # What a student learns from a teacher

    def head(self, network: nn.Module) -> tuple[str, ...]:
        """Names of the layers (convolutions, linear) that make the answers: what feeds them is compared too."""
        return ()

    def check_teacher(self, student: Checkpoint, teacher: Checkpoint, name: str = "") -> None:
        """Refuses a teacher whose answers cannot be compared with the student's.

        Args:
            name: of the teacher, for the message.

        Raises:
            UserError: naming what differs.
        """
        check_pair(student, teacher, name)

    def check_distillation(self, settings: DistillSettings) -> None:
        """Looks up the names of the methods (`--distill`).

        Raises:
            UserError: one is unknown.
        """
        for name in settings.methods:
            if name not in METHODS:
                known = ", ".join(METHODS)
                raise UserError(f"Unknown distillation {shown(name)} of the family '{self.kind}'; choose of {known}.")

    def distillation(
        self,
        settings: DistillSettings,
        network: nn.Module,
        start: Checkpoint,
        teacher: Checkpoint,
        train: TrainSettings,
    ) -> Imitate:
        """A loss term, and the hook that it needs, with which a network imitates its teacher while it trains.

        Args:
            network: the very one that is trained, made from `start`.

        Raises:
            UserError: an unknown method, or a teacher that does not fit the student.
        """
        self.check_distillation(settings)
        self.check_teacher(start, teacher, settings.teacher)
        methods, whole = [METHODS[name](settings) for name in settings.methods], teacher.build()
        heads, channels = (self.head(network), self.head(whole)), tuple[Tensor, ...]()
        if any(method.features for method in methods):
            if not heads[0]:
                raise UserError(
                    f"The family '{self.kind}' names no head, so --distill features has nothing to compare."
                )
            channels = fed_channels(network, whole, heads, start.plan, teacher.plan)
        return Imitate(settings, network, whole, methods, heads=heads, channels=channels)

    def imitation(
        self, settings: HealSettings, network: nn.Module, start: Checkpoint, teacher: Checkpoint, train: TrainSettings
    ) -> Imitate:
        """How a network learns, without labels, to answer as its teacher does; its `compare` measures it on images.

        The answers by the method `imitated` (by default every output tensor, standardised by channel), and what feeds
        the head where the family names it.
        """
        known = settings.heal_features > 0 and self.features_fit(network, start, teacher)
        methods = f"{self.imitated}+features" if known else self.imitated
        chosen = DistillSettings(methods, distill_feature_weight=settings.heal_features)
        return self.distillation(chosen, network, start, teacher, train)

    def features_fit(self, network: nn.Module, start: Checkpoint, teacher: Checkpoint) -> bool:
        """Whether the channels that feed the heads of student and teacher can be told apart one by one."""
        whole = teacher.build()
        heads = self.head(network), self.head(whole)
        try:
            return bool(heads[0]) and bool(fed_channels(network, whole, heads, start.plan, teacher.plan))
        except UserError:
            return False

    def predictor(self, network: nn.Module, precision: str = "fp32") -> Any:
        """What answers images with boxes, see `evaluation.predictor.Predictor`."""
        raise self.lacks("predictor")

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
        """Rows of `secateur info --layers` (`families.summary.Row`).

        Args:
            flops: FLOPs by module name, where they were counted.
        """
        return ()

    def lacks(self, verb: str) -> UserError:
        """The error of a verb that the family does not answer."""
        return UserError(f"Networks of the family '{self.kind}' have no `{verb}`.")


FAMILIES: Registry[Family] = Registry("family", "secateur.families")


@runtime_checkable
class _Described(Protocol):
    """A checkpoint, or a network that says what it is built from."""

    @property
    def architecture(self) -> Architecture: ...


def family_of(subject: Checkpoint | nn.Module | Architecture) -> Family:
    """The family of a checkpoint, of a network, or of an architecture; `module` for a network of the user's own.

    Raises:
        UserError: the family is not known here.
    """
    if isinstance(subject, Architecture):
        return FAMILIES[subject.kind]
    if isinstance(subject, _Described) and isinstance(subject.architecture, Architecture):
        return FAMILIES[subject.architecture.kind]
    return FAMILIES["module"]
