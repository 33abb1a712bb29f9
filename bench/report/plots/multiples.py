"""Small multiples: of each pair a block of panels, one for each row that has a colour, with the others behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from bench.report import style
from bench.report.layout import AXIS, AXIS_LEFT, GAP, LINE, sheet, short, styled
from bench.report.plots.ranking import Palette

ACROSS = 3  # panels beside each other
WIDE = (style.PAGE - AXIS_LEFT - 3 * GAP - (ACROSS - 1) * 3 * GAP) / ACROSS
TITLE = LINE + 2 * GAP

Draw = Callable[[Axes, pd.DataFrame, str, str], str]
"""Draws the panel of a label in its colour, of the pair's data; returns the number that stands in its corner."""


def figure(
    parts: Mapping[str, pd.DataFrame], looks: Mapping[str, Palette], caption: str, draw: Draw, across: str, up: str,
    tall: float = 1.0,
) -> Figure:  # fmt: skip
    """looks: of `ranking.palettes`; across, up: the axes' names; tall: a panel's height over its width."""
    shown = {pair: shown_of(parts[pair], palette) for pair, palette in looks.items()}
    heights = [(tall * WIDE + TITLE) * -(-len(labels) // ACROSS) - TITLE for labels in shown.values()]
    over: dict[str, float] = {"left": AXIS_LEFT, "right": 3 * GAP, "above": LINE + GAP, "between": AXIS + GAP}
    with styled():
        drawn, blocks = sheet(heights, list(parts), caption, **over)
        for block, (pair, part) in zip(blocks, parts.items(), strict=True):
            block.set_axis_off()
            for i, (label, (colour, _)) in enumerate(shown[pair].items()):
                ax = drawn.add_axes(_place(block, tuple(drawn.get_size_inches()), i, tall * WIDE))
                _write(ax, label, colour, draw(ax, part, label, colour))
                lowest = i + ACROSS >= len(shown[pair])
                ax.tick_params(labelleft=i % ACROSS == 0, labelbottom=lowest)
                ax.set_ylabel(up if i % ACROSS == 0 else "")
                ax.set_xlabel(across if lowest else "")
    return drawn


def shown_of(part: pd.DataFrame, palette: Palette) -> Palette:
    """The rows that have a panel: all of few, else as many of those in colour as fill whole lines."""
    most = len(palette) if len(palette) == part["label"].nunique() else len(palette) // ACROSS * ACROSS
    return dict(list(palette.items())[:most])


def _place(block: Axes, page: tuple[float, ...], number: int, high: float) -> tuple[float, float, float, float]:
    """Of the panel of that number in the block, row by row; page, high: inches."""
    width, height = page
    box = block.get_position()
    down, along = divmod(number, ACROSS)
    x, y = box.x0 * width + along * (WIDE + 3 * GAP), box.y1 * height - down * (high + TITLE) - high
    return x / width, y / height, WIDE / width, high / height


def _write(ax: Axes, label: str, colour: str, number: str) -> None:
    over: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points"}
    ax.annotate(short(label), (0, 1), (0, 4), color=style.legible(colour), weight="bold", **over)
    corner = ax.annotate(number, (1, 0), (-3, 4), ha="right", **over)
    corner.set_path_effects([withStroke(linewidth=2, foreground="white")])
