"""Learning curves: validation top-1 by epoch, mean over seeds and a band from the lowest to the highest seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.report import stats, style
from bench.report.layout import AXIS_LEFT, GAP, HEIGHT, fence, inches, limits, sheet, short, styled
from bench.report.plots import place
from bench.report.plots.ranking import (
    Order,
    Palette,
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
from tracking.frame import epochs_frame
from tracking.record import Record

METRIC = "validation/top1"
COLUMNS = ["pair", "label", "epoch", "n", "mean", "low", "high"]
BELOW = 0.25  # of the epochs of the lines in colour, those whose mean may lie below the axis


def data(runs: pd.DataFrame, records: Sequence[Record], ranks: Order) -> pd.DataFrame:
    """Pair, label, epoch, n seeds, mean, low, high (validation top-1, %; lowest and highest seed) of finished runs."""
    kept = stats.usable(runs)
    known = set(kept["fingerprint"])
    told = epochs_frame(record for record in records if record.header["fingerprint"] in known)
    told = told.loc[(told["metric"] == METRIC) & told["value"].notna(), ["fingerprint", "epoch", "value"]]
    long = kept[["fingerprint", "pair", "label"]].merge(told, on="fingerprint")
    by = long.astype({"value": float}).groupby(["pair", "label", "epoch"], sort=False)["value"]
    out = by.agg(n="size", mean="mean", low="min", high="max").reset_index()
    return in_order(out.sort_values("epoch", kind="stable"), ranks)[COLUMNS]


def figure(data: pd.DataFrame, baseline: str, commit: str = "") -> Figure:
    """One panel per pair, names at the lines' ends. Raises `ValueError` without data."""
    if data.empty:
        raise ValueError(f"no finished run has {METRIC} by epoch: there are no curves to draw")
    parts = panels(data)
    bright = palettes(parts, baseline)
    heights = [max(HEIGHT, _names_height(part, bright[pair])) for pair, part in parts.items()]
    floors = {pair: floor(part, bright[pair]) for pair, part in parts.items()}
    last = data.groupby(["pair", "label"], sort=False).last().reset_index()
    longest = max(inches(short(label), style.SIZE) for label in data["label"].unique())
    caption = (
        f"Validation top-1 after each epoch. Line: mean over seeds ({seeds(data['n'])}); band: lowest to highest seed. "
        f"The first epochs lie below the axis.{crowd(data, baseline)}{unseen(last, 'mean', floors)} {commit}"
    )
    with styled():
        drawn, axes = sheet(heights, list(parts), caption, left=AXIS_LEFT, right=5 * GAP + longest)
        for ax, (pair, part) in zip(axes, parts.items(), strict=True):
            _panel(ax, part, bright[pair], floors[pair])
        axes[-1].set_xlabel("epoch")
    return drawn


def _panel(ax: Axes, part: pd.DataFrame, bright: Palette, floor: float) -> None:
    last = int(part["epoch"].max())
    ax.set_xlim(min(part["epoch"].min(), last - 1), last)
    ax.set_ylim(*limits(part["high"], floor))
    ax.set_ylabel("validation top-1 (%)")
    ax.grid(axis="y")
    ends = []
    for label in dark_last(part["label"].unique(), bright):
        curve, dark, colour = part[part["label"] == label], label in bright, look(label, bright)[0]
        over: dict[str, Any] = {"color": colour, "zorder": 2.5 if dark else 2}
        if dark:
            ax.fill_between(curve["epoch"], curve["low"], curve["high"], alpha=0.11, linewidth=0, **over)
        ax.plot(curve["epoch"], curve["mean"], linewidth=1.2 if dark else 0.5, **over)
        end = curve.iloc[-1]
        ends.append(name(label, end["epoch"], end["mean"], bright))
    place.at_ends(ax, ends)


def floor(part: pd.DataFrame, bright: Palette) -> float:
    """Where the axis begins (%): the first epochs and lines far below all others would squeeze the rest."""
    ends = part.groupby("label")["mean"].last()
    seen = part.loc[part["label"].isin(bright) & part["label"].isin(ends[ends >= fence(ends)].index), "mean"]
    return float(min(fence(ends), seen.quantile(BELOW)))


def _names_height(part: pd.DataFrame, bright: Palette) -> float:
    """Inches that the names of all lines take."""
    return sum(place.room(name(label, 0, 0, bright).size) for label in part["label"].unique())
