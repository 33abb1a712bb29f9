"""Whose errors are whose: test images by who of teacher and student is right, and whether errors are the same."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bench.report import style
from bench.report import text as t
from bench.report.layout import AXIS, GAP, LINE, SMALL, at_right, head_right, inches, name_room, rows, short, stacked
from bench.report.plots.predictions import TEACHER, Said, told
from bench.report.plots.ranking import Order, in_order, panels, seeds, span

BOTH = "both_right"
KINDS = {
    "only_teacher_right": ("only teacher right", style.HUES[1]),
    "only_student_right": ("only student right", style.HUES[2]),
    "same_error": ("same error", style.HUES[0]),
    "other_error": ("different errors", style.HUES[4]),
}
COLUMNS = ["pair", "label", "n", "images", BOTH, *KINDS]
ROW, BAR = 0.22, 0.72  # inches of a row; of it, the bar


def data(runs: pd.DataFrame, said: Mapping[str, Said], ranks: Order) -> pd.DataFrame:
    """One row per label: n seeds, images (test images of all seeds), and five shares of them in %, which sum to 100.

    both_right, only_teacher_right, only_student_right, same_error and other_error (both wrong, with the same class and
    with different ones). Empty where no run has predictions and a teacher's.
    """
    sums: dict[tuple[str, str], list[list[int]]] = {}
    for pair, label, run in told(runs, said):
        if TEACHER in run:
            sums.setdefault((pair, label), []).append(counts(run))
    out = []
    for (pair, label), each in sums.items():
        total = np.sum(each, axis=0)
        out.append((pair, label, len(each), int(total.sum()), *(100 * total / total.sum())))
    return in_order(pd.DataFrame(out, columns=COLUMNS), ranks)


def counts(run: Said) -> list[int]:
    """Images by kind: both right, then `KINDS`."""
    student, teacher = run["guess"] == run["label"], run[TEACHER] == run["label"]
    wrong, same = ~student & ~teacher, run["guess"] == run[TEACHER]
    kinds = (student & teacher, teacher & ~student, student & ~teacher, wrong & same, wrong & ~same)
    return [int(kind.sum()) for kind in kinds]


def figure(data: pd.DataFrame, commit: str = "") -> Figure:
    """A stacked bar per row, what both get right as a number beside it. Raises `ValueError` without data."""
    if data.empty:
        raise ValueError("no finished run has its predictions and its teacher's: there is nothing to draw")
    parts = panels(data)
    caption = (
        f"Test images on which teacher and student are both right: {span(data, BOTH, ' %')}, pooled over seeds "
        f"({seeds(data['n'])}). Bars: the rest, which one of them or both get wrong (same error: both say the same "
        f"wrong class). {commit}"
    )
    left = name_room(data["label"].unique())
    right = 2 * GAP + max(inches("both right", SMALL), inches("100.0"))
    squares = [({"marker": "s", "markersize": 5, "color": colour}, said) for said, colour in KINDS.values()]
    heights = [ROW * len(part) for part in parts.values()]
    room: dict[str, Any] = {"left": left, "right": right, "above": LINE, "between": AXIS, "keys": [squares]}
    most = float(data[list(KINDS)].sum(axis=1).max())
    return stacked(parts, heights, caption, partial(_panel, most=most), "test images (%)", **room)


def _panel(ax: Axes, _: str, part: pd.DataFrame, most: float) -> None:
    rows(ax, [short(label) for label in part["label"]])
    ax.set_xlim(0, most)
    ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    per_inch = most / (ax.bbox.width / ax.figure.dpi)
    start = np.zeros(len(part))
    for kind, (_, colour) in KINDS.items():
        share = part[kind].to_numpy(float)
        ax.barh(np.arange(len(part)), share, BAR, left=start, color=colour, edgecolor="white", linewidth=0.5)
        for y, (at, value) in enumerate(zip(start, share, strict=True)):
            text = t.number(value, 1)
            if (inches(text, SMALL) + GAP / 2) * per_inch < value:
                look: dict[str, Any] = {"size": SMALL, "ha": "center", "va": "center_baseline"}
                ax.text(at + value / 2, y, text, color=_on(colour), **look)
        start += share
    for y, value in enumerate(part[BOTH]):
        at_right(ax, y, t.number(value, 1))
    head_right(ax, "both right")


def _on(colour: str) -> str:
    """White, which a page darkens where it lightens the bars, on what is dark; else a dark that stays."""
    return "white" if style.luminance(colour) < 0.2 else style.ON_LIGHT
