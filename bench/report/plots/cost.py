"""Accuracy against the time of a training step, both beside the baseline's, and the Pareto front."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from bench.report import stats, style, trials
from bench.report.layout import AXIS_LEFT, GAP, HEIGHT, fence, limits, sheet, styled
from bench.report.plots import place
from bench.report.plots.ranking import (
    Palette,
    bright_first,
    crowd,
    dark_last,
    levels,
    look,
    name,
    palettes,
    panels,
    seeds,
    unseen,
)

STEP = "cost/step_alone_ms"
NAMED = ", named where there is room"
COLUMNS = ["pair", "label", "n", "top1", "low", "high", "step_ratio", "front"]


def data(runs: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Pair, label, n, top1 (`ranking.levels`), low, high, step_ratio, front; one row per pair and label.

    low, high: 95 % t interval of the paired difference to the baseline (points), NaN for the baseline. step_ratio: of
    the step taken alone to the baseline's, median over shared seeds. front: no other row of the pair beats it (no less
    accurate and no slower, better in one of the two). Empty where fewer than two rows have a step time.
    """
    timed = STEP in runs and (runs.loc[runs["label"] == baseline, STEP].notna() & (runs["status"] == "finished")).any()
    if not timed:
        return pd.DataFrame(columns=COLUMNS)
    ratios = stats.ratios(runs, baseline, STEP)[["pair", "label", "ratio"]].rename(columns={"ratio": "step_ratio"})
    apart = stats.paired(runs, baseline)[["pair", "label", "low", "high"]]
    ratios = ratios[np.isfinite(ratios["step_ratio"])]
    out = levels(runs, baseline).merge(apart, on=["pair", "label"], how="left").merge(ratios, on=["pair", "label"])
    if len(out) < 2:
        return pd.DataFrame(columns=COLUMNS)
    each = out.rename(columns={"label": "method", "step_ratio": "step_ms"})
    front = trials.pareto(each.assign(trial=0, state="complete", recipe=True))
    front = front.rename(columns={"method": "label"})[["pair", "label", "front"]]
    return out.merge(front, on=["pair", "label"])[COLUMNS]


def figure(data: pd.DataFrame, baseline: str, commit: str = "") -> Figure:
    """One panel per pair, names beside the points. Raises `ValueError` without data."""
    if data.empty:
        raise ValueError(f"fewer than two rows have a step time beside that of '{baseline}': there is nothing to draw")
    parts = panels(data)
    floors, bright = {pair: fence(part["top1"]) for pair, part in parts.items()}, palettes(parts, baseline)
    caption = (
        "Test top-1 against the time of a training step with all that the method needs (views, teacher, its own part); "
        f"{seeds(data['n'])}. Filled: distinguishable from {baseline} (95 % t interval of the paired difference); "
        "hollow: not. Line: Pareto front, the rows that "
        f"no other beats (no less accurate, no slower, better in one of the two).{crowd(data, baseline, NAMED)}"
        f"{unseen(data, 'top1', floors)} {commit}"
    )
    with styled():
        heights = [1.35 * HEIGHT] * len(parts)
        drawn, axes = sheet(heights, list(parts), caption, left=AXIS_LEFT, right=4 * GAP)
        for ax, (pair, part) in zip(axes, parts.items(), strict=True):
            _panel(ax, part[part["top1"] >= floors[pair]], bright[pair], baseline)
        axes[-1].set_xlabel(f"step time, over that of {baseline}")
    return drawn


def _panel(ax: Axes, part: pd.DataFrame, bright: Palette, baseline: str) -> None:
    front = part[part["front"]].sort_values("step_ratio")
    ax.set_ylim(*limits(part["top1"], part["top1"].min()))
    _across(ax, part["step_ratio"])
    ax.set_ylabel("test top-1 (%)")
    ax.grid(axis="y")
    ax.plot(front["step_ratio"], front["top1"], drawstyle="steps-post", color=style.INK, linewidth=0.8, zorder=1.8)
    for label in dark_last(part["label"], bright):
        row, dark = part[part["label"] == label].iloc[0], label in bright
        (colour, marker), told = look(label, bright), row["low"] > 0 or row["high"] < 0 or label == baseline
        face: dict[str, Any] = {"markerfacecolor": colour if told else "white", "markeredgecolor": colour}
        over: dict[str, Any] = {"markersize": 5.0 if dark else 3.5, "markeredgewidth": 1.0 if dark else 0.7}
        ax.plot([row["step_ratio"]], [row["top1"]], marker, zorder=2.5 + 0.2 * dark, clip_on=False, **face, **over)
    by = part.set_index("label")
    first = [label for label in bright_first(by.index, bright) if label in by.index]
    names = [name(x, by.loc[x, "step_ratio"], by.loc[x, "top1"], bright) for x in first]
    place.beside(ax, names, place.along(place.points(ax, front[["step_ratio", "top1"]])))


def _across(ax: Axes, ratios: pd.Series[float]) -> None:
    """A logarithmic axis of ratios: twice as slow and twice as fast are equally far from 1."""
    low, high = min(1.0, float(ratios.min())), max(1.0, float(ratios.max()))
    pad = 1.06 * (high / low) ** 0.04
    ax.set_xscale("log")
    ax.set_xlim(low / pad, high * pad)
    fine = (1, 1.1, 1.2, 1.3, 1.5, 1.7, 2, 2.5, 3, 4, 5, 7) if high < 2 * low else (1, 1.5, 2, 3, 4, 5, 7)
    ax.xaxis.set_major_locator(LogLocator(subs=fine if high < 8 * low else (1, 2, 5)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}×"))
    ax.xaxis.set_minor_locator(NullLocator())
