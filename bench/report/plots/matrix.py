"""Every row against every other (a multiple-comparison matrix): mean paired difference, and which are distinguishable.

A mean depends on its two rows alone, so it stays as it is when other methods join; what is distinguishable is judged by
intervals that hold for all comparisons of a pair at once. With few rows a cell holds its numbers; with many, colour and
sign, and the numbers are in the data.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, ListedColormap, Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bench.report import simultaneous, stats, style
from bench.report import text as t
from bench.report.layout import AXIS, GAP, LINE, SMALL, inches, sheet, short, styled
from bench.report.plots.ranking import panels, seeds

COLUMNS = ["pair", "row", "column", "n", "mean", "low", "high", "apart"]
ROW, LEAST, MOST = 0.34, 0.115, 0.24  # inches of a cell's height: with an interval; without, at least and at most
TINY = style.SIZE - 2.5  # points of an interval
ENDS = ("#D45E00", "#0071B2")  # nearly the first hues, which a page would change in the dark, below numbers
SHADES = LinearSegmentedColormap.from_list("difference", [ENDS[0], "#FFFFFF", ENDS[1]])
EQUAL = style.PALE_FIELD
FAINT = 0.22  # of the full colour: the smallest difference that is distinguishable


def data(runs: pd.DataFrame) -> pd.DataFrame:
    """Pair, row, column, n shared seeds, mean of row minus column (points of test top-1), low, high, apart.

    Both directions of every two labels of a pair, the label with the largest mean difference to all others first.
    low, high: single 95 % t interval (NaN with one seed); apart: the interval that holds for all comparisons of a pair
    at once (`simultaneous.intervals`, every two labels once) does not contain 0. Labels without a shared seed: no row.
    """
    parts = []
    for pair, part in stats.usable(runs).groupby("pair", sort=False):
        by = part.pivot(index="seed", columns="label", values=stats.TOP1).astype(float)
        parts.append(_cells({str(name): by[name].to_numpy() for name in by.columns}).assign(pair=pair))
    return pd.concat(parts, ignore_index=True)[COLUMNS]


def _cells(values: Mapping[str, NDArray[np.float64]]) -> pd.DataFrame:
    """All rows of one pair. values: of each label [seeds], NaN where it lacks the seed."""
    cells: dict[str, dict[str, tuple[int, float, float]]] = {name: {} for name in values}
    family: dict[str, NDArray[np.float64]] = {}
    for one, other in itertools.combinations(values, 2):
        d = values[one] - values[other]
        d = d[np.isfinite(d)]
        n, mean, _, half = stats.moments(d).values()
        if n > 1:
            family[f"{one}\n{other}"] = d
        if n:
            cells[one][other], cells[other][one] = (n, mean, half), (n, -mean, half)
    lead = {name: sum(mean for _, mean, _ in row.values()) / max(1, len(row)) for name, row in cells.items()}
    names = sorted(values, key=lambda name: (-round(lead[name], 9), name))
    rows = [(a, b, *cells[a][b]) for a in names for b in names if b in cells[a]]
    out = pd.DataFrame(rows, columns=["row", "column", "n", "mean", "half"]).astype({"mean": float, "half": float})
    out = out.assign(low=out["mean"] - out["half"], high=out["mean"] + out["half"])
    judged = simultaneous.intervals(family)
    decided = set(judged.loc[judged["verdict"].isin(("better", "worse")), "label"])
    keys = zip(out["row"], out["column"], strict=True)
    return out.assign(apart=[bool({f"{a}\n{b}", f"{b}\n{a}"} & decided) for a, b in keys])


def figure(data: pd.DataFrame, commit: str = "") -> Figure:
    """One matrix per pair. Raises `ValueError` without data."""
    if data.empty:
        raise ValueError("no two rows share a seed: there is nothing to compare")
    parts = panels(data)
    names = {pair: list(dict.fromkeys([*part["row"], *part["column"]])) for pair, part in parts.items()}
    longest = max((short(label) for labels in names.values() for label in labels), key=inches)
    most = max(len(labels) for labels in names.values())
    cell = (style.PAGE - 4 * GAP - inches(longest)) / most
    numbers = max(inches(text) for part in parts.values() for text in _means(part)) + GAP / 2 < cell
    size = style.SIZE if numbers else min(style.SIZE, 72 * max(cell, LEAST) / 1.15)
    left = 2 * GAP + inches(longest, size)
    cell, across = (style.PAGE - 2 * GAP - left) / most, numbers and inches(longest) + GAP / 2 < cell
    intervals = numbers and max(inches(text, TINY) for text in _intervals(data)) < cell - GAP / 2
    tall = ROW if intervals else min(MOST, max(cell, LEAST))
    above, foot = GAP / 2 + (LINE if across else inches(longest, size)), LINE + GAP if numbers else AXIS + LINE
    with styled():
        heights, gaps = [tall * len(labels) for labels in names.values()], {"between": GAP, "axis": foot}
        caption = _caption(data, numbers, commit)
        drawn, axes = sheet(heights, list(parts), caption, left=left, right=2 * GAP, above=above, **gaps)
        for ax, (pair, part) in zip(axes, parts.items(), strict=True):
            at = {label: i for i, label in enumerate(names[pair])}
            cells = part.assign(x=part["column"].map(at), y=part["row"].map(at))
            _panel(ax, cells, names[pair], scale(data))
            _name(ax, names[pair], size, across)
            if numbers:
                _write(ax, cells, scale(data), intervals)
            else:
                _signs(ax, cells, scale(data), 72 * min(tall, cell))
        _foot(drawn, axes[-1], scale(data), bar=not numbers)
    return drawn


def scale(data: pd.DataFrame) -> float:
    """The difference (points) that has the full colour: three times the usual one, or the largest judged one."""
    known = data.loc[data["apart"], "mean"].abs()
    return min(3 * float(data["mean"].abs().median()), float(known.max())) or 1.0 if len(known) else 1.0


def shade(mean: float, scale: float) -> float:
    """Place of a difference on the colour scale, in [-1, 1]: never so faint that it seems to be none."""
    return float(np.sign(mean) * (FAINT + (1 - FAINT) * min(1.0, abs(mean) / scale)))


def _panel(ax: Axes, cells: pd.DataFrame, names: Sequence[str], scale: float) -> None:
    edges, grid = np.arange(len(names) + 1) - 0.5, np.full((2, len(names), len(names)), np.nan)
    grid[cells["apart"].astype(int), cells["y"], cells["x"]] = [shade(mean, scale) for mean in cells["mean"]]
    line: dict[str, Any] = {"edgecolors": "white", "linewidth": 0.8 if len(names) < 15 else 0.4}
    for values, colours in zip(grid, (ListedColormap([EQUAL]), SHADES), strict=True):
        ax.pcolormesh(edges, edges, np.ma.masked_invalid(values), cmap=colours, norm=Normalize(-1, 1), **line)
    ax.set_xlim(-0.5, len(names) - 0.5)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.spines[:].set_visible(False)


def _name(ax: Axes, names: Sequence[str], size: float, across: bool) -> None:
    ax.xaxis.tick_top()
    ax.set_xticks(range(len(names)), [short(name) for name in names], rotation=0 if across else 90, size=size)
    ax.set_yticks(range(len(names)), [short(name) for name in names], size=size)
    ax.tick_params(length=0, pad=3)


def _write(ax: Axes, cells: pd.DataFrame, scale: float, intervals: bool) -> None:
    """In each cell the mean, and its interval where there is room; bold where distinguishable."""
    for row, mean, interval in zip(cells.itertuples(), _means(cells), _intervals(cells), strict=True):
        colour = _on(float(row.mean), scale) if row.apart else style.INK
        look: dict[str, Any] = {"ha": "center", "va": "center_baseline", "color": colour}
        ax.text(row.x, row.y - 0.16 * intervals, mean, weight="bold" if row.apart else "normal", **look)
        if intervals:
            ax.text(row.x, row.y + 0.24, interval, size=TINY, **look)


def _signs(ax: Axes, cells: pd.DataFrame, scale: float, cell: float) -> None:
    """In each cell that is distinguishable + or −, since colour should not be the only sign. cell: points."""
    for better, marker in ((True, "+"), (False, "_")):
        some = cells[cells["apart"] & ((cells["mean"] > 0) == better)]
        look: dict[str, Any] = {"s": (0.42 * cell) ** 2, "marker": marker, "linewidths": 0.6}
        ax.scatter(some["x"], some["y"], color=[_on(mean, scale) for mean in some["mean"]], **look)


def _on(mean: float, scale: float) -> str:
    """The colour of what is written on a difference's colour."""
    return style.ON_DARK if abs(shade(mean, scale)) > 0.7 else style.ON_LIGHT


