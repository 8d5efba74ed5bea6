"""The step that heals a cut detector: it learns from the whole one, without labels."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from secateur.distillation.settings import HealDefaults, HealSettings
from secateur.steps.step import Made, Outcome, Override, Step, step

if TYPE_CHECKING:
    from secateur.families.context import Context
    from secateur.networks.checkpoint import Checkpoint

USUAL_STEPS = 600
"""What a healing of unknown length counts as where its length has to be known before."""


@step("heal", purpose="heals")
@dataclass(frozen=True)
class Heal(Step):
    """Train for minutes without labels: the cut detector learns the outputs of the whole one."""

    heal: HealSettings = field(default_factory=HealSettings)
    teacher: str = ""
    """Checkpoint to learn from (default: the dense detector of the run)."""

    together: ClassVar[bool] = True
    overrides: ClassVar[tuple[Override, ...]] = (
        Override(
            "heal_steps",
            "heal_steps",
            "Steps of healing: auto (while the held-out loss falls), or so many at most; 0 leaves it out.",
            int | Literal["auto"],
            zero_skips=True,
            word="INT/auto",
        ),
        Override("heal_minutes", "heal_minutes", "Minutes that --heal-steps auto takes at most; 0: no limit.", float),
        Override("teacher", "teacher", "Teacher, instead of the dense detector of the run."),
    )

    @property
    def title(self) -> str:
        """Its row."""
        return "healed"

    def passes(self, images: int) -> int:
        """What its steps are in passes through the images."""
        batch = self.heal.heal_batch or HealDefaults.batch
        return -(-self.heal.most_steps(USUAL_STEPS) * batch // max(images, 1))

    def describe(self) -> str:
        """The verb and its steps."""
        if self.heal.heal_steps != "auto":
            return f"heal (up to {self.heal.heal_steps} steps)"
        return f"heal (up to {self.heal.heal_minutes:g} min)" if self.heal.heal_minutes else "heal"

    def files(self) -> tuple[str, ...]:
        """The teacher."""
        return (self.teacher,)

    def check(self, checkpoint: Checkpoint, context: Context) -> None:
        """Images, enough of them, and a teacher that fits."""
        from secateur.checkpoints.heal import check_healing

        check_healing(checkpoint, self._named_teacher(checkpoint), context, self.teacher)

    def run(self, checkpoint: Checkpoint, context: Context) -> Outcome:
        """Heals; goes on where an interrupted healing of the same folder was."""
        from secateur.checkpoints.heal import heal
        from secateur.checkpoints.pace import notes_of
        from secateur.families.loading import load_checkpoint

        folder = context.place(self.verb)
        teacher = self._named_teacher(checkpoint) or context.dense or checkpoint
        result = heal(checkpoint, teacher, context, self.heal, folder)
        # The network of a plain module is in memory and in no file.
        healed = dataclasses.replace(load_checkpoint(result.best), architecture=checkpoint.architecture)
        return Outcome((Made(healed, "healed"),), {"heal": notes_of(folder)})

    def _named_teacher(self, checkpoint: Checkpoint) -> Checkpoint | None:
        """The teacher that the settings name, with the classes of the checkpoint; None where they name none."""
        from secateur.families.loading import load_checkpoint
        from secateur.families.only_classes import as_taught

        return as_taught(load_checkpoint(self.teacher), checkpoint) if self.teacher else None
