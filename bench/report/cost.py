"""Accuracy against step time: a pair's complete trials and their Pareto front. What is drawn is `trials.pareto`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from bench.report import style
from bench.report import text as t
from bench.report.curves import BEST, FEW, HEIGHT, crowd, dark_last, fence, limits, look, short, stacked
from bench.report.figures import GAP, styled, wrapped

LOG = 4.0  # step times that differ by more than this factor stand on a logarithmic axis
AROUND = [(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1)]  # of a point, where its name may be


def cost_figure(points: pd.DataFrame, commit: str = "", width: float = style.PAGE) -> Figure:
    """One panel per pair. Raises `ValueError` where no complete trial has a step time."""
    if points.empty:
        raise ValueError("no complete trial has a step time: there is nothing to draw")
    panels = [part for _, part in points.groupby("pair", sort=False)]
    floors = [fence(part["top1"]) for part in panels]
    under = sum(int((part["top1"] < floor).sum()) for part, floor in zip(panels, floors, strict=True))
    unseen = f" Below the axis: {t.plural(under, 'trial')}." if under else ""
    caption = (
        "Small dots: complete trials; large markers: each method's most accurate one. Line: Pareto front, the trials "
        "that no other beats (no less accurate, no slower, better in one of the two). Step time: one training step "
        "with the views and the teacher's forward that the trial needs."
        f"{crowd(points, 'the best on the front')}{unseen} {commit}"
    )
    lines = wrapped(caption.strip(), width - 2 * GAP)
    with styled():
        titles = [str(part["pair"].iloc[0]) for part in panels]
        figure, axes = stacked([1.4 * HEIGHT] * len(panels), titles, lines, width, 0.3)
        for ax, part, floor in zip(axes, panels, floors, strict=True):
            _panel(ax, part, floor)
        axes[-1].set_xlabel("step time (ms)")
    return figure


def _panel(ax: Axes, part: pd.DataFrame, floor: float) -> None:
    best = part.sort_values(["top1", "step_ms"], ascending=[False, True]).drop_duplicates("method")
    front = part[part["front"]].sort_values(["step_ms", "top1"])
    bright = _coloured(best, front)
    ax.set_ylim(*limits(part["top1"], floor))
    _across(ax, part["step_ms"])
    ax.plot(front["step_ms"], front["top1"], drawstyle="steps-post", color=style.INK, linewidth=0.8, zorder=1.8)
    for name in dark_last(best["method"], bright):
        colour, marker = look(name, bright)
        own, over = part[part["method"] == name], 0.2 * (name in bright)
        dots: dict[str, Any] = {"markersize": 2.6, "markeredgewidth": 0, "alpha": 0.5, "zorder": 2 + over}
        ax.plot(own["step_ms"], own["top1"], "o", color=colour, **dots)
        ringed = own[own["front"]]
        ring: dict[str, Any] = {"markersize": 3.6, "markeredgecolor": style.INK, "markeredgewidth": 0.6, "zorder": 3}
        ax.plot(ringed["step_ms"], ringed["top1"], "o", color=colour, **ring)
        top, size, line = best[best["method"] == name], *((5.5, 0.6) if name in bright else (4.0, 0.3))
        edge: dict[str, Any] = {"markeredgecolor": style.INK if top["front"].any() else "white", "zorder": 3.5 + over}
        ax.plot(top["step_ms"], top["top1"], marker, color=colour, markersize=size, markeredgewidth=line, **edge)
    _names(ax, best[best["top1"] >= floor], front, bright)


def _coloured(best: pd.DataFrame, front: pd.DataFrame) -> list[str]:
    """The methods that have a colour: all of few, else plain kd and the best of those on the front."""
    names = [str(name) for name in best["method"]]
    on = [name for name in names if name in set(front["method"]) and name != "kd"]
    return names if len(names) <= FEW else [*(n for n in ("kd",) if n in names), *on[:BEST]]


def _across(ax: Axes, steps: pd.Series[float]) -> None:
    """The axis of step times: from 0, or logarithmic where they differ much."""
    low, high = float(steps.min()), float(steps.max())
    if low > 0 and high > LOG * low:
        ax.set_xscale("log")
        ax.set_xlim(low / 1.12, high * 1.12)
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.xaxis.set_minor_locator(NullLocator())
    else:
        pad = 0.06 * (high - low) or 0.5
        ax.set_xlim(max(0.0, low - pad), high + pad)


def _names(ax: Axes, best: pd.DataFrame, front: pd.DataFrame, bright: Sequence[str]) -> None:
    """A name beside each method's best trial, where it covers least; a grey one without room is left out."""
    renderer, page = ax.figure.canvas.get_renderer(), ax.figure.bbox  # type: ignore[attr-defined]
    columns = ["step_ms", "top1"]
    points = ax.transData.transform(best[columns].to_numpy(float))
    line = _along(ax.transData.transform(front[columns].to_numpy(float)))
    taken = {name: _square(x, y) for name, (x, y) in zip(best["method"], points, strict=True)}
    for name in reversed(dark_last(best["method"], bright)):
        dark, row = name in bright, best[best["method"] == name].iloc[0]
        look_: dict[str, Any] = {"size": style.SIZE, "color": look(name, bright)[0]}
        look_ = look_ if dark else {"size": style.SIZE - 2, "color": style.GREY}
        text = ax.annotate(short(name), row[columns].tolist(), (0, 0), textcoords="offset points", zorder=5, **look_)
        text.set_path_effects([withStroke(linewidth=1.5, foreground="white")])
        others = [*line, *(box for other, box in taken.items() if other != name)]
        covers = {}
        for side in AROUND:
            _beside(text, side)
            box = text.get_window_extent(renderer)
            outside = box.x0 < ax.bbox.x0 or box.x1 > page.x1 - 4 or box.y0 < ax.bbox.y0 or box.y1 > page.y1
            covers[side] = box.count_overlaps(others) + 100 * outside
        side = min(AROUND, key=lambda side: covers[side])
        if covers[side] and not dark:
            text.remove()
            continue
        _beside(text, side)
        taken[f"name of {name}"] = text.get_window_extent(renderer)


def _beside(text: Annotation, side: tuple[int, int]) -> None:
    x, y = side
    text.set_position((5 * x if not y else 3 * x, 5 * y if not x else 3 * y))
    text.set_horizontalalignment(("right", "center", "left")[x + 1])
    text.set_verticalalignment(("top", "center_baseline", "bottom")[y + 1])


def _along(points: NDArray[np.float64]) -> list[Bbox]:
    """The front's points and the stairs between them, as boxes that a name should not cover."""
    boxes = [_square(x, y, 3.0) for x, y in points]
    for (x, y), (right, top) in itertools.pairwise(points):
        boxes += [Bbox.from_extents(x, y - 1, right, y + 1), Bbox.from_extents(right - 1, y, right + 1, top)]
    return boxes


def _square(x: float, y: float, half: float = 4.0) -> Bbox:
    return Bbox.from_extents(x - half, y - half, x + half, y + half)
