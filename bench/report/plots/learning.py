"""Learning curves: validation top-1 by epoch, mean over seeds and a band from the lowest to the highest seed."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.report import stats
from bench.report import text as t
from bench.report.layout import fence, limits
from bench.report.plots import multiples
from bench.report.plots.ranking import PALE, Order, Palette, in_order, palettes, panels, seeds, span
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
    """Per pair a small panel for each row, or for those that have a colour. Raises `ValueError` without data."""
    if data.empty:
        raise ValueError(f"no finished run has {METRIC} by epoch: there are no curves to draw")
    parts = panels(data)
    looks = palettes(parts, baseline)
    last = data.groupby(["pair", "label"], sort=False).last().reset_index()
    caption = (
        f"Validation top-1 by epoch; after the last one {span(last, 'mean', ' %')}. Line: mean over seeds "
        f"({seeds(data['n'])}); band: lowest to highest seed; at the right: the last epoch. "
        f"{'Grey: all other rows. ' * (data['label'].nunique() > 1)}The first epochs lie below the axis. {commit}"
    )
    limited = {pair: limits(part["high"], floor(part, looks[pair])) for pair, part in parts.items()}

    def panel(ax: Axes, part: pd.DataFrame, label: str, colour: str) -> str:
        ax.set_ylim(*limited[str(part["pair"].iloc[0])])
        return _panel(ax, part, label, colour)

    return multiples.figure(parts, looks, caption, panel, "epoch", "validation top-1 (%)", 0.8)


def _panel(ax: Axes, part: pd.DataFrame, label: str, colour: str) -> str:
    last, own = int(part["epoch"].max()), part[part["label"] == label]
    ax.set_xlim(min(part["epoch"].min(), last - 1), last)
    ax.grid(axis="y")
    for _, other in part[part["label"] != label].groupby("label", sort=False):
        ax.plot(other["epoch"], other["mean"], color=PALE, linewidth=0.5, alpha=0.4, zorder=1.7)
    ax.fill_between(own["epoch"], own["low"], own["high"], color=colour, alpha=0.2, linewidth=0)
    ax.plot(own["epoch"], own["mean"], color=colour, linewidth=1.2, zorder=2.5)
    return f"{t.number(float(own['mean'].iloc[-1]), 1)} %"


def floor(part: pd.DataFrame, bright: Palette) -> float:
    """Where the axis begins (%): the first epochs and lines far below all others would squeeze the rest."""
    ends = part.groupby("label")["mean"].last()
    seen = part.loc[part["label"].isin(bright) & part["label"].isin(ends[ends >= fence(ends)].index), "mean"]
    return float(min(fence(ends), seen.quantile(BELOW)))
