"""The main figure: paired differences to a baseline, or accuracies. What is drawn is a frame, how is `dot_figure`."""

from __future__ import annotations

import textwrap
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.report import simultaneous, stats, style
from bench.report import text as t
from bench.report.blocks import MANY
from bench.report.layout import FAR, GAP, LINE, at_right, bulk, inches, key, rows, sheet, short, styled

ROW, DENSE = 0.30, 0.15  # inches; a row of few, and of more than `blocks.MANY`
MEAN, DOTS = 0.12, 0.25  # of a row: the interval above its middle, the seeds below
NEAR = 2.0  # of many rows, quartile ranges that the axis goes beyond the quartiles of seeds and intervals
WIDER = 0.2  # of the axis: how far simultaneous intervals, which are much wider where seeds are few, may stretch it
WORDS = {"better": "better", "open": "not distinguishable", "worse": "worse"}


def difference_data(frame: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """One row per dot, best label first: pair, label, seed, value (points above the baseline), n, mean, low, high.

    wide_low, wide_high: of the simultaneous interval (`simultaneous.intervals`, the rows of a pair are the family);
    verdict: what it says.
    """
    long = stats.differences(frame, baseline).rename(columns={"value": "level", "difference": "value"})
    means = stats.paired(frame, baseline)[["pair", "label", "n", "mean", "low", "high"]]
    data = long[["pair", "label", "seed", "value"]].merge(means, on=["pair", "label"])
    wide = simultaneous.to_reference(frame, baseline).rename(columns={"low": "wide_low", "high": "wide_high"})
    wide["verdict"] = wide["verdict"].replace("equal", "open")
    return _ordered(data.merge(wide[["pair", "label", "wide_low", "wide_high", "verdict"]], on=["pair", "label"]))


def level_data(frame: pd.DataFrame) -> pd.DataFrame:
    """The same of test top-1 itself (%), without verdicts: for a suite in which nothing can be compared."""
    means = stats.summary(frame)
    means = means.assign(low=means["mean"] - means["half"], high=means["mean"] + means["half"])
    long = stats.usable(frame)[["pair", "label", "seed", stats.TOP1]].rename(columns={stats.TOP1: "value"})
    return _ordered(long.merge(means.drop(columns=["sd", "half"]), on=["pair", "label"]))


def _ordered(data: pd.DataFrame) -> pd.DataFrame:
    return stats.sort(data, ["mean", "label", "seed"], [False, True, True])


def difference_figure(data: pd.DataFrame, baseline: str, commit: str = "") -> Figure:
    """Paired differences to the baseline: a row per method, a dot per seed, both intervals, zero line."""
    if data.empty:
        raise ValueError(f"no seed is shared with '{baseline}': there are no differences to draw")
    caption = (
        f"Test top-1 beside {baseline}: {_counts(data)}. "
        f"{_seeds(data)}, each paired with {baseline} of the same seed (same initialisation, batches, augmentation). "
        "Marker and thick line: mean and 95 % t interval of a row by itself; thin line: simultaneous interval, right "
        f"for all rows of a pair at once with 95 % (Bonferroni), which decides the colour; dots: seeds.{_cut(data)} "
        f"{commit}"
    )
    return dot_figure(data, f"difference to {baseline} in test top-1 (percentage points)", caption, zero=baseline)


def level_figure(data: pd.DataFrame, commit: str = "") -> Figure:
    """Test top-1 by method: a dot per seed, mean and 95 % t interval."""
    caption = f"{_seeds(data)}. Dots: seeds; marker and line: mean and 95 % t interval.{_cut(data)} {commit}"
    return dot_figure(data, "test top-1 (%)", caption)


def _counts(data: pd.DataFrame) -> str:
    """'1 better, 2 worse, 33 not distinguishable', of rows; those of several pairs together."""
    verdicts = data.drop_duplicates(["pair", "label"])["verdict"]
    counts = {word: int(verdicts.eq(verdict).sum()) for verdict, word in WORDS.items()}
    texts = [f"{n} {word}" for word, n in counts.items() if n]
    few = data["n"].min() < simultaneous.FEW and verdicts.isin(("better", "worse")).any()
    return f"{t.plural(len(verdicts), 'row')}, {t.joined(texts)}{', as far as so few seeds suggest' * bool(few)}"


def _seeds(data: pd.DataFrame) -> str:
    low, high = int(data["n"].min()), int(data["n"].max())
    return f"n = {t.plural(high, 'seed')} per row" if low == high else f"n = {low} to {high} seeds per row"


def _cut(data: pd.DataFrame) -> str:
    """Says that there is something beyond the axis."""
    low, high = _limits(data)
    values = data[[name for name in ("value", "low", "high", "wide_low", "wide_high") if name in data]]
    beyond = (values.min().min() < low) or (values.max().max() > high)
    return " The axis ends where most rows do: arrows and lines at its edge go on." if beyond else ""


def dot_figure(data: pd.DataFrame, axis: str, caption: str, zero: str | None = None) -> Figure:
    """One panel per pair with a row per label; `zero` names the zero line.

    Every text is measured before anything is placed: names and numbers get the room that they take, the axes the rest.
    """
    panels = [part for _, part in data.groupby("pair", sort=False)]
    many = max(part["label"].nunique() for part in panels) > MANY
    texts = [_numbers(part, zero) for part in panels]
    names = {str(label): short(str(label)) if many else _name(str(label)) for label in data["label"].unique()}
    left = 2 * GAP + max(inches(line) for name in names.values() for line in name.split("\n"))
    right = 2 * GAP + max(inches(text) for part in texts for text in part.values())
    row = DENSE if many else ROW
    heights, titles = [row * part["label"].nunique() for part in panels], [str(part["pair"].iloc[0]) for part in panels]
    with styled():
        above = LINE * (zero is not None) + (LINE + GAP) * many
        keyed = LINE + GAP if zero is not None else 0.0
        figure, axes = sheet(heights, titles, caption, left=left, right=right, above=above, between=2 * GAP, top=keyed)
        for ax, part, text in zip(axes, panels, texts, strict=True):
            ax.set_xlim(*_limits(data))
            ax.tick_params(labelbottom=part is panels[-1], top=many, labeltop=many)
            _panel(ax, part, [names[label] for label in text], list(text.values()))
            if zero is not None:
                ax.axvline(0, color=style.INK, linewidth=0.8, zorder=1.5)
                place: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
                up = 3 + 72 * (LINE + GAP) * many
                ax.annotate(zero, (0, 1), (0, up), ha="center", size=style.SIZE - 1, color=style.SOFT, **place)
        if zero is not None:
            key(figure, [(_mark(style.VERDICTS[verdict]), WORDS[verdict]) for verdict in _seen(data)], LINE / 2 + GAP)
        axes[-1].set_xlabel(axis)
    return figure


def _seen(data: pd.DataFrame) -> list[str]:
    return [verdict for verdict in WORDS if verdict in set(data["verdict"])]


def _mark(colour: str) -> dict[str, Any]:
    return {"marker": "o", "markersize": 5, "color": colour, "markeredgecolor": "white", "markeredgewidth": 0.5}


def _panel(ax: Axes, part: pd.DataFrame, names: list[str], texts: list[str]) -> None:
    """Names left, dots and intervals in the middle, the numbers themselves right; the axes' limits are final."""
    means = part.drop_duplicates("label")
    rows(ax, names, -MEAN)
    (low, high), dense = ax.get_xlim(), len(names) > MANY
    for y, (row, text) in enumerate(zip(means.itertuples(), texts, strict=True)):
        colour = style.VERDICTS[str(row.verdict)] if "verdict" in part else style.INK
        values = part.loc[part["label"] == row.label, "value"]
        dots: dict[str, Any] = {"markersize": 2.0 if dense else 2.8, "alpha": 0.55, "markeredgewidth": 0}
        inside = values[values.between(low, high)]
        ax.plot(inside, [y + DOTS] * len(inside), "o", color=colour, clip_on=False, **dots)
        line: dict[str, Any] = {"color": colour, "solid_capstyle": "butt"}
        if "verdict" in part:
            ax.plot([row.wide_low, row.wide_high], [y - MEAN] * 2, linewidth=0.6, **line)
        ax.plot([row.low, row.high], [y - MEAN] * 2, linewidth=1.6 if dense else 2.0, **line)
        over: dict[str, Any] = {"clip_on": False, "zorder": 3, "markersize": 4 if dense else 5}
        lowest, highest = (row.low, row.high) if row.n > 1 else (row.mean, row.mean)
        for arrow, end, beyond in (("<", low, lowest < low), (">", high, highest > high)):
            if beyond:
                ax.plot([end], [y - MEAN], **{**_mark(colour), "marker": arrow, **over})
        if low <= row.mean <= high:
            ax.plot([row.mean], [y - MEAN], **{**_mark(colour), **over})
        at_right(ax, y - MEAN, text)


def _numbers(part: pd.DataFrame, zero: str | None) -> dict[str, str]:
    """The text right of each row: the difference with its interval, or the level with its half-width."""
    means = part.drop_duplicates("label")
    places = t.decimals((means["high"] - means["low"]) / 2, [*means["low"], *means["high"]] if zero is not None else [])
    if zero is None:
        return {str(r.label): t.level(r.mean, r.high - r.mean, r.n, places) for r in means.itertuples()}
    return {str(r.label): t.difference(r.mean, r.low, r.high, r.n, places) for r in means.itertuples()}


def _limits(data: pd.DataFrame) -> tuple[float, float]:
    """The axis: what most rows span, somewhat more where simultaneous intervals take it, and 0 of differences."""
    many = data.groupby("pair")["label"].nunique().max() > MANY
    low, high = bulk(pd.concat([data["value"], data["low"].dropna(), data["high"].dropna()]), NEAR if many else FAR)
    if "verdict" in data:
        low, high = min(low, 0.0), max(high, 0.0)
        more = WIDER * (high - low)
        low = max(low - more, min(low, data["wide_low"].min()))
        high = min(high + more, max(high, data["wide_high"].max()))
    pad = 0.04 * (high - low) or 0.5
    return low - pad, high + pad


def _name(label: str) -> str:
    """A long row name in two lines, broken before its settings."""
    if len(label) <= 20:
        return label
    first, bracket, rest = label.partition("(")
    if not bracket:
        return textwrap.fill(label, 20)
    return f"{first}\n{textwrap.shorten(bracket + rest.replace(',', ', '), 26, placeholder='…)')}"
