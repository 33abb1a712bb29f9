"""What tuning was worth: each method by its recipe and by the chosen values, on the same seeds."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.report import gain, style
from bench.report import text as t
from bench.report.blocks import MANY
from bench.report.figures import DENSE
from bench.report.layout import GAP, at_right, bulk, inches, name_room, rows, short, stacked
from bench.report.plots.ranking import panels, seeds

ROW = 0.22  # inches; of more than MANY rows figures.DENSE
WORDS = {"better": "tuned is better", "open": "not distinguishable", "worse": "tuned is worse"}
COLUMNS = ["pair", "row", "n", "recipe", "tuned", "difference", "low", "high", "family_low", "family_high", "verdict"]


def data(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per pair and method of `gain.gain`, the largest difference first; empty where nothing ran both ways.

    recipe, tuned: mean test top-1 (%); difference, low, high: paired 95 % t interval (points); family_low, family_high,
    verdict: by simultaneous intervals, the methods of a pair being the family.
    """
    if not {"tuned", "tuned_row"} <= set(runs.columns) or (found := gain.gain(runs)).empty:
        return pd.DataFrame(columns=COLUMNS)
    return found.assign(verdict=found["standing"].replace("equal", "open"))[COLUMNS]


def of_file(path: Path) -> pd.DataFrame:
    """`data` of a runs.csv, in which a tuned row is named after its recipe's, with 'tuned' in brackets."""
    runs = pd.read_csv(path, dtype={"tuned": bool})
    names = runs["label"].str.replace(r",tuned\)$", ")", regex=True).str.replace(r"\(tuned\)$", "", regex=True)
    return data(runs.assign(tuned_row=names.where(runs["tuned"]), tuned_trials=float("nan")))


def figure(data: pd.DataFrame, commit: str = "") -> Figure:
    """A row per method: recipe hollow, chosen values filled. Raises `ValueError` without data."""
    if data.empty:
        raise ValueError("no method ran both tuned and by its recipe: there is no gain to draw")
    parts = panels(data)
    texts = {pair: _texts(part) for pair, part in parts.items()}
    left = name_room(data["row"])
    right = 2 * GAP + max(inches(text) for own in texts.values() for text in own)
    counts = {word: int(data["verdict"].eq(verdict).sum()) for verdict, word in WORDS.items()}
    caption = (
        f"Test top-1 by the published recipe and by tuned values: {t.plural(len(data), 'method')}, "
        f"{t.joined([f'{word} for {n}' for word, n in counts.items() if n])}. Hollow: recipe; filled: tuned; thin "
        f"line: interval of the paired difference that holds for all methods of a pair at once (95 %, Bonferroni, "
        f"{seeds(data['n'])}), drawn from the recipe's mean, which decides the colour; at the right: each method's own "
        f"95 % t interval. {commit}"
    )
    row = ROW if max(map(len, parts.values())) <= MANY else DENSE
    looks = [({"marker": "o", "markersize": 5, **_face(style.INK, hollow=True)}, "recipe")]
    verdicts = [verdict for verdict in WORDS if verdict in set(data["verdict"])]
    looks += [({"marker": "o", "markersize": 5, **_face(style.VERDICTS[v])}, WORDS[v]) for v in verdicts]
    heights, room = [row * len(part) for part in parts.values()], {"left": left, "right": right, "between": 4 * GAP}
    draw = partial(_panel, texts=texts)
    return stacked(parts, heights, caption, draw, "test top-1 (%)", keys=[looks], **room)


def _face(colour: str, hollow: bool = False) -> dict[str, Any]:
    return {"markerfacecolor": "white" if hollow else colour, "markeredgecolor": colour, "markeredgewidth": 0.9}


def _texts(part: pd.DataFrame) -> list[str]:
    places = t.decimals((part["high"] - part["low"]) / 2, [*part["low"], *part["high"]])
    return [t.difference(row.difference, row.low, row.high, int(row.n), places) for row in part.itertuples()]


def _panel(ax: Axes, pair: str, part: pd.DataFrame, texts: dict[str, list[str]]) -> None:
    rows(ax, [short(str(name)) for name in part["row"]])
    ends = [part["recipe"] + part[end].astype(float) for end in ("family_low", "family_high")]
    low, high = bulk(pd.concat([part["recipe"], part["tuned"], *(end.dropna() for end in ends)]).astype(float))
    low, high = (
        min(low, part["recipe"].min(), part["tuned"].min()),
        max(high, part["recipe"].max(), part["tuned"].max()),
    )
    pad = 0.04 * (high - low) or 0.5
    ax.set_xlim(low - pad, high + pad)
    for y, (row, start, end, text) in enumerate(zip(part.itertuples(), *ends, texts[pair], strict=True)):
        colour = style.VERDICTS[str(row.verdict)]
        ax.plot([start, end], [y, y], color=colour, linewidth=0.6)
        ax.plot([row.recipe, row.tuned], [y, y], color=colour, linewidth=2, solid_capstyle="butt")
        over: dict[str, Any] = {"markersize": 5, "clip_on": False}
        ax.plot([row.recipe], [y], "o", zorder=3, **over, **_face(style.INK, hollow=True))
        ax.plot([row.tuned], [y], "o", zorder=3.1, **over, **_face(colour))
        at_right(ax, y, text)
