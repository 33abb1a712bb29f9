"""Best-of-k figure: the best of the first k trials by k, one line per method. What is drawn are frames of `trials`.

With few methods each line has its method's colour; with many, plain kd and the best few have and the others are grey.
Every line carries its name. Sizes are final, and texts are measured before they are placed, as in `figures`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bench.report import style
from bench.report import text as t
from bench.report.figures import AXIS, GAP, LINE, inches, styled, wrapped

FEW = 7  # lines that colour and name tell apart
BEST = 5  # of many methods, those that have a colour besides kd
HEIGHT = 2.3  # inches of a panel, more where its names need more
LEFT = 0.58  # inches of an axis' name and numbers
PALE = "#A6A6A6"
FAR = 3.0  # quartile ranges: values further below the first quartile than this are below the axis, too


def curve_figure(curves: pd.DataFrame, recipes: pd.DataFrame, commit: str = "", width: float = style.PAGE) -> Figure:
    """One panel per pair; hollow markers are the recipes, names stand at the lines' ends in the order of their values.

    curves: `trials.best_of_k`; recipes: `trials.recipes`. Raises `ValueError` where no trial is complete.
    """
    known = curves[curves["best"].notna()]
    if known.empty:
        raise ValueError("no trial is complete: there are no curves to draw")
    panels = [part for _, part in known.groupby("pair", sort=False)]
    starts = [recipes[recipes["pair"] == part["pair"].iloc[0]] for part in panels]
    floors = [fence([*ends(part)["best"], *start["top1"]]) for part, start in zip(panels, starts, strict=True)]
    heights = [max(HEIGHT, sum(map(_room, sizes(part).values()))) for part in panels]
    names = {inches(short(name), size) for part in panels for name, size in sizes(part).items()}
    lines = wrapped(_caption(curves, starts, floors, commit), width - 2 * GAP)
    with styled():
        figure, axes = stacked(heights, [str(part["pair"].iloc[0]) for part in panels], lines, width, max(names))
        for ax, part, start, floor in zip(axes, panels, starts, floors, strict=True):
            _panel(ax, part, start, floor)
        axes[-1].set_xlabel("trials k")
    return figure


def stacked(
    heights: Sequence[float], titles: Sequence[str], caption: Sequence[str], width: float, names: float
) -> tuple[Figure, list[Axes]]:
    """Axes of these heights one below the other, `names` inches of text at their right, a caption below; all in inches.

    Titles are shown where there are several.
    """
    foot, above = 2 * GAP + LINE * len(caption) + AXIS, (LINE + GAP) * (len(titles) > 1) + GAP
    left, right, between = GAP + LEFT, 5 * GAP + names, AXIS
    height = foot + sum(above + h for h in heights) + between * (len(heights) - 1)
    figure, top, axes = Figure(figsize=(width, height)), height, []
    FigureCanvasAgg(figure)
    for title, h in zip(titles, heights, strict=True):
        bottom = top - above - h
        axes.append(figure.add_axes((left / width, bottom / height, (width - left - right) / width, h / height)))
        if len(titles) > 1:
            figure.text(GAP / width, (top - GAP) / height, title.replace("->", " → "), weight="bold", va="top")
        axes[-1].set_ylabel("validation top-1 (%)")
        axes[-1].spines["bottom"].set_position(("outward", 3))
        axes[-1].grid(axis="y")
        top = bottom - between
    small: dict[str, Any] = {"size": style.SIZE - 1, "color": style.GREY, "linespacing": 1.3}
    figure.text(GAP / width, (foot - AXIS - GAP) / height, "\n".join(caption), va="top", **small)
    return figure, axes


def _panel(ax: Axes, part: pd.DataFrame, starts: pd.DataFrame, floor: float) -> None:
    bright, last = coloured(ends(part)), int(part["k"].max())
    ax.set_xlim(0.5, last + 0.25)
    ax.set_xticks(_ticks(last))
    ax.set_ylim(*limits([*part["best"], *starts["top1"]], floor))
    low = ax.get_ylim()[0]
    for name in dark_last(part["method"].unique(), bright):
        curve, start = part[part["method"] == name], starts[starts["method"] == name]
        (colour, marker), dark = look(name, bright), name in bright
        over: dict[str, Any] = {"color": colour, "zorder": 2.5 if dark else 2}
        ax.plot(curve["k"], curve["best"], drawstyle="steps-mid", linewidth=1.3 if dark else 0.6, **over)
        if dark:
            ax.plot(curve["k"].iloc[-1:], curve["best"].iloc[-1:], marker=marker, markersize=4.5, clip_on=False, **over)
        for at, top1 in zip(start["k"], start["top1"], strict=True):
            hollow: dict[str, Any] = {"markerfacecolor": "white", "markersize": 4.5 if dark else 2.5, "clip_on": False}
            shape, over["zorder"] = (marker, over["zorder"] + 1) if top1 >= low else (7, 4)  # 7: a caret down
            ax.plot([at], [max(top1, low)], marker=shape, markeredgewidth=0.9 if dark else 0.6, **hollow, **over)
    _names(ax, ends(part), sizes(part), bright)


def _names(ax: Axes, last: pd.DataFrame, size: dict[str, float], bright: Collection[str]) -> None:
    """Each line's name right of the axes, moved no further than it must to be clear of the others, and a thin line."""
    from sklearn.isotonic import isotonic_regression  # takes a second to import, and only a figure needs it

    last = last.sort_values("best", kind="stable")
    wide, high = ax.bbox.width / ax.figure.dpi, ax.bbox.height / ax.figure.dpi  # inches
    rooms = np.array([_room(size[name]) for name in last["method"]])
    stack = np.concatenate([[0.0], np.cumsum((rooms[1:] + rooms[:-1]) / 2)])  # places of names that touch
    low, top = ax.get_ylim()
    here = (last["best"].to_numpy(float).clip(low, top) - low) / (top - low)
    highest = max(0.0, high - stack[-1])
    there = (isotonic_regression(here * high - stack, y_min=0.0, y_max=highest) + stack) / high
    for row, y, at in zip(last.itertuples(), here, there, strict=True):
        name, dark = str(row.method), str(row.method) in bright
        colour = look(name, bright)[0]
        start = (row.k - ax.get_xlim()[0]) / (ax.get_xlim()[1] - ax.get_xlim()[0])
        leader: dict[str, Any] = {"linewidth": 0.5, "linestyle": (0, (1, 1)), "color": colour, "clip_on": False}
        ax.plot([start, 1, 1 + 3 * GAP / wide], [y, y, at], transform=ax.transAxes, **leader)
        text: dict[str, Any] = {"size": size[name], "color": colour if dark else style.GREY}
        ax.text(1 + 3.6 * GAP / wide, at, short(name), transform=ax.transAxes, va="center_baseline", **text)


