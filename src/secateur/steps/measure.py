"""The step that times the dense and the present detector side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from secateur.ranges import ROUNDS, THREADS
from secateur.steps.step import Outcome, Step, step

if TYPE_CHECKING:
    from secateur.families.context import Context
    from secateur.networks.checkpoint import Checkpoint


@step("measure", purpose="measures latency")
@dataclass(frozen=True)
class Measure(Step):
    """Milliseconds at batch 1 on the CPU, in turns with the dense detector, in ONNX Runtime where it is installed.

    A control of the run is timed with them.
    """

    rounds: Annotated[int, ROUNDS] = 30
    """Measurements of each detector."""
    threads: Annotated[int, THREADS] = 0
    """CPU threads (0: those that this process may use)."""

    def run(self, checkpoint: Checkpoint, context: Context) -> Outcome:
        """No row: the times are noted beside the rows of the detectors that were measured."""
        from secateur.deploy.speed.latency import measure_latency
        from secateur.families.loading import load_checkpoint

        timed = {"dense": context.dense or checkpoint, "final": checkpoint}
        timed |= {name: load_checkpoint(file) for name, file in context.compared.items()}
        measured = measure_latency(timed, context.image_size, rounds=self.rounds, threads=self.threads)
        return Outcome(
            notes={
                "latency": {name: value.median_ms for name, value in measured.latencies.items()},
                "latency_samples": {name: [round(ms, 4) for ms in times] for name, times in measured.samples.items()},
            }
        )
