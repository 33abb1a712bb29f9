"""Does agreeing with the teacher make a student accurate? Agreement on test images against test top-1."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.report import stats
from bench.report import text as t
from bench.report.layout import AXIS_LEFT, GAP, HEIGHT, fence, limits, sheet, styled
from bench.report.plots import place
from bench.report.plots.cost import NAMED
from bench.report.plots.ranking import (
    Order,
    Palette,
    bright_first,
    crowd,
    dark_last,
    in_order,
    look,
    name,
    palettes,
    panels,
    seeds,
    unseen,
)

LISTED = 4  # teachers whose accuracy a caption says one by one
AGREEMENT, TEACHER = "test/agreement", "test/teacher_top1"
COLUMNS = ["pair", "label", "seed", "agreement", "value", "n", "mean_agreement", "top1", "teacher_top1"]


def data(runs: pd.DataFrame, ranks: Order) -> pd.DataFrame:
    """One row per finished run whose agreement is known; empty where none is.

    Pair, label, seed, agreement and value (test top-1), both in %; n, mean_agreement and top1 over the label's seeds;
    teacher_top1, NaN where unknown.
    """
    if AGREEMENT not in runs or not runs.loc[runs["status"] == "finished", AGREEMENT].notna().any():
        return pd.DataFrame(columns=COLUMNS)
    kept = stats.usable(stats.usable(runs, AGREEMENT))
    kept = kept.assign(agreement=kept[AGREEMENT].astype(float), value=kept[stats.TOP1].astype(float))
    kept = kept.assign(teacher_top1=kept[TEACHER].astype(float) if TEACHER in kept else float("nan"))
    by = kept.groupby(["pair", "label"], sort=False)
    means = by.agg(n=("seed", "size"), mean_agreement=("agreement", "mean"), top1=("value", "mean")).reset_index()
    return in_order(kept.merge(means, on=["pair", "label"]).sort_values("seed", kind="stable"), ranks)[COLUMNS]


def figure(data: pd.DataFrame, baseline: str, commit: str = "") -> Figure:
    """One panel per pair, names beside the means. Raises `ValueError` without data."""
    if data.empty:
        raise ValueError("no finished run has its agreement with a teacher: there is nothing to draw")
    parts = panels(data)
    floors = {pair: fence(part.drop_duplicates("label")["top1"]) for pair, part in parts.items()}
    bright = palettes(parts, baseline)
    below = unseen(data.drop_duplicates(["pair", "label"]), "top1", floors)
    caption = (
        f"Share of test images on which student and teacher give the same class, against test top-1; "
        f"{seeds(data['n'])}. Large markers: means; dots: seeds.{_teachers(data)}{crowd(data, baseline, NAMED)}"
        f"{below} {commit}"
    )
    with styled():
        heights = [1.35 * HEIGHT] * len(parts)
        drawn, axes = sheet(heights, list(parts), caption, left=AXIS_LEFT, right=4 * GAP)
        for ax, (pair, part) in zip(axes, parts.items(), strict=True):
            _panel(ax, part[part["top1"] >= floors[pair]], bright[pair])
        axes[-1].set_xlabel("agreement with the teacher (%)")
    return drawn


def _teachers(data: pd.DataFrame) -> str:
    top1 = data["teacher_top1"].dropna().unique()
    known = [f"{t.number(one, 1)} %" for one in top1]
    if len(known) > LISTED:
        return f" {len(known)} teachers: {t.number(top1.min(), 1)} to {t.number(top1.max(), 1)} %."
    return f" Teacher{'s' * (len(known) > 1)}: {t.joined(known)}." if known else ""


def _panel(ax: Axes, part: pd.DataFrame, bright: Palette) -> None:
    rows, seen = part.drop_duplicates("label").set_index("label"), part[part["label"].isin(list(bright))]
    across, up = [*rows["mean_agreement"], *seen["agreement"]], [*rows["top1"], *seen["value"]]
    ax.set_xlim(*limits(across, min(across)))
    ax.set_ylim(*limits(up, min(up)))
    ax.set_ylabel("test top-1 (%)")
    ax.grid(axis="both")
    for label in dark_last(rows.index, bright):
        (colour, marker), dark, own = look(label, bright), label in bright, part[part["label"] == label]
        if dark:
            dots: dict[str, Any] = {"markersize": 2.6, "markeredgewidth": 0, "alpha": 0.55, "zorder": 2.2}
            ax.plot(own["agreement"], own["value"], "o", color=colour, clip_on=False, **dots)
        edge: dict[str, Any] = {"markeredgecolor": "white", "markeredgewidth": 0.5, "clip_on": False}
        over: dict[str, Any] = {"color": colour, "markersize": 5.5 if dark else 4.0, "zorder": 2.5 + dark}
        ax.plot([rows.loc[label, "mean_agreement"]], [rows.loc[label, "top1"]], marker, **over, **edge)
    first = [label for label in bright_first(rows.index, bright) if label in rows.index]
    names = [name(x, rows.loc[x, "mean_agreement"], rows.loc[x, "top1"], bright) for x in first]
    place.beside(ax, names, place.around(place.points(ax, seen[["agreement", "value"]]), 1.4))
