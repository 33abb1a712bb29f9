"""Best-of-k figure: the best of the first k trials by k, one line per method, its name at its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.report import text as t
from bench.report.layout import AXIS_LEFT, GAP, HEIGHT, fence, inches, limits, sheet, styled
from bench.report.plots import place
from bench.report.plots.ranking import Palette, crowd, dark_last, look, name, palettes, panels


def figure(curves: pd.DataFrame, recipes: pd.DataFrame, commit: str = "") -> Figure:
    """One panel per pair; hollow markers are the recipes, names stand at the lines' ends in the order of their values.

    curves: `trials.best_of_k`; recipes: `trials.recipes`. Raises `ValueError` where no trial is complete.
    """
    curves = curves.rename(columns={"method": "label"})
    known = curves[curves["best"].notna()]
    if known.empty:
        raise ValueError("no trial is complete: there are no curves to draw")
    parts, starts = panels(known), panels(recipes.rename(columns={"method": "label"}))
    ends = {pair: _ends(part) for pair, part in parts.items()}
    bright = palettes(ends, "kd")
    floors = {pair: fence([*ends[pair]["best"], *starts[pair]["top1"]]) for pair in parts}
    names = {pair: [name(r.label, r.k, r.best, bright[pair]) for r in last.itertuples()] for pair, last in ends.items()}
    heights = [max(HEIGHT, sum(place.room(one.size) for one in each)) for each in names.values()]
    right = 5 * GAP + max(inches(one.text, one.size) for each in names.values() for one in each)
    with styled():
        caption = _caption(curves, starts, floors, commit)
        drawn, axes = sheet(heights, list(parts), caption, left=AXIS_LEFT, right=right)
        for ax, (pair, part) in zip(axes, parts.items(), strict=True):
            _panel(ax, part, starts[pair], floors[pair], bright[pair])
            place.at_ends(ax, names[pair])
        axes[-1].set_xlabel("trials k")
    return drawn


def _panel(ax: Axes, part: pd.DataFrame, starts: pd.DataFrame, floor: float, bright: Palette) -> None:
    last = int(part["k"].max())
    ax.set_xlim(0.5, last + 0.25)
    ax.set_xticks(_ticks(last))
    ax.set_ylim(*limits([*part["best"], *starts["top1"]], floor))
    ax.set_ylabel("validation top-1 (%)")
    ax.grid(axis="y")
    low = ax.get_ylim()[0]
    for label in dark_last(part["label"].unique(), bright):
        curve, start = part[part["label"] == label], starts[starts["label"] == label]
        (colour, marker), dark = look(label, bright), label in bright
        over: dict[str, Any] = {"color": colour, "zorder": 2.5 if dark else 2}
        ax.plot(curve["k"], curve["best"], drawstyle="steps-mid", linewidth=1.3 if dark else 0.6, **over)
        if dark:
            ax.plot(curve["k"].iloc[-1:], curve["best"].iloc[-1:], marker=marker, markersize=4.5, clip_on=False, **over)
        for at, top1 in zip(start["k"], start["top1"], strict=True):
            hollow: dict[str, Any] = {"markerfacecolor": "white", "markersize": 4.5 if dark else 2.5, "clip_on": False}
            shape, over["zorder"] = (marker, over["zorder"] + 1) if top1 >= low else (7, 4)  # 7: a caret down
            ax.plot([at], [max(top1, low)], marker=shape, markeredgewidth=0.9 if dark else 0.6, **hollow, **over)


def _ticks(last: int) -> list[int]:
    """1, the last, and round numbers between that do not touch them."""
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, last) if last <= 8 * step)
    return sorted({1, last, *(k for k in range(step, last, step) if min(k - 1, last - k) >= last / 16)})


def _ends(part: pd.DataFrame) -> pd.DataFrame:
    """Each method's last row: label, k, best; best first."""
    last = part.groupby("label", sort=False).last().reset_index()
    return last.sort_values(["best", "label"], ascending=[False, True], ignore_index=True)[["label", "k", "best"]]


def _caption(curves: pd.DataFrame, starts: dict[str, pd.DataFrame], floors: dict[str, float], commit: str) -> str:
    studies = curves.groupby(["pair", "label"], sort=False)
    low, high = int(studies.size().min()), int(studies.size().max())
    each = t.plural(high, "trial") if low == high else f"{low} to {high} trials"
    parts = [
        f"Best validation top-1 (last epoch) among the first k trials; {each} per method, pruned and failed ones "
        f"counted. Hollow marker: the recipe.{crowd(curves, 'kd')}"
    ]
    under = [
        f"{r.label} ({t.number(r.top1, 1)})"
        for pair, floor in floors.items()
        for r in starts[pair].itertuples()
        if r.top1 < floor
    ]
    parts += [f"Recipes below the axis: {t.joined(under)}."] if under else []
    best = studies["best"].max()
    never: Sequence[str] = [str(label) for _, label in best.index[best.isna()]]
    parts += [f"No complete trial: {t.joined(never)}."] if never else []
    return " ".join([*parts, commit])
