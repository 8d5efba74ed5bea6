"""Number formats of the page: numbers, shares and changes as text."""

from __future__ import annotations

from collections.abc import Iterable

MISSING = "–"


def score(value: float | None) -> str:
    """An accuracy: .812 is 0.812."""
    return MISSING if value is None else f"{value:.3f}"


def signed(value: float | None, digits: int = 3) -> str:
    """A change with its sign."""
    if value is None:
        return ""
    text = f"{value:+.{digits}f}".replace("-", "−")
    return text if float(f"{value:.{digits}f}") else f"±{abs(value):.{digits}f}"


def count(value: float | None) -> str:
    """A number of parameters: 1.77 M."""
    if value is None:
        return MISSING
    # Non-breaking spaces between a number and its unit.
    return (
        f"{value / 1e6:.3g}\u00a0M" if value >= 1e6 else f"{value / 1e3:.3g}\u00a0k" if value >= 1e3 else f"{value:.0f}"
    )


def plain(value: float | None, digits: int = 3) -> str:
    """A number with the given significant digits; numbers of thousandths and below in powers of ten."""
    if value is None:
        return MISSING
    if value and abs(value) < 1e-3:
        return f"{value:.{digits - 1}e}".replace("e-0", "e-").replace("-", "−")
    whole = len(str(int(abs(value)))) if abs(value) >= 1 else 0
    text = f"{value:.{max(digits - whole, 0)}f}" if abs(value) >= 0.1 else f"{value:.{digits}g}"
    return text.replace("-", "−")


def share(value: float | None, digits: int = 0) -> str:
    """A share in per cent."""
    return MISSING if value is None else f"{100 * value:.{digits}f} %"


def ratio(after: float | None, before: float | None) -> float | None:
    """after / before; None if one is missing or the divisor is zero."""
    return after / before if after is not None and before else None


def joined(words: Iterable[str], last: str = "and") -> str:
    """a, b and c."""
    listed = list(words)
    return listed[0] if len(listed) == 1 else f"{', '.join(listed[:-1])} {last} {listed[-1]}" if listed else ""


def counted(number: int, word: str) -> str:
    """1 image, 2 images."""
    plural = f"{word[:-1]}ies" if word.endswith("y") else f"{word}es" if word.endswith(("s", "x")) else f"{word}s"
    return f"{number:,} {word if number == 1 else plural}"


def markup(text: str) -> str:
    """A name for Plotly, with the tags that Plotly would interpret escaped."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
