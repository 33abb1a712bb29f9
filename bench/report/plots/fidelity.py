"""Does a student take over the teacher's errors? How many of them it repeats, against its test top-1.

Agreement on all images is little more than accuracy: where the teacher is right, to agree with it is to be right.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.report import style
from bench.report import text as t
from bench.report.layout import AXIS_LEFT, GAP, HEIGHT, SMALL, at_right, fence, inches, limits, stacked
from bench.report.plots import place
from bench.report.plots.cost import NAMED
from bench.report.plots.predictions import TEACHER, Said, told
from bench.report.plots.ranking import (
    Order,
    Palette,
    crowd,
    dark_last,
    in_order,
    look,
    names,
    palettes,
    panels,
    seeds,
    span,
    unseen,
)

COLUMNS = ["pair", "label", "repeated", "value", "errors", "teacher_top1", "n", "mean_repeated", "top1"]


def data(runs: pd.DataFrame, said: Mapping[str, Said], ranks: Order) -> pd.DataFrame:
    """One row per run that has its predictions and its teacher's; empty where none has.

    Pair, label; repeated: share (%) of the test images that the teacher gets wrong on which the student names the same
    wrong class; value: test top-1 (%); errors: images that the teacher gets wrong; teacher_top1 (%); n, mean_repeated
    and top1 over the label's seeds. A teacher without an error has none to repeat: its runs are left out.
    """
    rows = []
    for pair, label, run in told(runs, said):
        if TEACHER in run and (wrong := run[TEACHER] != run["label"]).any():
            same, right = run["guess"] == run[TEACHER], run["guess"] == run["label"]
            levels = (100 * same[wrong].mean(), 100 * right.mean(), wrong.sum(), 100 * (1 - wrong.mean()))
            rows.append((pair, label, *map(float, levels)))
    out = pd.DataFrame(rows, columns=COLUMNS[:6])
    by = out.groupby(["pair", "label"], sort=False)
    means = by.agg(n=("value", "size"), mean_repeated=("repeated", "mean"), top1=("value", "mean")).reset_index()
    return in_order(out.merge(means, on=["pair", "label"]), ranks)[COLUMNS]


def figure(data: pd.DataFrame, baseline: str, commit: str = "") -> Figure:
    """One panel per pair, names beside the means. Raises `ValueError` without data."""
    if data.empty:
        raise ValueError("no finished run has its predictions and its teacher's: there is nothing to draw")
    parts, means = panels(data), data.drop_duplicates(["pair", "label"])
    floors, bright = {pair: fence(part["top1"]) for pair, part in panels(means).items()}, palettes(parts, baseline)
    wrong = " to ".join(dict.fromkeys(t.counted(n) for n in (data["errors"].min(), data["errors"].max())))
    caption = (
        f"Students repeat {span(means, 'mean_repeated', ' %')} of their teacher's errors. Across: of the {wrong} test "
        "images that the teacher gets wrong, the share on which the student names the same wrong class. "
        f"{seeds(data['n'])}; large markers: means, dots: seeds; dashed: the teacher's test top-1, of several "
        "their mean."
        f"{crowd(data, baseline, NAMED)}{unseen(means, 'top1', floors)} {commit}"
    )

    def panel(ax: Axes, pair: str, part: pd.DataFrame) -> None:
        _panel(ax, part[part["top1"] >= floors[pair]], bright[pair], float(part["teacher_top1"].mean()))

    heights, right = [1.35 * HEIGHT] * len(parts), 3 * GAP + inches("teacher", SMALL)
    across = "errors of the teacher that the student repeats (%)"
    return stacked(parts, heights, caption, panel, across, left=AXIS_LEFT, right=right)


def _panel(ax: Axes, part: pd.DataFrame, bright: Palette, teacher: float) -> None:
    rows, seen = part.drop_duplicates("label").set_index("label"), part[part["label"].isin(list(bright))]
    across, up = [*rows["mean_repeated"], *seen["repeated"]], [*rows["top1"], *seen["value"]]
    ax.set_xlim(*limits(across, min(across)))
    ax.set_ylim(*limits([*up, teacher], min(*up, teacher)))
    ax.set_ylabel("test top-1 (%)")
    ax.grid(axis="both")
    ax.axhline(teacher, color=style.INK, linewidth=0.8, linestyle=(0, (4, 2)), zorder=1.8)
    at_right(ax, teacher, "teacher", size=SMALL)
    for label in dark_last(rows.index, bright):
        (colour, marker), dark, own = look(label, bright), label in bright, part[part["label"] == label]
        if dark:
            dots: dict[str, Any] = {"markersize": 2.6, "markeredgewidth": 0, "alpha": 0.55, "zorder": 2.2}
            ax.plot(own["repeated"], own["value"], "o", color=colour, clip_on=False, **dots)
        edge: dict[str, Any] = {"markeredgecolor": "white", "markeredgewidth": 0.5, "clip_on": False}
        over: dict[str, Any] = {"color": colour, "markersize": 5.5 if dark else 4.0, "zorder": 2.5 + dark}
        ax.plot([rows.loc[label, "mean_repeated"]], [rows.loc[label, "top1"]], marker, **over, **edge)
    ((end, high),) = place.points(ax, [(ax.get_xlim()[1], teacher)])
    word = (end, high - SMALL / 2, end + 72 * (GAP + inches("teacher", SMALL)), high + SMALL / 2)
    taken = np.vstack([place.around(place.points(ax, seen[["repeated", "value"]]), 1.4), word])
    place.beside(ax, names(rows.reset_index(), "mean_repeated", "top1", bright), taken)
