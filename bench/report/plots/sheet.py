"""A page of panels at final size, one below the other, with a caption: where everything stands, in inches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.report import style
from bench.report.figures import AXIS, GAP, LINE, inches, wrapped

SMALL = style.SIZE - 1
AXIS_LEFT = GAP + 0.5  # inches of a vertical axis' name and numbers


def sheet(
    heights: Sequence[float],
    titles: Sequence[str],
    caption: str,
    *,
    left: float,
    right: float,
    top: float = 0.0,
    above: float = 0.0,
    between: float = AXIS,
    axis: float = AXIS,
) -> tuple[Figure, list[Axes]]:
    """Axes of these heights from the top of the page down, all from `left` to `width - right`; lengths in inches.

    top: what stands over the first panel and its title; above: over each panel, below its title; between, axis: below a
    panel, and below the last. A title (a pair) is shown where there are several.
    """
    width = style.PAGE
    lines = wrapped(caption.strip(), width - 2 * GAP)
    over = above + GAP + (LINE + GAP) * (len(titles) > 1)
    foot = axis + 2 * GAP + LINE * len(lines)
    height = foot + top + sum(over + h for h in heights) + between * (len(heights) - 1)
    figure, y, axes = Figure(figsize=(width, height)), height - top, []
    FigureCanvasAgg(figure)
    for title, h in zip(titles, heights, strict=True):
        bottom = y - over - h
        axes.append(figure.add_axes((left / width, bottom / height, (width - left - right) / width, h / height)))
        axes[-1].spines["bottom"].set_position(("outward", 3))
        if len(titles) > 1:
            figure.text(GAP / width, (y - GAP) / height, title.replace("->", " → "), weight="bold", va="top")
        y = bottom - between
    small: dict[str, Any] = {"size": SMALL, "color": style.GREY, "linespacing": 1.3, "gid": "caption"}
    figure.text(GAP / width, (foot - axis - GAP) / height, "\n".join(lines), va="top", **small)
    return figure, axes


def rows(ax: Axes, names: Sequence[str]) -> None:
    """An axes of rows from the top down, each with its name at its left; values get a grid."""
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_yticks(range(len(names)), list(names))
    ax.tick_params(axis="y", pad=72 * GAP)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="x")


def key(figure: Figure, entries: Sequence[tuple[dict[str, Any], str]], down: float) -> None:
    """Markers and what they mean, in one line, its middle `down` inches below the page's upper edge."""
    width, height = figure.get_size_inches()
    x, y = 2 * GAP, height - down
    for look, text in entries:
        figure.add_artist(Line2D([x / width], [y / height], linestyle="none", **look))
        x += GAP
        figure.text(x / width, y / height, text, size=SMALL, va="center_baseline")
        x += inches(text, SMALL) + 2.5 * GAP


def caption_of(figure: Figure) -> str:
    """The caption that stands below a figure, in one line."""
    named = [text for text in figure.texts if text.get_gid() == "caption"] or figure.texts[-1:]
    return " ".join(" ".join(text.get_text() for text in named).split())
