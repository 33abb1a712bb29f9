"""The page that every figure stands on: panels at final size, one below the other, each length in inches.

A figure is saved without trimming, so text is as large on paper as `style` says. Its caption is the figure's label: no
part of the picture, but the text below it in a page, and what a file of it says of itself.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.textpath import text_to_path
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from PIL import Image

from bench.report import style

LINE, AXIS = 0.14, 0.42  # a line of small text, an axis' numbers and name
GAP = 0.08  # between names, axes, numbers and the edges
HEIGHT = 2.3  # of a panel without rows
AXIS_LEFT = GAP + 0.5  # a vertical axis' name and numbers
SMALL = style.SIZE - 1
DPI = 300
Draw = Callable[[Axes, str, "pd.DataFrame"], object]
"""Draws one pair's data on its axes."""
FAR = 3.0  # quartile ranges: values further from the quartiles than this are beyond the axis


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
    """Axes of these heights from the top of the page down, all from `left` to `width - right`.

    top: what stands over the first panel and its title; above: over each panel, below its title; between, axis: below a
    panel, and below the last. A title (a pair) is shown where there are several.
    """
    width, over = style.PAGE, above + GAP + (LINE + GAP) * (len(titles) > 1)
    height = axis + GAP + top + sum(over + h for h in heights) + between * (len(heights) - 1)
    figure, y, axes = Figure(figsize=(width, height), label=" ".join(caption.split())), height - top, []
    FigureCanvasAgg(figure)
    for title, h in zip(titles, heights, strict=True):
        bottom = y - over - h
        axes.append(figure.add_axes((left / width, bottom / height, (width - left - right) / width, h / height)))
        axes[-1].spines["bottom"].set_position(("outward", 3))
        if len(titles) > 1:
            figure.text(GAP / width, (y - GAP) / height, title.replace("->", " → "), weight="bold", va="top")
        y = bottom - between
    return figure, axes


def stacked(
    parts: Mapping[str, pd.DataFrame], heights: Sequence[float], caption: str, draw: Draw, across: str, *,
    keys: Sequence[Sequence[tuple[dict[str, Any], str]]] = (), **room: float,
) -> Figure:  # fmt: skip
    """A figure with a panel for each pair, drawn by `draw`; across: what the last axis is called.

    keys: lines of markers and what they mean, on top of the page; room: of `sheet`.
    """
    with styled():
        figure, axes = sheet(heights, list(parts), caption, top=LINE * len(keys) + GAP * bool(keys), **room)
        for ax, (pair, part) in zip(axes, parts.items(), strict=True):
            draw(ax, pair, part)
        for i, line in enumerate(keys):
            key(figure, line, GAP + LINE * (i + 0.5))
        axes[-1].set_xlabel(across)
    return figure


def rows(ax: Axes, names: Sequence[str], shift: float = 0.0) -> None:
    """An axes of rows from the top down, each with its name at its left, `shift` rows lower; values get a grid."""
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_yticks([y + shift for y in range(len(names))], list(names))
    ax.tick_params(axis="y", pad=72 * GAP)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="x")


def at_right(ax: Axes, y: float, text: str, **look: Any) -> None:
    """The text of a row, right of the axes; y: the row, or any value of the axis."""
    place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    ax.annotate(text, (1, y), (72 * GAP, 0), va="center_baseline", **place, **look)


def head_right(ax: Axes, text: str) -> None:
    """What stands at the right of rows, small above them."""
    place: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points"}
    ax.annotate(text, (1, 1), (72 * GAP, 2), size=SMALL, color=style.SOFT, va="bottom", **place)


def name_room(names: Iterable[object]) -> float:
    """Inches left of an axes of rows with these names."""
    return 2 * GAP + max(inches(short(str(name))) for name in names)


def key(figure: Figure, entries: Sequence[tuple[dict[str, Any], str]], down: float) -> None:
    """Markers and what they mean, in one line, its middle `down` inches below the page's upper edge."""
    width, height = figure.get_size_inches()
    x, y = 2 * GAP, height - down
    for look, text in entries:
        figure.add_artist(Line2D([x / width], [y / height], linestyle="none", **look))
        x += GAP
        figure.text(x / width, y / height, text, size=SMALL, va="center_baseline")
        x += inches(text, SMALL) + 2.5 * GAP


def bulk(values: Iterable[float], far: float = FAR) -> tuple[float, float]:
    """Where an axis may end: a value that is far out (by default Tukey's outer fences) would squeeze all others."""
    known = np.array(list(values), float)
    first, third = np.quantile(known, [0.25, 0.75])
    reach = far * max(third - first, 1.0)
    inside = known[(known >= first - reach) & (known <= third + reach)]
    return float(inside.min()), float(inside.max())


def fence(values: Iterable[float]) -> float:
    """The lower end of `bulk`."""
    return bulk(values)[0]


def limits(values: Iterable[float], floor: float) -> tuple[float, float]:
    """The axis from `floor` to the highest value, with a margin; of one value, a point around it."""
    high = max(values)
    pad = 0.05 * (high - floor) or 0.5
    return floor - pad, high + pad


def logarithmic(ax: Axes, low: float, high: float, subs: Sequence[float], unit: str = "") -> None:
    """A logarithmic axis of x from low to high with numbers at these multiples of powers of ten."""
    ax.set_xscale("log")
    ax.set_xlim(low, high)
    ax.xaxis.set_major_locator(LogLocator(subs=subs))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}{unit}"))
    ax.xaxis.set_minor_locator(NullLocator())


def short(name: str) -> str:
    """A row's name as a figure shows it: settings beyond what fits are cut."""
    return name if len(name) <= 24 else f"{name[:23]}…"


@cache
def inches(text: str, size: float = style.SIZE) -> float:
    """How wide a text is on paper."""
    width, _, _ = text_to_path.get_text_width_height_descent(text, FontProperties(size=size), ismath=False)
    return float(width) / 72


@contextmanager
def styled() -> Iterator[None]:
    with matplotlib.rc_context(style.RC):
        yield


def caption_of(png: Path | io.BytesIO) -> str:
    """What a file of `rendered` says of itself; empty for what others have drawn."""
    with Image.open(png) as picture:
        return str(picture.info.get("Description", ""))


def rendered(figure: Figure, suffix: str = "png") -> bytes:
    """The figure as a file: a PNG at 300 dpi, a PDF with embedded fonts, or an SVG with text as text.

    The same figure gives the same bytes. Outlines of names would make them paths in an SVG: there they are groups that
    are called halo, to be outlined by a style sheet.
    """
    outlined = [text for text in figure.findobj(Text) if text.get_path_effects()] if suffix == "svg" else []
    about: dict[str, dict[str, Any]] = {"png": {"Software": None, "Description": figure.get_label()}}
    about["pdf"] = {"CreationDate": None, "Producer": None, "Creator": None, "Subject": figure.get_label()}
    about["svg"] = {"Date": None, "Creator": None, "Format": None, "Type": None}
    effects = [text.get_path_effects() for text in outlined]
    for text in outlined:
        text.set(gid="halo", path_effects=[])
    with styled():
        buffer = io.BytesIO()
        figure.savefig(buffer, format=suffix, metadata=about[suffix])
    for text, effect in zip(outlined, effects, strict=True):
        text.set(gid=None, path_effects=effect)
    return buffer.getvalue()
