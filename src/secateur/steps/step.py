"""The base class of steps (settings, a check before the run starts, work on a checkpoint) and the registry of steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from secateur.registry import Registry

if TYPE_CHECKING:
    from secateur.families.context import Context
    from secateur.networks.checkpoint import Checkpoint


EPOCH_SECONDS = "epoch_seconds"
"""Note of a training: seconds per epoch."""


@dataclass(frozen=True)
class Override:
    """An option of `secateur run` that overrides a setting of recipe steps.

    Attributes:
        option: name, with `_` instead of `-`.
        field: the setting that it overrides.
        help: help text.
        kind: type of the value.
        word: placeholder of the value in the help; "" uses the name of the type.
        zero_skips: whether the value 0 skips the step.
        forces: whether any other value forces a step that could be skipped.
        replaces: recipe settings that are dropped if this option is given.
        purpose: what a step that accepts this option does; "" uses the purpose of the step.
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
    """A checkpoint produced by a step. It is saved, evaluated, and becomes a table row.

    Attributes:
        checkpoint: the result.
        name: file name without the extension .safetensors.
        title: title of the row; "" uses that of the step.
        plots: whether the curves of its evaluation are plotted too.
        compared: whether it is only a network for comparison and not the run's detector.
    """

    checkpoint: Checkpoint
    name: str
    title: str = ""
    plots: bool = False
    compared: bool = False


@dataclass(frozen=True)
class Outcome:
    """The result of a step.

    Attributes:
        made: checkpoints in order. The next step starts from the last one that is not only for comparison; without one,
            it starts from this step's input.
        notes: entries for the run's summary: plain JSON data by name.
    """

    made: tuple[Made, ...] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)


class Step:
    """Base class of steps. A step is a frozen dataclass whose fields, including those of its groups, are its settings.

    Attributes:
        verb: name in recipes.
        purpose: what the step does, for the error about an option that no step of a recipe accepts.
        overrides: options of `secateur run` that it may accept.
        together: under torchrun, whether all processes run the step as one training. Other steps run in the first
            process.
        makes_dense: whether it produces the dense reference detector if it is the first step of a run.
    """

    verb: ClassVar[str]
    purpose: ClassVar[str]
    overrides: ClassVar[tuple[Override, ...]] = ()
    together: ClassVar[bool] = False
    makes_dense: ClassVar[bool] = False

    @classmethod
    def expand(cls, settings: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        """Expands a recipe entry into steps: verbs with their settings. Most entries are one step."""
        return [(cls.verb, dict(settings))]

    @property
    def title(self) -> str:
        """Title of its table row; "" for a step without one."""
        return ""

    def takes(self, override: Override) -> bool:
        """Whether an option applies to this step, given the settings of its recipe."""
        return True

    def needed(self, first: bool, trained: bool) -> bool:
        """Whether the step runs at all.

        Args:
            first: whether it is the first step of the recipe.
            trained: whether the weights have the classes of the data set.
        """
        return True

    def describe(self) -> str:
        """A short description, printed before a run starts."""
        return self.verb

    def passes(self, images: int) -> int:
        """Epochs for which the step trains the run's detector; 0 if it does not."""
        return 0

    def budget_words(self) -> str:
        """The step's budget as text; "" if it has none."""
        return ""

    def files(self) -> tuple[str, ...]:
        """Files named by the settings whose content affects the result."""
        return ()

    def check(self, checkpoint: Checkpoint, context: Context) -> None:
        """Checks everything that could otherwise fail after hours.

        Args:
            checkpoint: input of the complete recipe.
            context: data, device and folder of the run.

        Raises:
            UserError: something is wrong.
        """

    def run(self, checkpoint: Checkpoint, context: Context) -> Outcome:
        """Runs the step. After an interruption it runs again, so long steps resume from files in the context's
        folder.
        """
        raise NotImplementedError


STEPS: Registry[type[Step]] = Registry("step", "secateur.steps")


def step(verb: str, *, purpose: str) -> Any:
    """Registers a step class under its verb."""

    def register(kind: type[Step]) -> type[Step]:
        kind.verb, kind.purpose = verb, purpose
        STEPS.register(verb)(kind)
        return kind

    return register
