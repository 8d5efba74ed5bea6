"""The step that writes the detector for other runtimes, each file checked against it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from secateur.deploy.settings import ExportSettings
from secateur.steps.step import Step, step

if TYPE_CHECKING:
    from secateur.compression.context import Context
    from secateur.detector.checkpoint import Checkpoint


@step("export", purpose="exports")
@dataclass(frozen=True)
class Export(Step):
    """Write a file for another runtime and compare its outputs with the detector's."""

    export: ExportSettings = field(default_factory=ExportSettings)

    def describe(self) -> str:
        """The format."""
        return f"export ({self.export.format})"

    def check(self, checkpoint: Checkpoint, context: Context) -> None:
        """The format by name, and whether what writes it is installed."""
        from secateur.deploy.exporters import check_export

        for settings in self.export.each():
            check_export(settings)

    def run(self, checkpoint: Checkpoint, context: Context) -> Checkpoint:
        """No row: the results are noted in the summary."""
        from secateur.deploy.exporting import exported

        stem = context.place("") / f"final{context.mark}"

        def work() -> dict[str, object]:
            files = []
            for settings in self.export.each():
                written = exported(checkpoint, stem, context.image_size, settings)
                for note in written.notes:
                    print(note)
                files.append({"format": settings.format, **written.to_dict()})
            return {**files[0], **({"files": files} if len(files) > 1 else {})}

        context.memory.step("export" + context.mark, work)
        return checkpoint
