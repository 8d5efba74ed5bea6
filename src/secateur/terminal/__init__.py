"""Terminal output: progress bars, log lines, and suppression of third-party output."""

from secateur.terminal.lines import OnTerminal, is_first_process, quiet_unless_first
from secateur.terminal.progress import Advance, bar, counted, counting, duration, stage, timing_bar
from secateur.terminal.silence import silenced, stderr_silenced, without_telemetry

__all__ = [
    "Advance",
    "OnTerminal",
    "bar",
    "counted",
    "counting",
    "duration",
    "is_first_process",
    "quiet_unless_first",
    "silenced",
    "stage",
    "stderr_silenced",
    "timing_bar",
    "without_telemetry",
]
