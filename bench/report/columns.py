"""The comparison as cells of text: what Markdown, LaTeX, HTML and the terminal write, each in its own way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bench.report import published
from bench.report import text as t

Columns = dict[str, tuple[str, list[str]]]
"""key -> (heading, one text per row)."""

TO_BASELINE = ("step_ratio", "memory_ratio", "images_ratio")  # say nothing where there is no baseline to divide by
STRONG = ("label", "top1")
BOLD = (
    "Bold: not distinguishable from the best row (the 95 % interval of the paired difference to it contains 0; "
    "not corrected for the number of methods)."
)
MEANINGS = {
    "top1": "test accuracy of the last epoch, mean over seeds ± half-width of the 95 % t interval.",
    "values": "where the row's hyper-parameters come from: a published recipe, or so many trials of tuning.",
    "difference": "mean over seeds of the difference within a seed, percentage points, with its 95 % t interval.",
    "to_kd": "the same difference to kd.",
    "published": "test accuracy that others report for this method, these networks and this data set. "
    + published.MARKED,
    "distance": "ours minus that number, where data and protocol are the literature's; by the same choice of epoch "
    "(ours is then the best epoch on test, too), the last one where theirs is not said. ± is of ours alone.",
    "agreement": "share of test images on which student and teacher name the same class.",
    "nll": "test negative log-likelihood, nats per example.",
    "ece": "expected calibration error on test, 15 bins.",
    "step_ratio": "one training step with all that the method needs (views, teacher, its own part), relative to "
    "{base}; median over seeds of the ratio within a seed.",
    "memory_ratio": "weights, gradients and optimiser state of student and method, and what a step keeps for its "
    "backward pass; without teacher and batch; relative to {base}{held}.",
    "extra_params": "parameters besides the student's own.",
    "images_ratio": "training images seen, relative to {base}.",
    "best_on_validation": "test accuracy of the epoch that was best on the validation split.",
}


@dataclass(frozen=True)
class Grid:
    """A table of text, row by row; the first column names the row, all others are read as numbers."""

    title: str
    keys: list[str]
    heads: list[str]
    cells: list[list[str]]
    strong: list[list[bool]]  # cells in bold
    values: list[list[float | str]]  # what a cell is sorted by: a number (NaN where there is none), or its text
    captions: list[str]


def columns(rows: pd.DataFrame) -> Columns:
    """Cells of one pair's rows as text. Columns that say nothing are left out. rows: of `table.build`, one pair."""
    base = str(rows["baseline"].iloc[0])
    compared = rows["difference_n"].fillna(0).gt(0).any()
    width = t.decimals(rows["top1_half"])
    out = {
        "label": ("method", [str(name) for name in rows["label"]]),
        "n": ("n", [str(n) for n in rows["n"]]),
        "top1": ("top-1 (%)", [t.level(r.top1, r.top1_half, r.n, width) for r in rows.itertuples()]),
    }
    if (rows["values"] != "recipe").any():
        out["values"] = ("values", [str(text) for text in rows["values"]])
    if compared:
        out["difference"] = (f"− {base} [95 % CI]", _differences(rows, "difference", base))
    if rows["to_kd_n"].fillna(0).gt(0).any():
        out["to_kd"] = ("− kd [95 % CI]", _differences(rows, "to_kd", "kd"))
    if rows["published"].notna().any():
        marked = zip(rows["published"].astype(float), rows["published_selection"], strict=True)
        out["published"] = ("published (%)", [t.number(v, 2) + published.MARKS.get(rule, "") for v, rule in marked])
    if rows["distance"].notna().any():
        out["distance"] = ("− published", _distances(rows))
    plain: dict[str, tuple[str, Callable[[float], str]]] = {
        "agreement": ("agreement (%)", lambda v: t.number(v, 1)),
        "nll": ("NLL", lambda v: t.number(v, 3)),
        "ece": ("ECE (%)", lambda v: t.number(v, 1)),
        "step_ratio": ("step time", t.times),
        "memory_ratio": ("memory", t.times),
        "extra_params": ("extra params", t.counted),
        "images_ratio": ("images", lambda v: t.times(v, 0 if v == round(v, 0) else 2)),
        "best_on_validation": ("top-1, epoch by val. (%)", lambda v: t.number(v, width)),
    }
    for key, (heading, write) in plain.items():
        if (rows[key].notna() & (compared or key not in TO_BASELINE)).any():
            out[key] = (heading, [write(float(value)) for value in rows[key].astype(float)])
    return out


def grid(rows: pd.DataFrame, keys: Sequence[str] | None = None) -> Grid:
    """One pair's table; keys: which columns, in this order, of those that there are (by default all)."""
    cells = columns(rows)
    chosen = [key for key in keys or cells if key in cells]
    pair = str(rows["pair"].iloc[0])
    return Grid(
        title=pair,
        keys=chosen,
        heads=[cells[key][0] for key in chosen],
        cells=[[cells[key][1][i] for key in chosen] for i in range(len(rows))],
        strong=[[bool(bold) and key in STRONG for key in chosen] for bold in rows["with_best"]],
        values=[[_value(row, key) for key in chosen] for row in rows.to_dict("records")],
        captions=captions(rows, chosen),
    )


def captions(rows: pd.DataFrame, keys: Sequence[str]) -> list[str]:
    """What bold and marks mean, where the table has any."""
    marks = "published" in keys and rows["published_selection"].isin(published.MARKS).any()
    return [BOLD] * bool(rows["with_best"].any()) + [published.MARKED] * bool(marks)


def meanings(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """Heading and meaning of every column that some pair's table has."""
    there: dict[str, str] = {}
    for _, part in rows.groupby("pair", sort=False):
        there |= {key: heading for key, (heading, _) in columns(part).items() if key in MEANINGS}
    base = str(rows["baseline"].iloc[0])
    own = rows.loc[rows["label"] == base, "memory_mb"].astype(float).dropna()
    held = f" ({t.number(own.iloc[0], 1)} MiB)" if len(own) == 1 else ""
    texts = {key: text.format(base=base, held=held) for key, text in MEANINGS.items()}
    return [(there[key].partition(" [")[0].partition(" (")[0], text) for key, text in texts.items() if key in there]


def _differences(rows: pd.DataFrame, name: str, to: str) -> list[str]:
    part = rows[[name, f"{name}_low", f"{name}_high", f"{name}_n"]].astype(float).fillna({f"{name}_n": 0})
    low, high = part[f"{name}_low"], part[f"{name}_high"]
    places = t.decimals((high - low) / 2, [*low, *high])
    texts = [t.difference(mean, low, high, int(n), places) for mean, low, high, n in part.itertuples(index=False)]
    own = "baseline" if name == "difference" else t.NONE
    return [own if label == to else cell for label, cell in zip(rows["label"], texts, strict=True)]


def _distances(rows: pd.DataFrame) -> list[str]:
    """'−0.12 ± 0.31'; without ± where one seed gives no interval."""
    part = rows[["distance", "distance_half"]].astype(float)
    spread = [f" ± {t.number(half, 2)}" if half == half else "" for half in part["distance_half"]]
    return [t.signed(value, 2) + text for value, text in zip(part["distance"], spread, strict=True)]


def _value(row: dict[Any, Any], key: str) -> float | str:
    """The baseline stands at 0 among the differences to it."""
    if key == "difference" and row["label"] == row["baseline"]:
        return 0.0
    value = row[key]
    return value if isinstance(value, str) else float("nan") if value is None else float(value)
