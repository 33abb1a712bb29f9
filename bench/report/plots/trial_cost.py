"""Accuracy against step time: a pair's complete trials and their Pareto front. What is drawn is `trials.pareto`."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.report import style
from bench.report import text as t
from bench.report.layout import AXIS_LEFT, GAP, HEIGHT, fence, limits, logarithmic, sheet, styled
from bench.report.plots import place
from bench.report.plots.ranking import BEST, FEW, Palette, crowd, dark_last, look, names, panels

STAR = "Star: the trial whose values were chosen. "
LOG = 4.0  # step times that differ by more than this factor stand on a logarithmic axis


def figure(points: pd.DataFrame, chosen: pd.DataFrame, commit: str = "") -> Figure:
    """One panel per pair. chosen: `trials.chosen`. Raises `ValueError` where no complete trial has a step time."""
    if points.empty:
        raise ValueError("no complete trial has a step time: there is nothing to draw")
    points, stars = (frame.rename(columns={"method": "label"}) for frame in (points, chosen))
    parts = panels(points)
    floors = {pair: fence(part["top1"]) for pair, part in parts.items()}
    below = sum(int((part["top1"] < floors[pair]).sum()) for pair, part in parts.items())
    unseen = f" Below the axis: {t.plural(below, 'trial')}." if below else ""
    caption = (
        "Small dots: complete trials; large markers: each method's most accurate one. Line: Pareto front, the trials "
        "that no other beats (no less accurate, no slower, better in one of the two). Step time: one training step "
        "with the views and the teacher's forward that the trial needs."
        f"{crowd(points, 'kd', best='the best on the front')}{unseen} {STAR * bool(len(stars))}{commit}"
    )
    with styled():
        heights = [1.4 * HEIGHT] * len(parts)
        drawn, axes = sheet(heights, list(parts), caption, left=AXIS_LEFT, right=5 * GAP)
        for ax, (pair, part) in zip(axes, parts.items(), strict=True):
            _panel(ax, part, stars[stars["pair"] == pair], floors[pair])
        axes[-1].set_xlabel("step time (ms)")
    return drawn


def star(ax: Axes, chosen: pd.DataFrame, x: str, bright: Palette) -> None:
    """The trial that each study chose, at column `x` and its top-1; what lies below the axis is not drawn."""
    low = ax.get_ylim()[0]
    for row in chosen[chosen["top1"] >= low].itertuples():
        colour, size = look(str(row.label), bright)[0], 9 if row.label in bright else 6
        edge: dict[str, Any] = {"markeredgecolor": "white", "markeredgewidth": 0.6, "clip_on": False, "zorder": 4.5}
        ax.plot([getattr(row, x)], [row.top1], "*", color=colour, markersize=size, **edge)


def _panel(ax: Axes, part: pd.DataFrame, chosen: pd.DataFrame, floor: float) -> None:
    best = part.sort_values(["top1", "step_ms"], ascending=[False, True]).drop_duplicates("label")
    front = part[part["front"]].sort_values(["step_ms", "top1"])
    bright = _palette(best, front)
    ax.set_ylim(*limits(part["top1"], floor))
    ax.set_ylabel("validation top-1 (%)")
    ax.grid(axis="y")
    _across(ax, part["step_ms"])
    ax.plot(front["step_ms"], front["top1"], drawstyle="steps-post", color=style.INK, linewidth=0.8, zorder=1.8)
    for label in dark_last(best["label"], bright):
        colour, marker = look(label, bright)
        own, over = part[part["label"] == label], 0.2 * (label in bright)
        dots: dict[str, Any] = {"markersize": 2.6, "markeredgewidth": 0, "alpha": 0.5, "zorder": 2 + over}
        ax.plot(own["step_ms"], own["top1"], "o", color=colour, **dots)
        ringed = own[own["front"]]
        ring: dict[str, Any] = {"markersize": 3.6, "markeredgecolor": style.INK, "markeredgewidth": 0.6, "zorder": 3}
        ax.plot(ringed["step_ms"], ringed["top1"], "o", color=colour, **ring)
        top, size, line = best[best["label"] == label], *((5.5, 0.6) if label in bright else (4.0, 0.3))
        edge: dict[str, Any] = {"markeredgecolor": style.INK if top["front"].any() else "white", "zorder": 3.5 + over}
        ax.plot(top["step_ms"], top["top1"], marker, color=colour, markersize=size, markeredgewidth=line, **edge)
    star(ax, chosen, "step_ms", bright)
    seen = names(best[best["top1"] >= floor], "step_ms", "top1", bright)
    place.beside(ax, seen, place.along(place.points(ax, front[["step_ms", "top1"]])))


def _palette(best: pd.DataFrame, front: pd.DataFrame) -> Palette:
    """The methods that have a colour: all of few, else plain kd and the best of those on the front."""
    names = [str(label) for label in best["label"]]
    on = [label for label in names if label in set(front["label"]) and label != "kd"]
    return style.looks(names if len(names) <= FEW else [*(n for n in ("kd",) if n in names), *on[:BEST]])


def _across(ax: Axes, steps: pd.Series[float]) -> None:
    """The axis of step times: from 0, or logarithmic where they differ much."""
    low, high = float(steps.min()), float(steps.max())
    if low > 0 and high > LOG * low:
        logarithmic(ax, low / 1.12, high * 1.12, (1, 2, 5))
    else:
        pad = 0.06 * (high - low) or 0.5
        ax.set_xlim(max(0.0, low - pad), high + pad)
