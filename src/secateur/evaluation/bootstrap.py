"""Bootstrap confidence intervals: two detectors are compared on the same resamples of the images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from secateur.errors import UserError
from secateur.evaluation.average_precision import ranked
from secateur.evaluation.matching import Floats, Ints
from secateur.evaluation.record import DetectionRecord

FIGURES = ("mAP50", "mAP50-95")
RESAMPLES = 1000
INTERVAL = (2.5, 97.5)  # percentiles
Done = Callable[[int], None]


@dataclass(frozen=True)
class Difference:
    """The difference between a detector and a reference in one metric.

    Attributes:
        reference: value of the reference on all images.
        value: value of the detector on all images.
        low, high: 95 % interval of the difference (value - reference) over resamples of the images.
        above: share of resamples in which the detector is better.
        resamples: number of resamples.
    """

    reference: float
    value: float
    low: float
    high: float
    above: float
    resamples: int

    @property
    def change(self) -> float:
        """The difference on all images."""
        return self.value - self.reference

    @property
    def is_noise(self) -> bool:
        """Whether the interval contains zero, so that the difference is not significant."""
        return self.low <= 0 <= self.high

    def verdict(self) -> str:
        """The result as text."""
        if self.is_noise:
            return "within noise"
        way, ends = ("higher", (self.low, self.high)) if self.low > 0 else ("lower", (-self.high, -self.low))
        return f"{way} by {abs(self.change):.3f} ({ends[0]:.3f} to {ends[1]:.3f})"

    def line(self) -> str:
        """The difference as text, with its interval unless it is significant."""
        if not self.is_noise:
            return self.verdict()
        return f"{self.change:+.3f} ({self.low:+.3f} to {self.high:+.3f}), within noise"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**asdict(self), "change": self.change, "verdict": self.verdict()}


def differences(
    reference: DetectionRecord,
    others: Mapping[str, DetectionRecord],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    done: Done = lambda steps: None,
) -> dict[str, dict[str, Difference]]:
    """The differences to the reference, by name of the other detector and by metric.

    A resample draws as many images as the data set has, with replacement. All detectors are evaluated on the same
    resamples.

    Args:
        reference: record of the reference.
        others: records of the other detectors by name.
        resamples: number of resamples, at least 1.
        seed: random seed.
        done: called with 1 after every detector and class.

    Raises:
        UserError: the records have other images, objects or classes, or `resamples` is not positive.
    """
    if resamples < 1:
        raise UserError(f"--resamples is {resamples}; it must be at least 1.")
    for name, other in others.items():
        check_alike("the reference", reference, name, other)
    images = len(reference)
    # The first row weights every image once.
    drawn = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=resamples)
    weights = np.concatenate((np.ones((1, images), np.int64), drawn))
    first = _figures(reference, weights, done)
    result = {}
    for name, other in others.items():
        own = _figures(other, weights, done)
        result[name] = {figure: _difference(first[figure], own[figure]) for figure in FIGURES}
    return result


def check_alike(first: str, reference: DetectionRecord, second: str, other: DetectionRecord) -> None:
    """Checks that two records can be compared image by image.

    Args:
        first, second: their names for the error message.
        reference, other: the records.

    Raises:
        UserError: they have other images, objects or classes.
    """
    if reference.names != other.names:
        raise UserError(
            f"Cannot compare {first} with the classes {_few(reference)} and {second} with {_few(other)}. Give "
            "networks with the same classes in the same order."
        )
    if reference.signature != other.signature:
        raise UserError(
            f"{first} was evaluated on {_data(reference)} and {second} on {_data(other)}, with different "
            "images or labels. Evaluate both on one data set."
        )


def _few(record: DetectionRecord) -> str:
    names = list(record.names.values())
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _data(record: DetectionRecord) -> str:
    return f"{record.data or 'a data set'} ({record.split or 'val'}, {len(record):,} images)"


def _figures(record: DetectionRecord, weights: Ints, done: Done) -> dict[str, Floats]:
    """Both metrics for each row of weights int64 [b, images]: the mean over the classes with objects there."""
    total, counted = np.zeros((len(weights), 10)), np.zeros((len(weights), 1))
    for of_class in ranked(record.truths, record.detections, len(record)).values():
        ap = of_class.average_precision(weights)
        total += np.nan_to_num(ap)
        counted += ~np.isnan(ap[:, :1])
        done(1)
    ap = total / np.maximum(counted, 1)
    return {"mAP50": ap[:, 0], "mAP50-95": ap.mean(axis=1)}


def _difference(reference: Floats, value: Floats) -> Difference:
    """From float64 arrays [1 + resamples]: the metric on all images, followed by the metric on each resample."""
    changes = value[1:] - reference[1:]
    low, high = np.percentile(changes, INTERVAL)
    above = float((changes > 0).mean())
    return Difference(float(reference[0]), float(value[0]), float(low), float(high), above, len(changes))
