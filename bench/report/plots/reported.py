"""What others published against what was measured here, for rows that have published numbers on the same pair."""

from __future__ import annotations

from functools import partial
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.report import distance, published, style
from bench.report import text as t
from bench.report.layout import (
    AXIS,
    GAP,
    LINE,
    SMALL,
    at_right,
    head_right,
    inches,
    limits,
    name_room,
    rows,
    short,
    stacked,
)
from bench.report.plots.ranking import Order, in_order, panels, seeds
from bench.report.published import BEST, LAST, UNSAID

MARKS = {LAST: "s", BEST: "^", UNSAID: "D"}
SAID = {LAST: "last epoch", BEST: "best epoch on test", UNSAID: "choice of epoch not said"}
MINE, THEIRS = style.HUES[1], style.HUES[0]
ROW = 0.24  # inches
COLUMNS = ["pair", "label", "source", "selection", "protocol", "reported", "n", "ours", "low", "high", "difference"]


def data(near: pd.DataFrame, ranks: Order) -> pd.DataFrame:
    """One row per row of the suite that keeps to its recipe, and different published number; empty where there is none.

    Pair, label, source, selection and protocol of the number, reported (top-1, %), n seeds, ours (by the same choice of
    epoch, or of the last where theirs is not said; NaN where that was not measured), low, high (95 % t interval),
    difference (ours - reported, points; NaN where protocol or data are not the same). near: `distance.beside`, which
    has the order.
    """
    near = near.assign(low=near["ours"] - near["half"], high=near["ours"] + near["half"], difference=near["distance"])
    return in_order(near, ranks)[COLUMNS]


def figure(data: pd.DataFrame, commit: str = "") -> Figure:
    """A row per label, ours and theirs joined by a line. Raises `ValueError` without data."""
    if data.empty:
        raise ValueError("nothing is published on these pairs and this dataset: there is nothing to compare")
    parts = panels(data)
    texts = {pair: _texts(part) for pair, part in parts.items()}
    heading = "ours − published"
    right = 3 * GAP + max(inches(heading, SMALL), *(inches(x) for part in texts.values() for x in part.values()))
    left = name_room(data["label"].unique())
    heights = [ROW * part["label"].nunique() for part in parts.values()]
    room: dict[str, float] = {"left": left, "right": right, "above": LINE, "between": AXIS}
    draw = partial(_panel, texts=texts, heading=heading)
    return stacked(parts, heights, _caption(data, commit), draw, "test top-1 (%)", keys=_keys(data), **room)


def _caption(data: pd.DataFrame, commit: str) -> str:
    one_kind = data["difference"].notna().all()
    dash = "" if one_kind else f"; {t.NONE} where protocol or data are not the same, and the numbers do not compare"
    return (
        "Published test top-1 and ours by the same choice of epoch (the last one where theirs is not said), "
        f"{seeds(data['n'].dropna())}; a number that several sources print stands once. Bar: 95 % t interval of ours. "
        f"At the right: the difference along the line{dash}. {commit}"
    )


def _texts(part: pd.DataFrame) -> dict[str, str]:
    """By label, how far ours is from the first published number."""
    first = distance.chosen(part)
    low, high = first["low"] - first["reported"], first["high"] - first["reported"]
    places = t.decimals((high - low) / 2, [*low, *high])
    each = zip(first["label"], first["difference"], low, high, first["n"].fillna(0), strict=True)
    return {label: t.difference(mean, a, b, int(n) if mean == mean else 0, places) for label, mean, a, b, n in each}


def _keys(data: pd.DataFrame) -> list[list[tuple[dict[str, Any], str]]]:
    """What markers mean: a line for ours, a line for theirs."""
    there = set(data["selection"])
    mine = [LAST, BEST] if (data["ours"].notna() & (data["selection"] == BEST)).any() else [LAST]
    theirs = [rule for rule in published.RULES if rule in there]
    return [
        [(_look(rule, mine=True), f"ours, {SAID[rule]}") for rule in mine],
        [(_look(rule, mine=False), f"{'published, ' * (rule == theirs[0])}{SAID[rule]}") for rule in theirs],
    ]


def _look(rule: str, *, mine: bool) -> dict[str, Any]:
    colour = MINE if mine else THEIRS
    face = {"color": colour} if mine else {"markerfacecolor": "white", "markeredgecolor": colour}
    return {"marker": MARKS[rule], "markersize": 4.0 if rule == UNSAID else 4.5, "markeredgewidth": 0.9, **face}


def _panel(ax: Axes, pair: str, part: pd.DataFrame, texts: dict[str, dict[str, str]], heading: str) -> None:
    labels = list(part["label"].unique())
    rows(ax, [short(label) for label in labels])
    ends = part[["reported", "ours", "low", "high"]].astype(float).stack().dropna()
    ax.set_xlim(*limits(ends, float(ends.min())))
    for y, label in enumerate(labels):
        each = part[part["label"] == label]
        first = each.iloc[0]
        ax.plot([first["low"], first["high"]], [y, y], color=MINE, linewidth=2.4, alpha=0.35, zorder=2)
        ax.plot([first["reported"], first["ours"]], [y, y], color=style.INK, linewidth=0.8, zorder=2.5)
        for rule, value in zip(each["selection"], each["reported"], strict=True):
            ax.plot([value], [y], zorder=3, linestyle="none", **_look(rule, mine=False))
        ours = each[each["ours"].notna()].replace({"selection": {UNSAID: LAST}}).drop_duplicates("selection")
        for rule, value in zip(ours["selection"], ours["ours"], strict=True):
            ax.plot([value], [y], zorder=3.5, linestyle="none", **_look(rule, mine=True))
        at_right(ax, y, texts[pair][label])
    head_right(ax, heading)
