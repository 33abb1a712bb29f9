"""Accuracy against the cost of a whole training, beside the baseline's, and the rows that pay."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.report import figures, stats, style
from bench.report import text as t
from bench.report.layout import AXIS_LEFT, GAP, HEIGHT, fence, limits, logarithmic, stacked
from bench.report.plots import matrix, place
from bench.report.plots.ranking import (
    Palette,
    crowd,
    dark_last,
    levels,
    look,
    names,
    palettes,
    panels,
    seeds,
    span,
    unseen,
)

STEP, BEFORE = "cost/step_alone_ms", "cost/epochs_before"
NAMED = ", named where there is room"
STRETCH = 0.5  # of what the rows span: how far intervals may stretch the axis, either way
COLUMNS = ["pair", "label", "n", "top1", "low", "high", "verdict", "cost_ratio", "front"]


def data(runs: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Pair, label, n, top1 (`levels`), low, high, verdict, cost_ratio, front; one row per pair and label.

    low, high: 95 % t interval of the paired difference to the baseline (points), NaN for the baseline; verdict: of
    `figures.difference_data`. cost_ratio: of `total` to the baseline's, median over shared seeds. front:
    distinguishably better (`matrix.data`) than every cheaper row of the pair. Empty where fewer than two rows have a
    step time.
    """
    timed = STEP in runs and (runs.loc[runs["label"] == baseline, STEP].notna() & (runs["status"] == "finished")).any()
    if not timed:
        return pd.DataFrame(columns=COLUMNS)
    ratios = stats.ratios(runs.assign(total=total(runs)), baseline, "total")
    ratios = ratios[["pair", "label", "ratio"]].rename(columns={"ratio": "cost_ratio"})
    beside = figures.difference_data(runs, baseline).drop_duplicates(["pair", "label"])
    apart = beside[["pair", "label", "low", "high", "verdict"]]
    ratios = ratios[np.isfinite(ratios["cost_ratio"])]
    out = levels(runs, baseline).merge(apart, on=["pair", "label"], how="left").merge(ratios, on=["pair", "label"])
    if len(out) < 2:
        return pd.DataFrame(columns=COLUMNS)
    cells = matrix.data(runs).query("apart and mean > 0")
    better = set(cells[["pair", "row", "column"]].itertuples(index=False, name=None))
    cheaper = out.merge(out, on="pair", suffixes=("", "_other")).query("cost_ratio_other < cost_ratio")
    pairs = cheaper[["pair", "label", "label_other"]].itertuples(index=False, name=None)
    behind = {(pair, label) for pair, label, other in pairs if (pair, label, other) not in better}
    keys = out[["pair", "label"]].itertuples(index=False, name=None)
    return out.assign(front=[key not in behind for key in keys])[COLUMNS]


def total(runs: pd.DataFrame) -> pd.Series[float]:
    """What a training costs, in ms per step of its epochs: the step taken alone, and the epochs before the first.

    An epoch before the first is counted as one of the training; all rows train the same number of steps.
    """
    before = runs[BEFORE].astype(float).fillna(0.0) if BEFORE in runs else 0.0
    epochs = runs["epochs"].astype(float) if "epochs" in runs else 1.0
    return runs[STEP].astype(float) * (1.0 + before / epochs)


def figure(data: pd.DataFrame, baseline: str, commit: str = "") -> Figure:
    """One panel per pair, names beside the points. Raises `ValueError` without data."""
    if data.empty:
        raise ValueError(f"fewer than two rows have a step time beside that of '{baseline}': there is nothing to draw")
    parts = panels(data)
    floors, bright = {pair: fence(part["top1"]) for pair, part in parts.items()}, palettes(parts, baseline)
    paying = t.joined(list(dict.fromkeys(label for part in parts.values() for label in _paying(part)["label"])))
    rings = f" Ringed and joined: distinguishably better than every cheaper row ({paying})." if paying else ""
    caption = (
        f"Test top-1 is {span(data, 'top1', ' %')}, the cost of the training {span(data, 'cost_ratio', '×')} that of "
        f"{baseline}: a step with all that the method needs (views, teacher, its own part) times the steps, "
        f"also those before the first epoch. {seeds(data['n'])}. Vertical line: 95 % t interval of the paired "
        f"difference to {baseline}, which may go on beyond the axis. Filled: distinguishable from {baseline} "
        f"(simultaneous interval), hollow: not.{rings}{crowd(data, baseline, NAMED)}"
        f"{unseen(data, 'top1', floors)} {commit}"
    )

    def panel(ax: Axes, pair: str, part: pd.DataFrame) -> None:
        _panel(ax, part[part["top1"] >= floors[pair]], bright[pair], baseline)

    across, heights = f"cost of the training, over that of {baseline}", [1.35 * HEIGHT] * len(parts)
    return stacked(parts, heights, caption, panel, across, left=AXIS_LEFT, right=4 * GAP)


