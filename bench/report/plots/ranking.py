"""What all figures agree on: how accurate each row is, in which order rows come, and which of many have a colour."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from bench.report import stats, style
from bench.report import text as t
from bench.report.layout import short
from bench.report.plots.place import Name

Order = Mapping[str, Sequence[str]]
"""The labels of each pair, the most accurate first; pairs as the runs have them."""
Palette = Mapping[str, tuple[str, str]]
"""Colour and marker of each label that has a colour."""
FEW = 7  # rows that colour and name tell apart
BEST = 5  # of many rows, those that have a colour besides baseline and kd
PALE = "#A6A6A6"


def levels(runs: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Pair, label, n, top1 (test top-1, %), best first within a pair.

    Rows are compared on the seeds that they share with the baseline: top1 is the baseline's mean plus the mean paired
    difference, n counts shared seeds. With the same seeds everywhere that is the mean. The baseline, and a row that
    shares no seed with it, have their own mean.
    """
    own = stats.summary(runs).drop(columns=["sd", "half"]).rename(columns={"mean": "top1"})
    gain = stats.paired(runs, baseline)[["pair", "label", "n", "mean"]]
    gain = gain[gain["n"] > 0].rename(columns={"n": "shared"})
    base = own[own["label"] == baseline].set_index("pair")["top1"]
    out = own.merge(gain, on=["pair", "label"], how="left")
    compared, level = out["shared"].notna(), out["pair"].map(base).astype(float) + out["mean"]
    out["n"] = out["shared"].where(compared, out["n"]).astype(int)
    out["top1"] = level.where(compared, out["top1"])
    return stats.sort(out.drop(columns=["shared", "mean"]), ["top1", "label"], [False, True])


def order(runs: pd.DataFrame, baseline: str) -> dict[str, list[str]]:
    """The labels of each pair, the most accurate first."""
    return {str(pair): list(part["label"]) for pair, part in levels(runs, baseline).groupby("pair", sort=False)}


def in_order(frame: pd.DataFrame, ranks: Order) -> pd.DataFrame:
    """The frame's rows by pair and label in that order, else as they are; rows of others are left out."""
    places = {(pair, label): i for i, (pair, label) in enumerate((p, x) for p, names in ranks.items() for x in names)}
    at = pd.Series([places.get(key, -1) for key in zip(frame["pair"], frame["label"], strict=True)], index=frame.index)
    kept = frame.assign(_at=at.astype(int))
    return kept[kept["_at"] >= 0].sort_values("_at", kind="stable", ignore_index=True).drop(columns="_at")


def coloured(labels: Sequence[str], baseline: str) -> list[str]:
    """Of labels in their order, those that have a colour: all of few, else the baseline, plain kd and the best."""
    if len(labels) <= FEW:
        return list(labels)
    first = [name for name in dict.fromkeys((baseline, "kd")) if name in labels]
    return [*first, *[name for name in labels if name not in first][:BEST]]


def palettes(parts: Mapping[str, pd.DataFrame], baseline: str) -> dict[str, Palette]:
    """By pair, the colour and marker of each label that has a colour; a label has the same in all pairs."""
    bright = {pair: coloured(list(part["label"].unique()), baseline) for pair, part in parts.items()}
    looks = style.looks(sorted({label for labels in bright.values() for label in labels}))
    return {pair: {label: looks[label] for label in labels} for pair, labels in bright.items()}


def look(label: str, palette: Palette) -> tuple[str, str]:
    """Colour and marker; pale where the label has no colour of its own."""
    return palette.get(label, (PALE, style.look(label)[1]))


def name(label: str, x: float, y: float, palette: Palette) -> Name:
    """A row's name as `place` takes it: in its colour, dark enough to read, or small and grey."""
    must = label in palette
    colour = style.legible(palette[label][0]) if must else style.SOFT
    return Name(short(label), x, y, colour, style.SIZE if must else style.SIZE - 2, must)


def names(rows: pd.DataFrame, x: str, y: str, palette: Palette) -> list[Name]:
    """Of points, one per label; those that have a colour first, since their names choose their places first."""
    by = rows.set_index("label")
    order = [*[label for label in palette if label in by.index], *[label for label in by.index if label not in palette]]
    return [name(label, float(by.loc[label, x]), float(by.loc[label, y]), palette) for label in order]


def dark_last(labels: Iterable[str], palette: Palette) -> list[str]:
    """In the order of drawing: what has a colour over what is grey, kd on top."""
    return sorted(labels, key=lambda label: (label in palette, label == "kd"))


def crowd(frame: pd.DataFrame, baseline: str, named: str = "", best: str = "the best") -> str:
    """What the colours mean where not every row has its own; `named` says which of the grey ones have a name."""
    many = frame.groupby("pair")["label"].nunique().max() > FEW
    first = t.joined([*dict.fromkeys(name for name in (baseline, "kd") if name in set(frame["label"])), best])
    return f" In colour: {first}; grey: the others{named}." if many else ""


def seeds(counts: pd.Series[int]) -> str:
    """'n = 5 seeds', 'n = 3 to 5 seeds'."""
    low, high = int(np.min(counts)), int(np.max(counts))
    return f"n = {t.plural(high, 'seed')}" if low == high else f"n = {low} to {high} seeds"


def span(rows: pd.DataFrame, value: str, unit: str) -> str:
    """'from 79.3 % (crd) to 88.6 % (kd)': lowest and highest value of a frame that has a label in each row."""
    low, high = rows.loc[rows[value].idxmin()], rows.loc[rows[value].idxmax()]
    ends = [f"{t.number(float(row[value]), 1)}{unit}" for row in (low, high)]
    return f"from {ends[0]} ({low['label']}) to {ends[1]} ({high['label']})" if ends[0] != ends[1] else ends[0]


def panels(data: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The data of each pair."""
    return {str(pair): part for pair, part in data.groupby("pair", sort=False)}


def unseen(rows: pd.DataFrame, value: str, floors: Mapping[str, float]) -> str:
    """Which rows lie below the axis of their pair, for the caption. rows: one per pair and label."""
    low = rows[rows[value] < rows["pair"].map(floors)]
    names = [f"{label} ({t.number(level, 1)})" for label, level in zip(low["label"], low[value], strict=True)]
    return f" Below the axis: {t.joined(names)}." if names else ""
