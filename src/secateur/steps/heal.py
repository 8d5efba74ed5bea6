"""The step that heals a cut detector: label-free training to reproduce the dense detector's outputs."""

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
"""Assumed length of a healing whose length must be known in advance."""


@step("heal", purpose="heals")
@dataclass(frozen=True)
class Heal(Step):
    """Train for minutes, without labels, to reproduce the dense detector's outputs."""

    heal: HealSettings = field(default_factory=HealSettings)
    teacher: str = ""
    """Checkpoint of the teacher (default: the run's dense detector)."""

    together: ClassVar[bool] = True
    overrides: ClassVar[tuple[Override, ...]] = (
        Override(
            "heal_steps",
            "heal_steps",
            "Healing steps: auto (until the held-out loss stops falling), or a maximum number (0 skips healing).",
            int | Literal["auto"],
            zero_skips=True,
            word="INT/auto",
        ),
        Override("heal_minutes", "heal_minutes", "Time limit of --heal-steps auto, in minutes (0: no limit).", float),
        Override("teacher", "teacher", "Teacher for healing (default: the run's dense detector)."),
    )

    @property
    def title(self) -> str:
        """Title of its table row."""
        return "healed"

    def passes(self, images: int) -> int:
        """Its length in passes over the images."""
        batch = self.heal.heal_batch or HealDefaults.batch
        return -(-self.heal.most_steps(USUAL_STEPS) * batch // max(images, 1))

    def describe(self) -> str:
        """The verb and the number of steps."""
        if self.heal.heal_steps != "auto":
            return f"heal (up to {self.heal.heal_steps} steps)"
        return f"heal (up to {self.heal.heal_minutes:g} min)" if self.heal.heal_minutes else "heal"

    def files(self) -> tuple[str, ...]:
        """The teacher file, if any."""
        return (self.teacher,)

    def check(self, checkpoint: Checkpoint, context: Context) -> None:
        """Checks the images, their number, and that the teacher matches."""
        from secateur.checkpoints.heal import check_healing

        check_healing(checkpoint, self._named_teacher(checkpoint), context, self.teacher)

    def run(self, checkpoint: Checkpoint, context: Context) -> Outcome:
        """Heals the detector, or resumes an interrupted healing of the same folder."""
        from secateur.checkpoints.heal import heal
        from secateur.checkpoints.pace import notes_of
        from secateur.families.loading import load_checkpoint

        folder = context.place(self.verb)
        teacher = self._named_teacher(checkpoint) or context.dense or checkpoint
        result = heal(checkpoint, teacher, context, self.heal, folder)
        # A plain module exists only in memory, not in a file.
        healed = dataclasses.replace(load_checkpoint(result.best), architecture=checkpoint.architecture)
        return Outcome((Made(healed, "healed"),), {"heal": notes_of(folder)})

    def _named_teacher(self, checkpoint: Checkpoint) -> Checkpoint | None:
        """The teacher named by the settings, with the classes of the checkpoint; None if none is named."""
        from secateur.families.loading import load_checkpoint
        from secateur.families.only_classes import as_taught

        return as_taught(load_checkpoint(self.teacher), checkpoint) if self.teacher else None
