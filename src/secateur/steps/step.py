"""What a step is: settings, a check before anything starts, and work on a checkpoint; and the registry of all steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from secateur.registry import Registry

if TYPE_CHECKING:
    from secateur.families.context import Context
    from secateur.networks.checkpoint import Checkpoint


EPOCH_SECONDS = "epoch_seconds"
"""Note of a training: how long one of its epochs took."""


@dataclass(frozen=True)
class Override:
    """An option of `secateur run` that replaces a setting of the steps of a recipe.

    Attributes:
        option: its name, `-` written as `_`.
        field: the setting that it replaces.
        help: what it does.
        kind: type of the value.
        word: what stands for the value in the help; "" is the name of its type.
        zero_skips: the value 0 leaves the step out.
        forces: any other value takes the step in even where it could be left out.
        replaces: settings of the recipe that go when this option is given.
        purpose: what a step that takes it does; "" is the purpose of the step.
    """

    option: str
    field: str
    help: str
    kind: Any = str
    zero_skips: bool = False
    forces: bool = False
    replaces: tuple[str, ...] = ()
    purpose: str = ""
    word: str = ""


@dataclass(frozen=True)
class Made:
    """A checkpoint that a step made: it is saved, measured, and a row of the table.

    Attributes:
        checkpoint: what was made.
        name: of its file, NAME.safetensors.
        title: of its row; "" is that of the step.
        plots: also draw the curves of its evaluation.
        compared: it is no stage of the run's detector but another one to compare that with.
    """

    checkpoint: Checkpoint
    name: str
    title: str = ""
    plots: bool = False
    compared: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a step did.

    Attributes:
        made: in order; the next step starts from the last one that is not just compared, or where there is none from
            what this step started from.
        notes: what the summary of the run says of it: plain JSON data by name.
    """

    made: tuple[Made, ...] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)


class Step:
    """Base of all steps. A step is a frozen dataclass whose fields, and those of its groups, are its settings.

    Attributes:
        verb: its name in recipes.
        purpose: what it does, for the sentence that refuses an option which no step of a recipe takes.
        overrides: options of `secateur run` that it may take.
        together: under torchrun all processes do the step, as one training; other steps are done by the first process.
        makes_dense: as the first step of a run it makes the detector that everything else is compared with.
    """

    verb: ClassVar[str]
    purpose: ClassVar[str]
    overrides: ClassVar[tuple[Override, ...]] = ()
    together: ClassVar[bool] = False
    makes_dense: ClassVar[bool] = False

    @classmethod
    def expand(cls, settings: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        """The steps that an entry of a recipe stands for: verbs with their settings; most stand for themselves."""
        return [(cls.verb, dict(settings))]

    @property
    def title(self) -> str:
        """Name of its row in the table; "" for a step that makes none."""
        return ""

    def takes(self, override: Override) -> bool:
        """Whether this step, with the settings of its recipe, is one that the option speaks of."""
        return True

    def needed(self, first: bool, trained: bool) -> bool:
        """Whether the step is done at all.

        Args:
            first: it stands first in the recipe.
            trained: the weights know the classes of the data set.
        """
        return True

    def describe(self) -> str:
        """The step in a few words, for what a run says before it starts."""
        return self.verb

    def passes(self, images: int) -> int:
        """Epochs that the step trains the detector of the run; 0 for one that does not."""
        return 0

    def budget_words(self) -> str:
        """The budget that the step brings, in words; "" for a step without one."""
        return ""

    def files(self) -> tuple[str, ...]:
        """Files that the settings name and whose content the result depends on."""
        return ()

    def check(self, checkpoint: Checkpoint, context: Context) -> None:
        """Looks for whatever would stop the step after hours.

        Args:
            checkpoint: what the whole recipe starts from.

        Raises:
            UserError: what is wrong, in one sentence.
        """

    def run(self, checkpoint: Checkpoint, context: Context) -> Outcome:
        """Does the work. After a kill it is done again, so a long step continues from files in the context's folder."""
        raise NotImplementedError


STEPS: Registry[type[Step]] = Registry("step", "secateur.steps")


def step(verb: str, *, purpose: str) -> Any:
    """Registers a class of steps under its verb."""

    def register(kind: type[Step]) -> type[Step]:
        kind.verb, kind.purpose = verb, purpose
        STEPS.register(verb)(kind)
        return kind

    return register
