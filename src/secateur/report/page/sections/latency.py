"""The distribution of the latency per image, by network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from secateur.report.page import wording as say
from secateur.report.page.blocks import Chart, ChartView, Section, Trace
from secateur.report.page.model import RunData, number


def latency(runs: Sequence[RunData]) -> Section:
    """All measurements of every timed network."""
    found = [(f"{run.label}: {name}" if len(runs) > 1 else name, samples)
             for run in runs for name, samples in samples_of(run).items()]  # fmt: skip
    if not found:
        return Section(
            "latency", "Latency", absent=("No run recorded single measurements. secateur run records them at its end.")
        )
    traces: list[Trace] = [
        {"type": "box", "name": name, "x": samples, "boxpoints": "all", "jitter": 0.5, "pointpos": 0,
         "marker": {"color": f"@c{place % 8}", "size": 4, "opacity": 0.55}, "line": {"color": f"@c{place % 8}"},
         "hoverinfo": "x"}
        for place, (name, samples) in enumerate(found)
    ]  # fmt: skip
    layout = {
        "xaxis": {"title": "Milliseconds per image", "rangemode": "tozero"}, "showlegend": False,
        "yaxis": {"autorange": "reversed", "showgrid": False},
    }  # fmt: skip
    sentences = []
    for name, samples in found:
        low, middle, high = (float(np.quantile(samples, q)) for q in (0.1, 0.5, 0.9))
        sentences.append(f"{name}: median {say.plain(middle)} ms, {say.plain(low)} to {say.plain(high)} ms in 80 % of "
                         f"{len(samples)} measurements.")  # fmt: skip
    lead = "The networks are timed in interleaved rounds, so that background load affects all equally."
    height = max(240, 120 + 70 * len(found))
    chart = Chart("Distribution of the latency", " ".join(sentences), {"": ChartView(traces, layout)}, height=height)
    return Section("latency", "Latency", lead, [chart])


def samples_of(run: RunData) -> dict[str, list[float]]:
    """Milliseconds of every measurement by the name of the network."""
    found = run.notes.get("latency_samples")
    if not isinstance(found, dict):
        return {}
    known = {str(name): [v for value in values if (v := number(value)) is not None] for name, values in found.items()}
    return {name: values for name, values in known.items() if values}


def scattered_times(run: RunData) -> list[str]:
    """The networks whose times vary by more than a factor of two within 80 % of the measurements."""
    quantiles = {name: np.quantile(samples, (0.1, 0.9)) for name, samples in samples_of(run).items()}
    return [name for name, (low, high) in quantiles.items() if high > 2 * low]
