"""Distillation and healing verbs of a family, with defaults for any network."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from secateur.distillation.imitate import Imitate
from secateur.distillation.methods import METHODS, Method
from secateur.distillation.pairing import check_pair, fed_channels
from secateur.distillation.settings import DistillSettings, HealDefaults, HealSettings
from secateur.errors import UserError, shown
from secateur.evaluation.settings import ValSettings
from secateur.families.reading import Split
from secateur.networks.checkpoint import Checkpoint
from secateur.training.settings import TrainSettings


class Teaching:
    """The part of `Family` that compares two networks.

    Attributes:
        kind: see `Family`.
        imitated: the method of `--distill` that healing uses for outputs.
        healing: default methods of healing.
    """

    kind: ClassVar[str]
    imitated: ClassVar[str] = "outputs"
    healing: ClassVar[HealDefaults] = HealDefaults()

    def head(self, network: nn.Module) -> tuple[str, ...]:
        """Names of the layers (convolutions, linear) that compute the outputs; their inputs are compared too."""
        return ()

    def check_teacher(self, student: Checkpoint, teacher: Checkpoint, name: str = "") -> None:
        """Checks that the outputs of the teacher can be compared with those of the student.

        Args:
            name: name of the teacher, for the message.

        Raises:
            UserError: they cannot; the message names the difference.
        """
        check_pair(student, teacher, name)

    def agreement(
        self, dense: nn.Module, network: nn.Module, split: Split, settings: ValSettings, *, progress: bool = True
    ) -> Any:
        """Agreement of a network with the dense network, as `Scores`, with the outputs of the dense network as labels.
        Images without labels are sufficient; 1 means equal outputs.

        Args:
            dense: on the device of `network`.

        Raises:
            UserError: the dense network finds nothing on the images, or the family has no such measure.
        """
        raise UserError(f"The family '{self.kind}' does not implement `agreement` (see docs/extending.md).")

    def distillations(self) -> tuple[str, ...]:
        """Names of the methods of `--distill` that the family supports."""
        return tuple(METHODS)

    def method(self, name: str, settings: DistillSettings, network: nn.Module) -> Method:
        """One of the `distillations`, for a network."""
        return METHODS[name](settings)

    def check_distillation(self, settings: DistillSettings) -> None:
        """Checks the names of the methods (`--distill`).

        Raises:
            UserError: a name is unknown.
        """
        for name in settings.methods:
            if name not in self.distillations():
                known = ", ".join(self.distillations())
                raise UserError(f"Unknown distillation {shown(name)}. Choose one of: {known}.")

    def distillation(
        self,
        settings: DistillSettings,
        network: nn.Module,
        start: Checkpoint,
        teacher: Checkpoint,
        train: TrainSettings,
    ) -> Imitate:
        """A loss term, with its hook, by which a network imitates its teacher during training.

        Args:
            network: the network that is trained, built from `start`.

        Raises:
            UserError: a method is unknown, or the teacher does not match the student.
        """
        self.check_distillation(settings)
        self.check_teacher(start, teacher, settings.teacher)
        methods, whole = [self.method(name, settings, network) for name in settings.methods], teacher.build()
        heads, channels = (self.head(network), self.head(whole)), tuple[Tensor, ...]()
        if any(method.features for method in methods):
            if not heads[0]:
                raise UserError(f"The family '{self.kind}' defines no head, so --distill features cannot be used.")
            channels = fed_channels(network, whole, heads, start.plan, teacher.plan)
        return Imitate(settings, network, whole, methods, heads=heads, channels=channels)

    def imitation(
        self, settings: HealSettings, network: nn.Module, start: Checkpoint, teacher: Checkpoint, train: TrainSettings
    ) -> Imitate:
        """A loss term by which a network learns, without labels, to reproduce the outputs of its teacher; its `compare`
        measures the difference on images.

        It compares outputs by the method `imitated` (by default every output tensor, standardised per channel), and the
        inputs of the head if the family defines it.
        """
        known = settings.heal_features > 0 and self.features_fit(network, start, teacher)
        methods = f"{self.imitated}+features" if known else self.imitated
        chosen = DistillSettings(methods, distill_feature_weight=settings.heal_features)
        return self.distillation(chosen, network, start, teacher, train)

    def features_fit(self, network: nn.Module, start: Checkpoint, teacher: Checkpoint) -> bool:
        """Whether each input channel of the head of the student corresponds to a channel of the teacher."""
        whole = teacher.build()
        heads = self.head(network), self.head(whole)
        try:
            return bool(heads[0]) and bool(fed_channels(network, whole, heads, start.plan, teacher.plan))
        except UserError:
            return False