def _panel(ax: Axes, part: pd.DataFrame, bright: Palette, baseline: str) -> None:
    front = _paying(part)
    half = ((part["high"] - part["low"]) / 2).where(part["label"].isin(list(bright)))
    ends = pd.DataFrame({"x": part["cost_ratio"], "low": part["top1"] - half, "high": part["top1"] + half}).dropna()
    ax.set_ylim(*_up(part["top1"], ends))
    _across(ax, part["cost_ratio"])
    ax.set_ylabel("test top-1 (%)")
    ax.grid(axis="y")
    line: dict[str, Any] = {"color": style.INK, "linewidth": 0.8, "zorder": 1.8}
    ax.plot(front["cost_ratio"], front["top1"], drawstyle="steps-post", **line)
    ring: dict[str, Any] = {"markerfacecolor": "none", "markeredgecolor": style.INK, "markeredgewidth": 0.7}
    ax.plot(front["cost_ratio"], front["top1"], "o", markersize=7.5, clip_on=False, zorder=1.9, **ring)
    for label in dark_last(part["label"], bright):
        row, dark = part[part["label"] == label].iloc[0], label in bright
        (colour, marker), filled = look(label, bright), row["verdict"] in ("better", "worse") or label == baseline
        face: dict[str, Any] = {"markerfacecolor": colour if filled else "white", "markeredgecolor": colour}
        over: dict[str, Any] = {"markersize": 5.0 if dark else 3.5, "markeredgewidth": 1.0 if dark else 0.7}
        if row.name in ends.index:
            at = ends.loc[row.name]
            ax.plot([at["x"]] * 2, [at["low"], at["high"]], color=colour, linewidth=0.7, zorder=2.1)
        ax.plot([row["cost_ratio"]], [row["top1"]], marker, zorder=2.5 + 0.2 * dark, clip_on=False, **face, **over)
    lines = [front[["cost_ratio", "top1"]], *([(x, low), (x, high)] for x, low, high in ends.to_numpy())]
    taken = np.concatenate([place.along(place.points(ax, line)) for line in lines])
    place.beside(ax, names(part, "cost_ratio", "top1", bright), taken)


def _paying(part: pd.DataFrame) -> pd.DataFrame:
    """The front, the cheapest row first; none where it is the cheapest row alone, which nothing is cheaper than."""
    front = part[part["front"]].sort_values("cost_ratio")
    return front if len(front) > 1 else front.iloc[:0]


def _up(top1: pd.Series[float], ends: pd.DataFrame) -> tuple[float, float]:
    """The axis of accuracy: all rows, and their intervals as far as they do not stretch it too much."""
    low, high = float(top1.min()), float(top1.max())
    more = STRETCH * max(high - low, 1.0)
    return limits([min(max([high, *ends["high"]]), high + more)], max(min([low, *ends["low"]]), low - more))


def _across(ax: Axes, ratios: pd.Series[float]) -> None:
    """A logarithmic axis of ratios: twice as slow and twice as fast are equally far from 1."""
    low, high = min(1.0, float(ratios.min())), max(1.0, float(ratios.max()))
    pad = 1.06 * (high / low) ** 0.04
    fine = (1, 1.1, 1.2, 1.3, 1.5, 1.7, 2, 2.5, 3, 4, 5, 7) if high < 2 * low else (1, 1.5, 2, 3, 4, 5, 7)
    logarithmic(ax, low / pad, high * pad, fine if high < 8 * low else (1, 2, 5), "×")
