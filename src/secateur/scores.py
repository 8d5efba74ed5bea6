"""Evaluation results of any task: the main metric, named values, and rows for tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Scores:
    """The result of an evaluation. `Scores("top-1", {"top-1": 0.93, "top-5": 0.99})` is a complete one.

    Attributes:
        figure: name of the main metric, by which networks are selected and compared.
        values: numbers by name, in the order of tables.
        higher_is_better: whether larger values of `figure` and `coarse` are better; both are then non-negative.
        coarse: name of the metric for networks that were cut but not trained afterwards, for tasks whose `figure` is
            too insensitive there; "" uses `figure`.
        columns: results.csv column by name of the value, each in a group metrics/ or val/; other values use
            metrics/NAME.
        titles: short names for the epoch line, by name of the value.
        digits: decimal places.
        counts: what was evaluated, such as {"images": 128, "instances": 929}.
        rows: one plain dictionary per class, for tables and JSON: "class", "name", the counts and the values.
        curves: data for plots, or None.
        speed_ms: milliseconds per image by phase.
        detections: an `evaluation.record.DetectionRecord` with the detections of every image; None for tasks other than
            detection, or if it was not requested.
    """

    figure: str
    values: Mapping[str, float]
    higher_is_better: bool = True
    coarse: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    titles: Mapping[str, str] = field(default_factory=dict)
    digits: int = 3
    counts: Mapping[str, int] = field(default_factory=dict)
    rows: Sequence[Mapping[str, Any]] = ()
    curves: Any = None
    speed_ms: Mapping[str, float] = field(default_factory=dict)
    detections: Any = None

    def __post_init__(self) -> None:
        for name in self.judged_by:
            if name not in self.values:
                raise ValueError(f"'{name}' is not one of the values {', '.join(self.values)}")

    @property
    def judged_by(self) -> tuple[str, ...]:
        """The metrics that comparisons show: `coarse` if set, and `figure`."""
        return tuple(dict.fromkeys((self.coarse or self.figure, self.figure)))

    @property
    def value(self) -> float:
        """The value of the main metric."""
        return self.values[self.figure]

    @property
    def coarse_value(self) -> float:
        """The value of the metric for networks that were cut but not trained afterwards."""
        return self.values[self.judged_by[0]]

    @property
    def fitness(self) -> float:
        """The value that selects the best epoch: non-negative, higher is better."""
        return self.value if self.higher_is_better else 1 / (1 + self.value)

    def merit(self, name: str) -> float:
        """A value with its sign set so that larger is better."""
        return self.values[name] if self.higher_is_better else -self.values[name]

    def share_of(self, whole: Scores) -> float:
        """The share of a dense network's accuracy that this network keeps, by `coarse`; 1 means all of it.

        If lower is better, twice the value counts as half the accuracy. NaN if the dense network's value is zero or
        undefined.
        """
        own, full = self.coarse_value, whole.coarse_value
        if not self.higher_is_better:
            own, full = full, own
        if full <= 0:
            # A loss of zero is perfect; an accuracy of zero leaves nothing to keep.
            return float("nan") if self.higher_is_better else 1.0
        return own / full

    def to_dict(self) -> dict[str, float]:
        """The values by name."""
        return dict(self.values)

    def to_columns(self) -> dict[str, float]:
        """The values by their column in results.csv."""
        return {self.columns.get(name, f"metrics/{name}"): value for name, value in self.values.items()}

    def record(self) -> dict[str, Any]:
        """Plain JSON data for a run's record; `from_record` reads it."""
        return {
            "values": dict(self.values),
            "figure": self.figure,
            "coarse": self.coarse,
            "higher_is_better": self.higher_is_better,
            "digits": self.digits,
        }

    @staticmethod
    def from_record(data: Mapping[str, Any]) -> Scores:
        """The scores from a record. Records of version 0.2 hold only the values, see `judged_by_of`."""
        if "values" in data:
            return Scores(**data)
        names = judged_by_of(data)
        return Scores(names[-1], data, coarse=names[0])

    def line(self) -> str:
        """A short text with the metrics of `judged_by`."""
        return ", ".join(f"{name} {self.values[name]:.{self.digits}f}" for name in self.judged_by)

    def words(self) -> list[str]:
        """Every value as text, for the epoch line."""
        return [f"{self.titles.get(name, name)} {value:.{self.digits}f}" for name, value in self.values.items()]

    def table(self, per_class: bool = True) -> str:
        """A table with one row for all classes and one row per class."""
        names = [*self.counts, *self.values]
        widths = {name: max(11, len(name) + 1) for name in names}
        titles = {name: name.capitalize() if name in self.counts else name for name in names}
        lines = [f"{'Class':>22}" + "".join(f"{titles[name]:>{widths[name]}}" for name in names)]
        rows: list[Mapping[str, Any]] = [{"name": "all", **self.counts, **self.values}]
        rows += self.rows if per_class and len(self.rows) > 1 else []
        for row in rows:
            label = str(row["name"])
            cells = [f"{label if len(label) <= 22 else label[:21] + '…':>22}"]
            for name in names:
                text = str(row[name]) if name in self.counts else f"{row[name]:.3g}"
                cells.append(f"{text:>{widths[name]}}")
            lines.append("".join(cells))
        return "\n".join(lines)

    def speed_line(self) -> str:
        """Milliseconds per image of each phase; empty if nothing was timed."""
        if not self.speed_ms:
            return ""
        return "Speed: " + ", ".join(f"{ms:.1f}ms {phase}" for phase, ms in self.speed_ms.items()) + " per image"

    def details(self) -> str:
        """Additional lines below the table, such as those of a benchmark; may be empty."""
        return ""

    def summary(self) -> dict[str, Any]:
        """The entries for a summary.json."""
        summary = {"metrics": self.to_dict(), "per_class": list(self.rows), "speed_ms": dict(self.speed_ms)}
        return summary if self.detections is None else summary | {"ap_by_size": self.detections.ap_by_size}


def judged_by_of(values: Mapping[str, Any], judged_by: Sequence[str] | None = None) -> tuple[str, ...]:
    """Names of the metrics in recorded values by which networks are judged.

    Args:
        values: recorded values by name.
        judged_by: the recorded names. Version 0.2 did not record them; its last two values are used.
    """
    return tuple(judged_by or list(values)[-2:])
