"""The comparison as cells of text: what Markdown, LaTeX, HTML and the terminal write, each in its own way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pandas as pd

from bench.report import published, sentences
from bench.report import text as t
from bench.report.blocks import TIED, Column, Grid, Value

TO_BASELINE = ("step_ratio", "memory_ratio", "images_ratio")  # say nothing where there is no baseline to divide by
STRONG = ("label", "top1")
BOLD = (
    f"Bold: the best mean. {TIED}, or shaded: not distinguishable from it, by paired intervals that hold for all rows "
    "at once (Bonferroni, 95 %), which is not the same as equal: few seeds leave much undecided."
)
MEANINGS = {
    "top1": "test accuracy of the last epoch, mean over seeds ± half-width of the 95 % t interval.",
    "values": "where the row's hyper-parameters come from: a published recipe, or so many trials of tuning.",
    "call": "whether the last call of the suite asked for the row, or an earlier one with the same protocol and data; "
    "`kdbench report SUITE --only` shows the last call's rows alone.",
    "difference": "mean over seeds of the difference within a seed, percentage points, with its single 95 % t "
    "interval: right for one comparison that was chosen before looking, not for the best of many.",
    "to_reference": "the same difference to {reference}, with its single 95 % t interval.",
    "at_once": "the interval of the difference to {reference} that holds for all rows at once (Bonferroni over the "
    "pair's rows); the sentence at the top goes by it.",
    "p_best": "probability that the row's true mean is the highest of all rows that have finished every seed (t model, "
    "flat prior). It does not allow for luck: of many equal rows, too, one has a high value.",
    "rank": "interval of the row's true rank among these rows, 1 is best; 95 % by the same model, row by row.",
    "published": "test accuracy that others report for this method, these networks and this data set. "
    + published.MARKED,
    "distance": "ours minus that number, where data and protocol are the literature's; by the same choice of epoch "
    "(ours is then the best epoch on test, too), the last one where theirs is not said. ± is of ours alone.",
    "agreement": "share of test images on which student and teacher name the same class.",
    "nll": "test negative log-likelihood, nats per example.",
    "ece": "expected calibration error on test, 15 bins.",
    "step_ratio": "one training step with all that the method needs (views, teacher, its own part), relative to "
    "{baseline}; median over seeds of the ratio within a seed.",
    "memory_ratio": "weights, gradients and optimiser state of student and method, and what a step keeps for its "
    "backward pass; without teacher and batch; relative to {baseline}{held}.",
    "extra_params": "parameters besides the student's own.",
    "images_ratio": "training images seen, relative to {baseline}.",
    "best_on_validation": "test accuracy of the epoch that was best on the validation split.",
}


def _of_all_rows(rows: pd.DataFrame, reference: str) -> dict[str, tuple[str, list[str]]]:
    """Simultaneous intervals, the probability to be best, and the place among all rows."""
    texts = {}
    if rows["all_low"].notna().any():
        texts["at_once"] = (f"all rows at once [− {reference}]", _at_once(rows))
    if rows["p_best"].notna().any():
        texts["p_best"] = ("P(best)", [sentences.probability(p) for p in rows["p_best"]])
        ends = rows[["rank_low", "rank_high"]].itertuples(index=False)
        texts["rank"] = ("rank [95 %]", [t.ranks(low, high) for low, high in ends])
    return texts


def columns(rows: pd.DataFrame) -> dict[str, Column]:
    """One pair's rows as text, by key. Columns that say nothing are left out. rows: of `table.build`, one pair."""
    baseline = str(rows["baseline"].iloc[0])
    compared = rows["difference_n"].fillna(0).gt(0).any()
    width = t.decimals(rows["top1_half"])
    texts: dict[str, tuple[str, list[str]]] = {
        "label": ("method", [*rows["label"]]),
        "n": ("n", [str(n) for n in rows["n"]]),
        "top1": ("top-1 (%)", [t.level(r.top1, r.top1_half, r.n, width) for r in rows.itertuples()]),
    }
    if (rows["values"] != "recipe").any():
        texts["values"] = ("values", [str(text) for text in rows["values"]])
    if "call" in rows and rows["call"].eq("earlier").any():
        texts["call"] = ("call", [*rows["call"]])
    if compared:
        texts["difference"] = (f"− {baseline} [95 % CI]", _differences(rows, "difference", baseline))
    reference = str(rows["reference"].iloc[0])
    if reference != baseline and rows["to_reference_n"].fillna(0).gt(0).any():
        texts["to_reference"] = (f"− {reference} [95 % CI]", _differences(rows, "to_reference", reference))
    texts |= _of_all_rows(rows, reference)
    if rows["published"].notna().any():
        marked = zip(rows["published"].astype(float), rows["published_selection"], strict=True)
        texts["published"] = ("published (%)", [t.number(v, 2) + published.MARKS.get(rule, "") for v, rule in marked])
    if rows["distance"].notna().any():
        ends = rows[["distance", "distance_half"]].astype(float).itertuples(index=False)
        texts["distance"] = ("− published", [t.spread(value, half, 2) for value, half in ends])
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
            texts[key] = (heading, [write(float(value)) for value in rows[key].astype(float)])
    strong = [bool(best) for best in rows["best"]]
    tied = [bool(near) for near in rows["with_best"] & ~rows["best"]]
    return {
        key: Column(heading, cells, _values(rows, key), strong if key in STRONG else (), tied if key == "label" else ())
        for key, (heading, cells) in texts.items()
    }


