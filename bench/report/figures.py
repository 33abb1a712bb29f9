"""The main figure: paired differences to a baseline, or accuracies. What is drawn is a frame, how is `dot_figure`."""

from __future__ import annotations

import textwrap
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.report import stats, style
from bench.report import text as t
from bench.report.layout import GAP, LINE, inches, rows, sheet, styled

ROW = 0.30  # inches
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


def difference_figure(data: pd.DataFrame, baseline: str, commit: str = "") -> Figure:
    """Paired differences to the baseline: a row per method, a dot per seed, mean and 95 % t interval, zero line."""
    if data.empty:
        raise ValueError(f"no seed is shared with '{baseline}': there are no differences to draw")
    caption = (
        f"{_seeds(data)}, each paired with {baseline} of the same seed (same initialisation, batches, augmentation). "
        f"Dots: seeds; marker and line: mean and 95 % t interval. {commit}"
    )
    return dot_figure(data, f"difference to {baseline} in test top-1 (percentage points)", caption, zero=baseline)


def level_figure(data: pd.DataFrame, commit: str = "") -> Figure:
    """Test top-1 by method: a dot per seed, mean and 95 % t interval."""
    caption = f"{_seeds(data)}. Dots: seeds; marker and line: mean and 95 % t interval. {commit}"
    return dot_figure(data, "test top-1 (%)", caption)


def _seeds(data: pd.DataFrame) -> str:
    low, high = int(data["n"].min()), int(data["n"].max())
    return f"n = {t.plural(high, 'seed')} per row" if low == high else f"n = {low} to {high} seeds per row"


def dot_figure(data: pd.DataFrame, axis: str, caption: str, zero: str | None = None) -> Figure:
    """One panel per pair with a row per label; `zero` names the zero line.

    Every text is measured before anything is placed: names and numbers get the room that they take, the axes the rest.
    """
    panels = [part for _, part in data.groupby("pair", sort=False)]
    texts = [_numbers(part, zero) for part in panels]
    left = 2 * GAP + max(inches(line) for label in data["label"].unique() for line in _name(label).split("\n"))
    right = 2 * GAP + max(inches(text) for part in texts for text in part.values())
    heights, titles = [ROW * part["label"].nunique() for part in panels], [str(part["pair"].iloc[0]) for part in panels]
    with styled():
        gaps: dict[str, float] = {"above": LINE * (zero is not None), "between": 2 * GAP}
        figure, axes = sheet(heights, titles, caption, left=left, right=right, **gaps)
        for ax, part, text in zip(axes, panels, texts, strict=True):
            _panel(ax, part, text, zero)
            ax.set_xlim(*_limits(data, zero))
            ax.tick_params(labelbottom=part is panels[-1])
        axes[-1].set_xlabel(axis)
    return figure


def _panel(ax: Axes, part: pd.DataFrame, texts: dict[str, str], zero: str | None) -> None:
    """Names left, dots and intervals in the middle, the numbers themselves right."""
    means = part.drop_duplicates("label")
    rows(ax, [_name(label) for label in means["label"]], -MEAN)
    if zero is not None:
        ax.axvline(0, color=style.INK, linewidth=0.8, zorder=1.5)
        place: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
        ax.annotate(zero, (0, 1), (0, 3), ha="center", size=style.SIZE - 1, color=style.GREY, **place)
    for y, row in enumerate(means.itertuples()):
        colour, marker = style.look(str(row.label))
        values = part.loc[part["label"] == row.label, "value"]
        dots: dict[str, Any] = {"markersize": 2.8, "alpha": 0.55, "markeredgewidth": 0}
        ax.plot(values, [y + DOTS] * len(values), "o", color=colour, clip_on=False, **dots)
        ax.plot([row.low, row.high], [y - MEAN] * 2, color=colour, linewidth=1.4, solid_capstyle="butt")
        edge: dict[str, Any] = {"markeredgecolor": "white", "markeredgewidth": 0.5}
        ax.plot([row.mean], [y - MEAN], marker, markersize=5, color=colour, **edge)
        at: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
        ax.annotate(texts[str(row.label)], (1, y - MEAN), (72 * GAP, 0), va="center_baseline", **at)


def _numbers(part: pd.DataFrame, zero: str | None) -> dict[str, str]:
    """The text right of each row: the difference with its interval, or the level with its half-width."""
    means = part.drop_duplicates("label")
    places = t.decimals((means["high"] - means["low"]) / 2, [*means["low"], *means["high"]] if zero is not None else [])
    if zero is None:
        return {str(r.label): t.level(r.mean, r.high - r.mean, r.n, places) for r in means.itertuples()}
    return {str(r.label): t.difference(r.mean, r.low, r.high, r.n, places) for r in means.itertuples()}


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
