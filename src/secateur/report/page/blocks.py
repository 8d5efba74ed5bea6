"""What sections of the page are made of: text, tables, figures with their summaries, images; plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

Trace = dict[str, Any]
"""A trace of Plotly's. Colours are names of the page, such as "@ink" or "@c0", which follow its theme."""


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its text, a smaller note, and a word for its look ("good", "bad", "faint", "strong", "")."""

    text: str
    note: str = ""
    look: str = ""


@dataclass(frozen=True)
class DataTable:
    """A table whose first column names the rows.

    Attributes:
        caption: what it shows.
        titles: of the columns, the first that of the names.
        rows: cells, as many a row as there are titles; a row of one cell heads the rows below it.
        words: numbers of the columns, from 0, that hold words, which are aligned to the left.
        folded: the page shows the caption alone until it is opened.
    """

    kind: ClassVar[str] = "table"
    caption: str
    titles: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    words: frozenset[int] = frozenset({0})
    folded: bool = False

    def cells(self) -> list[list[Cell]]:
        """The rows, every cell a `Cell`."""
        return [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in self.rows]


@dataclass(frozen=True)
class ChartView:
    """One view of a figure: its traces and its layout, as Plotly reads them, and the summary where it has its own."""

    traces: Sequence[Trace]
    layout: Mapping[str, Any] = field(default_factory=dict)
    words: str = ""


@dataclass(frozen=True)
class Choice:
    """What a reader chooses of a figure: a label, and (value, words) of the options, the first is shown first."""

    label: str
    options: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Chart:
    """A figure that Plotly draws.

    Attributes:
        title: its caption.
        summary: what it shows, in a sentence or two with figures: the text of the figure for those who do not see it.
        views: by the values of the choices, joined by "|"; "" where there is no choice.
        choices: what can be chosen.
        height: px.
        table: the same as a table, folded.
    """

    kind: ClassVar[str] = "figure"
    title: str
    summary: str
    views: Mapping[str, ChartView]
    choices: Sequence[Choice] = ()
    height: int = 400
    table: DataTable | None = None

    def first(self) -> str:
        """The key of the view that is shown first: that of the first options, or the first that there is."""
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
    """A list of sentences, or lines of a terminal where it is `code`."""

    kind: ClassVar[str] = "lines"
    lines: Sequence[str]
    code: bool = False
    label: str = ""


@dataclass(frozen=True)
class Pairs:
    """Names with their values; several columns of them where they are short."""

    kind: ClassVar[str] = "pairs"
    title: str
    pairs: Sequence[tuple[str, str]]
    folded: bool = False
    short: bool = False


@dataclass(frozen=True)
class KeyFigure:
    """One figure of the headline: what it is, before, after, and the change in words."""

    name: str
    after: str
    before: str = ""
    change: str = ""
    look: str = ""


@dataclass(frozen=True)
class Tiles:
    """Figures of the headline."""

    kind: ClassVar[str] = "tiles"
    label: str
    tiles: Sequence[KeyFigure]


@dataclass(frozen=True)
class Heading:
    """Names the run that the blocks below it are of, where a page has several."""

    kind: ClassVar[str] = "heading"
    text: str


Block = Any
"""One of the above, or of a section's own kind with a `kind` that names its template."""


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        key: its name in links.
        title: its heading.
        lead: what it is for, in a sentence; "" says nothing.
        blocks: its content.
        absent: why it is not shown, in a sentence; "" where it is.
    """

    key: str
    title: str
    lead: str = ""
    blocks: Sequence[Block] = ()
    absent: str = ""
