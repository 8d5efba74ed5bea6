"""What an evaluation says, for any task: the figure that counts, named values, and rows for tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Scores:
    """The result of an evaluation. `Scores("top-1", {"top-1": 0.93, "top-5": 0.99})` is a whole one.

    Attributes:
        figure: name of the value that counts: networks are chosen and compared by it.
        values: numbers by name, in the order of tables.
        higher_is_better: whether more of `figure`, and of `coarse`, is better; these two are then not negative.
        coarse: name of the value that judges networks which were cut and not trained since, where `figure` says too
            little about them; "" takes `figure`.
        columns: columns of results.csv by name of the value, each of a group metrics/ or val/; others are called
            metrics/NAME.
        titles: names in the line of an epoch by name of the value, where they are shorter there.
        digits: of a value behind the point.
        counts: what was evaluated, such as {"images": 128, "instances": 929}.
        rows: one plain dictionary a class, for tables and JSON: "class", "name", the counts and the values.
        curves: what can be plotted; None without.
        speed_ms: milliseconds an image by phase.
        detections: what was found on every image, an `evaluation.record.DetectionRecord`; None for other tasks than
            detection, and where it was not to be kept.
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
                raise ValueError(f"'{name}' is none of the values {', '.join(self.values)}")

    @property
    def judged_by(self) -> tuple[str, ...]:
        """The names that comparisons show: `coarse` where there is one, and `figure`."""
        return tuple(dict.fromkeys((self.coarse or self.figure, self.figure)))

    @property
    def value(self) -> float:
        """The figure that counts."""
        return self.values[self.figure]

    @property
    def coarse_value(self) -> float:
        """The figure that judges networks which were cut and not trained since."""
        return self.values[self.judged_by[0]]

    @property
    def fitness(self) -> float:
        """What the best epoch is chosen by: not negative, higher is better."""
        return self.value if self.higher_is_better else 1 / (1 + self.value)

    def merit(self, name: str) -> float:
        """A value with the sign by which more is better."""
        return self.values[name] if self.higher_is_better else -self.values[name]

    def share_of(self, whole: Scores) -> float:
        """Which share of the accuracy of a whole network this one keeps, by `coarse`: 1 is all of it.

        Where lower is better, twice the value is half of the accuracy. NaN where the whole network has none.
        """
        own, full = self.coarse_value, whole.coarse_value
        if not self.higher_is_better:
            own, full = full, own
        if full <= 0:
            # Of a loss, nought is perfect; of an accuracy, it is nothing that could be kept.
            return float("nan") if self.higher_is_better else 1.0
        return own / full

    def to_dict(self) -> dict[str, float]:
        """The values by name."""
        return dict(self.values)

    def to_columns(self) -> dict[str, float]:
        """The values by their columns of results.csv."""
        return {self.columns.get(name, f"metrics/{name}"): value for name, value in self.values.items()}

    def record(self) -> dict[str, Any]:
        """What a run remembers, plain JSON data; `from_record` reads it."""
        return {
            "values": dict(self.values),
            "figure": self.figure,
            "coarse": self.coarse,
            "higher_is_better": self.higher_is_better,
            "digits": self.digits,
        }

    @staticmethod
    def from_record(data: Mapping[str, Any]) -> Scores:
        """The scores in a record; a run of version 0.2 remembers the values alone, see `judged_by_of`."""
        if "values" in data:
            return Scores(**data)
        names = judged_by_of(data)
        return Scores(names[-1], data, coarse=names[0])

    def line(self) -> str:
        """The figures that judge, in a few words."""
        return ", ".join(f"{name} {self.values[name]:.{self.digits}f}" for name in self.judged_by)

    def words(self) -> list[str]:
        """Every value, for the line of an epoch."""
        return [f"{self.titles.get(name, name)} {value:.{self.digits}f}" for name, value in self.values.items()]

    def table(self, per_class: bool = True) -> str:
        """A row for all classes, then one a class."""
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
        """Milliseconds an image of each phase; empty where nothing was timed."""
        if not self.speed_ms:
            return ""
        return "Speed: " + ", ".join(f"{ms:.1f}ms {phase}" for phase, ms in self.speed_ms.items()) + " per image"

    def details(self) -> str:
        """Further lines below the table, such as those of a benchmark's own; empty where there are none."""
        return ""

    def summary(self) -> dict[str, Any]:
        """The part of a summary.json."""
        summary = {"metrics": self.to_dict(), "per_class": list(self.rows), "speed_ms": dict(self.speed_ms)}
        return summary if self.detections is None else summary | {"ap_by_size": self.detections.ap_by_size}


def judged_by_of(values: Mapping[str, Any], judged_by: Sequence[str] | None = None) -> tuple[str, ...]:
    """Names of the figures that judge, of recorded values.

    Args:
        judged_by: what was recorded beside them; version 0.2 did not, but put these two last.
    """
    return tuple(judged_by or list(values)[-2:])