def _foot(figure: Figure, ax: Axes, scale: float, *, bar: bool) -> None:
    """What a cell is; with `bar`, which colour is which difference."""
    wide, high = figure.get_size_inches()
    box = ax.get_position()
    middle, down = (box.x0 + box.x1) / 2, box.y0 * high - GAP
    what = "row minus column, test top-1 (percentage points)"
    x = min(max(middle, (inches(what) / 2 + GAP) / wide), 1 - (inches(what) / 2 + GAP) / wide)
    if bar:
        key = figure.add_axes((middle - 0.75 / wide, (down - LINE) / high, 1.5 / wide, 0.7 * LINE / high))
        edges, last = scale * np.linspace(-1, 1, 101), t.number(scale, t.decimals([scale]))
        shades = [shade(mean, scale) for mean in (edges[1:] + edges[:-1]) / 2]
        key.pcolormesh(edges, [0, 1], [shades], cmap=SHADES, norm=Normalize(-1, 1))
        key.set_yticks([])
        key.set_xticks([-scale, 0, scale], [f"−{last} or less", "0", f"+{last} or more"], size=SMALL)
        key.tick_params(length=0, pad=2)
        key.spines[:].set_visible(False)
        down -= 2 * LINE + GAP / 2
    figure.text(x, down / high, what, ha="center", va="top")


def _means(part: pd.DataFrame) -> list[str]:
    places = t.decimals((part["high"] - part["low"]) / 2)
    return [t.signed(mean, places) for mean in part["mean"]]


def _intervals(part: pd.DataFrame) -> list[str]:
    """Each with its own decimals: those of the whole matrix would make the widest decide whether there is room."""
    return [_interval(row.low, row.high, row.n) for row in part.itertuples()]


def _interval(low: float, high: float, n: int) -> str:
    return t.interval(low, high, t.places(low, high)) if np.isfinite(low) else f"(n={n})"


def _caption(data: pd.DataFrame, numbers: bool, commit: str) -> str:
    told, n = data[data["low"].notna()], len(data) // 2
    pale = "pale: not distinguishable" if numbers else "pale, without sign: not distinguishable"
    judged = (
        f"Coloured: distinguishable by 95 % t intervals that hold for all comparisons of a pair at once "
        f"({int(told['apart'].sum()) // 2} of {n}); {pale}."
        if len(told)
        else "With one seed nothing is distinguishable."
    )
    return f"Mean difference of row and column over their shared seeds, {seeds(data['n'])}. {judged} {commit}"
