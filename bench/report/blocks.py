"""What a page shows, as plain data: `markdown` and `html` write the same blocks, each in its own way.

A text is plain but for what stands in backticks: names of rows may hold stars, underscores and brackets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, repeat
from typing import NamedTuple

Value = float | str
"""What a cell is sorted by: a number, NaN where there is none, or its text."""

MANY = 12
"""Rows beyond which a table is what a reader needs first, and a figure's rows are narrow."""

TIED = "≈"
"""The mark of what is not distinguishable from the best; HTML shades it."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """A part of a page."""

    medium: str = ""  # "markdown" or "html": the one kind of page that shows it

    @property
    def kind(self) -> str:
        """'text', 'items', …: the template's macro for it."""
        return type(self).__name__.lower()


@dataclass(frozen=True)
class Text(Block):
    """A paragraph."""

    text: str
    style: str = ""  # "strong"; or "caption" or "soft", which Markdown does not know
    links: bool = False  # [words](address) is a link: in texts that the project writes itself


@dataclass(frozen=True)
class Items(Block):
    """A list of texts."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Terms(Block):
    """Names, each with what it means ("meanings") or how it is set ("settings")."""

    terms: Mapping[str, str]
    style: str = "settings"


@dataclass(frozen=True)
class Figure(Block):
    """A figure of figures/, and the text below it."""

    name: str
    title: str
    caption: str = ""


class Cell(NamedTuple):
    """A cell of a table."""

    text: str
    strong: bool
    tied: bool
    value: Value
    link: str


@dataclass(frozen=True)
class Column:
    """A column of a table, row by row; numbers stand on the right.

    What has ended before the cells has no more to say: an empty tuple, or all but a last row.
    """

    heading: str
    cells: Iterable[object]  # texts, or what is a text as it stands
    values: Iterable[Value] = ()
    strong: Iterable[bool] = ()
    tied: Iterable[bool] = ()  # with the strong one
    links: Iterable[str] = ()  # addresses; "" for none
    is_text: bool = False

    def __iter__(self) -> Iterator[Cell]:
        texts = [str(text) for text in self.cells]
        more = (
            chain(given, repeat(nothing))
            for given, nothing in ((self.strong, False), (self.tied, False), (self.values, ""), (self.links, ""))
        )
        return map(Cell, texts, *more)


@dataclass(frozen=True)
class Grid(Block):
    """A table of text. The first column names the row; it can be sorted where every column has values."""

    columns: Mapping[str, Column]  # by key, in order
    title: str = ""  # above it
    captions: Sequence[str] = ()  # what bold and marks mean
    ids: Sequence[str] = ()  # of rows, where links lead to; "" for none
    style: str = ""
    folded: str = ""  # the words that unfold it

    @property
    def rows(self) -> list[tuple[Cell, ...]]:
        return list(zip(*self.columns.values(), strict=True))

    def chosen(self, keys: Sequence[str]) -> Grid:
        """Those of these columns that there are, in this order."""
        return replace(self, columns={key: self.columns[key] for key in keys if key in self.columns})

    @property
    def sortable(self) -> bool:
        return all([*column.values] for column in self.columns.values())


@dataclass(frozen=True)
class Section(Block):
    """Blocks with a heading, at a place of the page that has a name."""

    title: str  # "": without a heading
    blocks: Sequence[Block]
    name: str = ""
    link: str = ""  # its words in the table of contents; "": not there
    level: int = 2
    style: str = ""  # "figures": side by side where there is room


@dataclass(frozen=True)
class Page:
    """A whole page: the answer, then what is first, then the other sections."""

    title: str
    about: str
    answers: Sequence[str]
    main: Figure | None
    sections: Sequence[Section]
    facts: Sequence[str] = ()  # where the numbers come from, in few words

    @property
    def first(self) -> Sequence[Block]:
        """The main figure and the first section; of many rows the table comes first."""
        tables = [block for block in self.sections[0].blocks if isinstance(block, Grid)]
        many = any(len(table.rows) > MANY for table in tables)
        return [block for block in ((self.sections[0], self.main) if many else (self.main, self.sections[0])) if block]

    @property
    def figures(self) -> list[Figure]:
        """The main one, and those of the sections."""
        blocks = [block for section in self.sections for block in section.blocks]
        return [block for block in (self.main, *blocks) if isinstance(block, Figure)]
