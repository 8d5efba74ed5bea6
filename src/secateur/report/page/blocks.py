"""Building blocks of sections as plain data: text, tables, figures with summaries, images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

Trace = dict[str, Any]
"""A trace of Plotly. Colours are names such as "@ink" or "@c0", which the page resolves by its theme."""


@dataclass(frozen=True)
class Cell:
    """A table cell: text, a note, and a style ("good", "bad", "faint", "strong", "")."""

    text: str
    note: str = ""
    look: str = ""


@dataclass(frozen=True)
class DataTable:
    """A table whose first column names the rows.

    Attributes:
        caption: caption.
        titles: headings of the columns, the first for the row names.
        rows: cells, as many per row as there are titles; a row with one cell is a heading of the rows below it.
        words: indices of the columns with text, which is left-aligned.
        folded: whether only the caption is shown until it is opened.
    """

    kind: ClassVar[str] = "table"
    caption: str
    titles: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    words: frozenset[int] = frozenset({0})
    folded: bool = False

    def cells(self) -> list[list[Cell]]:
        """The rows, with every cell as a `Cell`."""
        return [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in self.rows]


@dataclass(frozen=True)
class ChartView:
    """One view of a figure: traces and layout for Plotly, and its own summary if it has one."""

    traces: Sequence[Trace]
    layout: Mapping[str, Any] = field(default_factory=dict)
    words: str = ""


@dataclass(frozen=True)
class Choice:
    """A choice in a figure: a label, and (value, text) of the options; the first is the default."""

    label: str
    options: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Chart:
    """A Plotly figure.

    Attributes:
        title: caption.
        summary: one or two sentences with the main figures, as a text alternative.
        views: by the values of the choices, joined by "|"; "" without choices.
        choices: available choices.
        height: px.
        table: the same data as a folded table.
    """

    kind: ClassVar[str] = "figure"
    title: str
    summary: str
    views: Mapping[str, ChartView]
    choices: Sequence[Choice] = ()
    height: int = 400
    table: DataTable | None = None

    def first(self) -> str:
        """The key of the default view: that of the first options, otherwise the first view."""
        key = "|".join(choice.options[0][0] for choice in self.choices)
        return key if key in self.views else next(iter(self.views))


@dataclass(frozen=True)
class Paragraph:
    """Plain text."""

    kind: ClassVar[str] = "text"
    text: str
    look: str = ""


@dataclass(frozen=True)
class Lines:
    """A list of sentences, or lines of a terminal if `code` is set."""

    kind: ClassVar[str] = "lines"
    lines: Sequence[str]
    code: bool = False
    label: str = ""


@dataclass(frozen=True)
class Pairs:
    """Names with their values; in several columns if they are short."""

    kind: ClassVar[str] = "pairs"
    title: str
    pairs: Sequence[tuple[str, str]]
    folded: bool = False
    short: bool = False


@dataclass(frozen=True)
class KeyFigure:
    """One key figure: name, value before, value after, and the change as text."""

    name: str
    after: str
    before: str = ""
    change: str = ""
    look: str = ""


@dataclass(frozen=True)
class Tiles:
    """Key figures."""

    kind: ClassVar[str] = "tiles"
    label: str
    tiles: Sequence[KeyFigure]


@dataclass(frozen=True)
class Heading:
    """A heading with the name of the run, if the page has several runs."""

    kind: ClassVar[str] = "heading"
    text: str


Block = Any
"""One of the blocks above, or a section's own block whose `kind` names its template."""


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        key: identifier for links.
        title: heading.
        lead: purpose in one sentence; may be empty.
        blocks: content.
        absent: why the section is not shown; "" if it is.
    """

    key: str
    title: str
    lead: str = ""
    blocks: Sequence[Block] = ()
    absent: str = ""
