"""What a student of a family learns from a teacher: the verbs of distillation and healing, answered for any network."""

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
        imitated: the method of `--distill` by which healing imitates answers.
        healing: what it heals with where the user says nothing.
    """

    kind: ClassVar[str]
    imitated: ClassVar[str] = "outputs"
    healing: ClassVar[HealDefaults] = HealDefaults()

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

    def agreement(
        self, dense: nn.Module, network: nn.Module, split: Split, settings: ValSettings, *, progress: bool = True
    ) -> Any:
        """How near a network's answers are to those of the dense one, as `Scores`: labels are what the dense network
        answers, so images without labels are enough, and 1 means the same answers.

        Args:
            dense: on the device of `network`.

        Raises:
            UserError: the dense network sees nothing on the images, or the family has no such measure.
        """
        raise UserError(f"The family '{self.kind}' of networks has no `agreement`; give it one (docs/extending.md).")

    def distillations(self) -> tuple[str, ...]:
        """Names of the methods of `--distill` that networks of the family know."""
        return tuple(METHODS)

    def method(self, name: str, settings: DistillSettings, network: nn.Module) -> Method:
        """One of `distillations` for a network."""
        return METHODS[name](settings)

    def check_distillation(self, settings: DistillSettings) -> None:
        """Looks up the names of the methods (`--distill`).

        Raises:
            UserError: one is unknown.
        """
        for name in settings.methods:
            if name not in self.distillations():
                known = ", ".join(self.distillations())
                raise UserError(f"Unknown distillation {shown(name)}; choose one of {known}.")

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
        methods, whole = [self.method(name, settings, network) for name in settings.methods], teacher.build()
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