def _ticks(last: int) -> list[int]:
    """1, the last, and round numbers between that do not touch them."""
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, last) if last <= 8 * step)
    return sorted({1, last, *(k for k in range(step, last, step) if min(k - 1, last - k) >= last / 16)})


def _room(size: float) -> float:
    """Inches from a name of that size to the next."""
    return 1.18 * size / 72


def ends(part: pd.DataFrame) -> pd.DataFrame:
    """Each method's last row: method, k, best; best first."""
    last = part.groupby("method", sort=False).last().reset_index()
    return last.sort_values(["best", "method"], ascending=[False, True], ignore_index=True)[["method", "k", "best"]]


def sizes(part: pd.DataFrame) -> dict[str, float]:
    """Points of each method's name: small for the grey ones."""
    last = ends(part)
    bright = coloured(last)
    return {str(name): style.SIZE if name in bright else style.SIZE - 2 for name in last["method"]}


def coloured(last: pd.DataFrame) -> list[str]:
    """The methods that have a colour: all of few, else plain kd and the best. last: `ends`."""
    names = [str(name) for name in last["method"]]
    return (
        names if len(names) <= FEW else [*(n for n in ("kd",) if n in names), *[n for n in names if n != "kd"][:BEST]]
    )


def look(name: str, bright: Collection[str]) -> tuple[str, str]:
    return style.looks(bright)[name] if name in bright else (PALE, style.look(name)[1])


def dark_last(names: Iterable[str], bright: Sequence[str]) -> list[str]:
    """In the order of drawing: what has a colour over what is grey, kd on top."""
    return sorted(names, key=lambda name: (name in bright, name == "kd"))


def fence(values: Iterable[float]) -> float:
    """Where an axis ends below: a value that is far out (Tukey's outer fence) would squeeze all others together."""
    known = np.array(list(values), float)
    first, third = np.quantile(known, [0.25, 0.75])
    inside = known[known >= first - FAR * max(third - first, 1.0)]
    return float(inside.min())


def limits(values: Iterable[float], floor: float) -> tuple[float, float]:
    """The axis from `floor` to the highest value, with a margin; of one value, a point around it."""
    high = max(values)
    pad = 0.05 * (high - floor) or 0.5
    return floor - pad, high + pad


def _caption(curves: pd.DataFrame, starts: Sequence[pd.DataFrame], floors: Sequence[float], commit: str) -> str:
    studies = curves.groupby(["pair", "method"], sort=False)
    low, high = int(studies.size().min()), int(studies.size().max())
    each = t.plural(high, "trial") if low == high else f"{low} to {high} trials"
    parts = [
        f"Best validation top-1 (last epoch) among the first k trials; {each} per method, pruned and failed ones "
        f"counted. Hollow marker: the recipe.{crowd(curves, 'the best')}"
    ]
    under = [
        f"{name} ({t.number(top1, 1)})"
        for start, floor in zip(starts, floors, strict=True)
        for name, top1 in zip(start["method"], start["top1"], strict=True)
        if top1 < floor
    ]
    parts += [f"Recipes below the axis: {t.joined(under)}."] if under else []
    never = [str(method) for (_, method), best in studies["best"].max().items() if np.isnan(best)]  # type: ignore[misc]
    parts += [f"No complete trial: {t.joined(never)}."] if never else []
    return " ".join([*parts, commit]).strip()


def crowd(frame: pd.DataFrame, which: str) -> str:
    """What the colours mean where not every method has its own."""
    many = frame.groupby("pair")["method"].nunique().max() > FEW
    kd = "kd and " if (frame["method"] == "kd").any() else ""
    return f" In colour: {kd}{which}; grey: the others." if many else ""


def short(name: str) -> str:
    """A row's name as a figure shows it: settings beyond what fits are cut."""
    return name if len(name) <= 24 else f"{name[:23]}…"
