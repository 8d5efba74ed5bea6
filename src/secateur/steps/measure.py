"""The step that measures the latency of the dense and the current detector."""

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
    """Milliseconds at batch 1 on the CPU, interleaved with the dense detector, in ONNX Runtime if installed.

    The control of the run, if any, is measured in the same rounds.
    """

    rounds: Annotated[int, ROUNDS] = 30
    """Measurements per detector."""
    threads: Annotated[int, THREADS] = 0
    """CPU threads (0: all CPUs granted to this process)."""

    def run(self, checkpoint: Checkpoint, context: Context) -> Outcome:
        """Returns no row; the times are added to the rows of the measured detectors."""
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