def grid(rows: pd.DataFrame, keys: Sequence[str] | None = None, title: str = "") -> Grid:
    """One pair's table; keys: which columns, in this order, of those that there are (by default all)."""
    out = Grid(columns(rows), title)
    out = out.chosen(keys) if keys else out
    marks = "published" in out.columns and rows["published_selection"].isin(published.MARKS).any()
    captions = [BOLD] * bool(rows["with_best"].any()) + [published.MARKED] * bool(marks)
    return replace(out, captions=captions)


def meanings(rows: pd.DataFrame) -> dict[str, str]:
    """Heading and meaning of every column that some pair's table has."""
    there: dict[str, str] = {}
    for _, part in rows.groupby("pair", sort=False):
        there |= {key: column.heading for key, column in columns(part).items()}
    baseline, reference = (str(rows[key].iloc[0]) for key in ("baseline", "reference"))
    own = rows.loc[rows["label"] == baseline, "memory_mb"].astype(float).dropna()
    held = f" ({t.number(own.iloc[0], 1)} MiB)" if len(own) == 1 else ""
    texts = {key: text.format(baseline=baseline, reference=reference, held=held) for key, text in MEANINGS.items()}
    return {there[key].partition(" [")[0].partition(" (")[0]: text for key, text in texts.items() if key in there}


def _differences(rows: pd.DataFrame, name: str, to: str) -> list[str]:
    part = rows[[name, f"{name}_low", f"{name}_high", f"{name}_n"]].astype(float).fillna({f"{name}_n": 0})
    places = _places(part[f"{name}_low"], part[f"{name}_high"])
    texts = [t.difference(mean, low, high, int(n), places) for mean, low, high, n in part.itertuples(index=False)]
    own = "baseline" if name == "difference" else t.NONE
    return [own if label == to else cell for label, cell in zip(rows["label"], texts, strict=True)]


def _at_once(rows: pd.DataFrame) -> list[str]:
    ends = rows[["all_low", "all_high"]].astype(float)
    places = _places(ends["all_low"], ends["all_high"])
    return [t.interval(low, high, places) if low == low else t.NONE for low, high in ends.itertuples(index=False)]


def _places(low: pd.Series[float], high: pd.Series[float]) -> int:
    return t.decimals((high - low) / 2, [*low, *high])


def _values(rows: pd.DataFrame, key: str) -> list[Value]:
    """The baseline stands at 0 among the differences to it."""
    if key in ("label", "values", "call"):
        return list(rows[key])
    values = rows[{"at_once": "all_low", "rank": "rank_low"}.get(key, key)].astype(float)
    return list(values.mask(rows["label"] == rows["baseline"], 0.0) if key == "difference" else values)
