"""Figures: what is drawn is a frame (`difference_data`, `level_data`), how it is drawn is `dot_figure`.

A figure has its final size in inches and is saved without trimming, so text is as large on paper as `style` says.
"""

from __future__ import annotations

import io
import multiprocessing
import sys
import textwrap
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from bench.report import stats, style
from bench.report import text as t

ROW, LINE, AXIS = 0.30, 0.14, 0.42  # inches: a row, a line of small text, what stands between rows and caption
UNSAID = {"png": ("Software",), "pdf": ("CreationDate", "Producer", "Creator")}
"""By suffix, what is left out of a file: it would tell equal figures apart."""
GAP = 0.08  # inches between names, axes, numbers and the edges
MEAN, DOTS = 0.1, 0.24  # of a row: the interval above its middle, the seeds below


def difference_data(frame: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """One row per dot: pair, label, seed, value (points above the baseline), n, mean, low, high; best label first."""
    long = stats.differences(frame, baseline).rename(columns={"value": "level", "difference": "value"})
    means = stats.paired(frame, baseline)[["pair", "label", "n", "mean", "low", "high"]]
    return _ordered(long[["pair", "label", "seed", "value"]].merge(means, on=["pair", "label"]))


def level_data(frame: pd.DataFrame) -> pd.DataFrame:
    """The same of test top-1 itself (%): for a suite in which nothing can be compared."""
    means = stats.summary(frame)
    means = means.assign(low=means["mean"] - means["half"], high=means["mean"] + means["half"])
    long = stats.usable(frame)[["pair", "label", "seed", stats.TOP1]].rename(columns={stats.TOP1: "value"})
    return _ordered(long.merge(means.drop(columns=["sd", "half"]), on=["pair", "label"]))


def _ordered(data: pd.DataFrame) -> pd.DataFrame:
    place: dict[str, Any] = {pair: i for i, pair in enumerate(data["pair"].unique())}
    keyed = data.assign(_pair=data["pair"].map(place))
    down = [True, False, True, True]
    keyed = keyed.sort_values(["_pair", "mean", "label", "seed"], ascending=down, kind="stable", ignore_index=True)
    return keyed.drop(columns="_pair")


def difference_figure(data: pd.DataFrame, baseline: str, commit: str = "", width: float = style.PAGE) -> Figure:
    """Paired differences to the baseline: a row per method, a dot per seed, mean and 95 % t interval, zero line."""
    if data.empty:
        raise ValueError(f"no seed is shared with '{baseline}': there are no differences to draw")
    caption = (
        f"{_seeds(data)}, each paired with {baseline} of the same seed (same initialisation, batches, augmentation). "
        f"Dots: seeds; marker and line: mean and 95 % t interval. {commit}"
    )
    return dot_figure(
        data, f"difference to {baseline} in test top-1 (percentage points)", caption, width, zero=baseline
    )


def level_figure(data: pd.DataFrame, commit: str = "", width: float = style.PAGE) -> Figure:
    """Test top-1 by method: a dot per seed, mean and 95 % t interval."""
    caption = f"{_seeds(data)}. Dots: seeds; marker and line: mean and 95 % t interval. {commit}"
    return dot_figure(data, "test top-1 (%)", caption, width)


def _seeds(data: pd.DataFrame) -> str:
    low, high = int(data["n"].min()), int(data["n"].max())
    return f"n = {t.plural(high, 'seed')} per row" if low == high else f"n = {low} to {high} seeds per row"


def dot_figure(data: pd.DataFrame, axis: str, caption: str, width: float, zero: str | None = None) -> Figure:
    """One panel per pair with a row per label, drawn at final size; `zero` names the zero line.

    Every text is measured before anything is placed: names and numbers get the room that they take, the axes the rest.
    """
    panels = [part for _, part in data.groupby("pair", sort=False)]
    counts = [part["label"].nunique() for part in panels]
    texts = [_numbers(part, zero) if width > style.COLUMN else {} for part in panels]
    left = 2 * GAP + max(inches(line) for label in data["label"].unique() for line in _name(label).split("\n"))
    right = 2 * GAP + max([inches(text) for part in texts for text in part.values()] or [inches(zero or "") / 2])
    lines = wrapped(caption.strip(), width - 2 * GAP)
    foot = 2 * GAP + LINE * len(lines) + AXIS
    above = (LINE + GAP / 2) * ((zero is not None) + (len(panels) > 1)) + GAP
    height = foot + sum(above + ROW * count for count in counts) + 2 * GAP * (len(panels) - 1)
    with styled():
        figure, top = Figure(figsize=(width, height)), height
        FigureCanvasAgg(figure)
        for part, count, text in zip(panels, counts, texts, strict=True):
            bottom = top - above - ROW * count
            ax = figure.add_axes((left / width, bottom / height, (width - left - right) / width, ROW * count / height))
            _panel(ax, part, text, zero)
            ax.set_xlim(*_limits(data, zero))
            ax.tick_params(labelbottom=part is panels[-1])
            if len(panels) > 1:
                title = str(part["pair"].iloc[0]).replace("->", " → ")
                figure.text(GAP / width, (top - GAP) / height, title, weight="bold", va="top")
            top = bottom - 2 * GAP
        middle = left + (width - left - right) / 2
        reach = inches(axis) / 2 + GAP
        middle = min(max(middle, reach), width - reach)
        figure.text(middle / width, (foot - AXIS) / height, axis, ha="center", va="bottom")
        small: dict[str, Any] = {"size": style.SIZE - 1, "color": style.GREY}
        figure.text(GAP / width, (foot - AXIS - GAP) / height, "\n".join(lines), va="top", linespacing=1.3, **small)
    return figure


def _panel(ax: Axes, part: pd.DataFrame, texts: dict[str, str], zero: str | None) -> None:
    """Names left, dots and intervals in the middle, the numbers themselves right."""
    rows = part.drop_duplicates("label")
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.grid(axis="x")
    if zero is not None:
        ax.axvline(0, color=style.INK, linewidth=0.8, zorder=1.5)
        place: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
        ax.annotate(zero, (0, 1), (0, 3), ha="center", size=style.SIZE - 1, color=style.GREY, **place)
    for y, row in enumerate(rows.itertuples()):
        colour, marker = style.look(str(row.label))
        values = part.loc[part["label"] == row.label, "value"]
        dots: dict[str, Any] = {"markersize": 2.8, "alpha": 0.55, "markeredgewidth": 0}
        ax.plot(values, [y + DOTS] * len(values), "o", color=colour, clip_on=False, **dots)
        ax.plot([row.low, row.high], [y - MEAN] * 2, color=colour, linewidth=1.4, solid_capstyle="butt")
        edge: dict[str, Any] = {"markeredgecolor": "white", "markeredgewidth": 0.5}
        ax.plot([row.mean], [y - MEAN], marker, markersize=5, color=colour, **edge)
        if texts:
            at: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
            ax.annotate(texts[str(row.label)], (1, y - MEAN), (72 * GAP, 0), va="center_baseline", **at)
    ax.set_yticks([y - MEAN for y in range(len(rows))], [_name(label) for label in rows["label"]])
    ax.tick_params(axis="y", pad=72 * GAP)
    ax.spines["left"].set_visible(False)
    ax.spines["bottom"].set_position(("outward", 3))


def _numbers(part: pd.DataFrame, zero: str | None) -> dict[str, str]:
    """The text right of each row: the difference with its interval, or the level with its half-width."""
    rows = part.drop_duplicates("label")
    places = t.decimals((rows["high"] - rows["low"]) / 2, [*rows["low"], *rows["high"]] if zero is not None else [])
    if zero is None:
        return {str(r.label): t.level(r.mean, r.high - r.mean, r.n, places) for r in rows.itertuples()}
    return {str(r.label): t.difference(r.mean, r.low, r.high, r.n, places) for r in rows.itertuples()}


def _limits(data: pd.DataFrame, zero: str | None) -> tuple[float, float]:
    ends = [*data["value"], *data["low"].dropna(), *data["high"].dropna(), *([0.0] if zero is not None else [])]
    pad = 0.04 * (max(ends) - min(ends)) or 0.5
    return min(ends) - pad, max(ends) + pad


def _name(label: str) -> str:
    """A long row name in two lines, broken before its settings."""
    if len(label) <= 20:
        return label
    first, bracket, rest = label.partition("(")
    if not bracket:
        return textwrap.fill(label, 20)
    return f"{first}\n{textwrap.shorten(bracket + rest.replace(',', ', '), 26, placeholder='…)')}"


@cache
def inches(text: str, size: float = style.SIZE) -> float:
    """How wide a text is on paper."""
    width, _, _ = text_to_path.get_text_width_height_descent(text, FontProperties(size=size), ismath=False)
    return float(width) / 72


def wrapped(text: str, width: float) -> list[str]:
    """The text in lines of at most `width` inches."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and inches(longer, style.SIZE - 1) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


@contextmanager
def styled() -> Iterator[None]:
    with matplotlib.rc_context(style.RC):
        yield


def rendered(figure: Figure) -> dict[str, bytes]:
    """The figure as files, by suffix: PNG at 300 dpi, PDF with embedded fonts; the same figure gives the same bytes."""
    return {suffix: _saved(figure, suffix) for suffix in UNSAID}


def all_rendered(figures: Mapping[str, Figure]) -> dict[str, bytes]:
    """The files of several figures, by name and suffix. PDFs, whose fonts take twice a PNG's time, are mostly made in a
    second process, where this one may be forked: on Linux, while it has a single thread."""
    todo = [(name, suffix) for suffix in UNSAID for name in figures]

    def made(these: Sequence[tuple[str, str]]) -> dict[str, bytes]:
        return {f"{name}.{suffix}": _saved(figures[name], suffix) for name, suffix in these}

    if sys.platform != "linux" or threading.active_count() > 1:
        return made(todo)
    half = len(figures) + len(figures) // 4
    fork = multiprocessing.get_context("fork")
    reader, writer = fork.Pipe(duplex=False)
    second = fork.Process(target=lambda: writer.send(made(todo[half:])))
    second.start()
    writer.close()
    files = made(todo[:half])
    try:
        return files | reader.recv()
    except EOFError:  # it died, of memory perhaps; what is wrong with a figure itself shows here
        return files | made(todo[half:])
    finally:
        second.join()


def _saved(figure: Figure, suffix: str) -> bytes:
    with styled():
        buffer = io.BytesIO()
        figure.savefig(buffer, format=suffix, metadata=dict.fromkeys(UNSAID[suffix]))
        return buffer.getvalue()
