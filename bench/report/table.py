"""The comparison as a table: its numbers (`build`), as CSV and for the terminal.

Pages and LaTeX are written from `columns.grid` of the same rows.
"""

from __future__ import annotations

from collections.abc import Collection

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from bench.report import distance, simultaneous, stats
from bench.report.blocks import TIED, Grid
from bench.report.columns import grid

KEYS = ["pair", "label"]
ENDS = {"n": "_n", "mean": "", "low": "_low", "high": "_high", "p": "_p", "p_holm": "_p_holm"}
LEVELS = {"agreement": "test/agreement", "nll": "test/nll", "ece": "test/ece"}
LEVELS |= {
    "memory_mb": "cost/memory_mb",
    "extra_params": "cost/extra_params",
    "best_on_validation": "test/top1_best_epoch_on_validation",
}
RATIOS = {"step_ratio": "cost/step_alone_ms", "memory_ratio": "cost/memory_mb", "images_ratio": "cost/images_seen"}
PUBLISHED = {"reported": "published", "selection": "published_selection", "source": "published_source"}
PUBLISHED |= {"distance": "distance", "half": "distance_half"}
TERMINAL = ("label", "n", "top1", "difference", "to_reference", "step_ratio")


def build(frame: pd.DataFrame, baseline: str | None = None, published: pd.DataFrame | None = None) -> pd.DataFrame:
    """One row per pair and label, best mean difference to the baseline first, those without a finished run last.

    Columns: pair, label, baseline, n, top1, top1_half, difference (n, low, high, p, p_holm), to_kd (n, low, high; NaN
    where there is no kd besides the baseline), agreement, nll, ece, memory_mb (MiB), step_ratio, memory_ratio,
    extra_params, images_ratio, best_on_validation, published (%, its selection and source), distance (ours - published,
    with half, NaN where they do not compare), values (where the hyper-parameters come from), with_best (not
    distinguishable from the best by intervals that hold for all rows at once, or the best itself), reference (of
    `stats.choose_reference`), to_reference (n, low, high, p, p_holm: by single intervals), all_low, all_high and
    standing (to the reference, by `simultaneous.to_reference`), best (of the largest mean difference, where there are
    two seeds), p_best, rank_low, rank_high (`simultaneous.places`). Ratios are to the baseline of the pair. published:
    of `distance.beside`.
    """
    baseline = baseline or stats.choose_baseline(frame)
    reference = stats.choose_reference(frame, baseline)
    kd = "kd" if baseline != "kd" and not _finished(frame, stats.TOP1, "kd").empty else ""
    tuned = frame["tuned_trials"] if "tuned_trials" in frame else pd.Series(float("nan"), index=frame.index)
    values = ["recipe" if trials != trials else f"tuned, {int(trials)} trials" for trials in tuned.astype(float)]
    parts = [
        stats.summary(frame).rename(columns={"mean": "top1", "half": "top1_half"}).drop(columns="sd"),
        _paired(frame, baseline, "difference"),
        _paired(frame, kd, "to_kd"),
        *(_metric(frame, metric, name) for name, metric in LEVELS.items()),
        *(_metric(frame, metric, name, baseline) for name, metric in RATIOS.items()),
        _published(published),
        frame[KEYS].assign(values=values).drop_duplicates(KEYS),
    ]
    at_once = simultaneous.to_reference(frame, reference).rename(columns={"low": "all_low", "high": "all_high"})
    late = [  # columns that came later stand behind those that there were
        _paired(frame, reference, "to_reference"),
        at_once.rename(columns={"verdict": "standing"})[[*KEYS, "all_low", "all_high", "standing"]],
        simultaneous.places(frame),
    ]
    out = frame[KEYS].drop_duplicates(ignore_index=True).assign(baseline=baseline)
    for part in parts:
        out = out.merge(part, on=KEYS, how="left")
    out = out.fillna({"n": 0}).astype({"n": int})
    key = out["difference"].where(out["label"] != baseline, 0.0).where(out["n"] > 0)
    out = stats.sort(out.assign(_key=key), ["_key", "top1"], [False, False])
    groups = [part for _, part in out.groupby("pair", sort=False)]
    near = pd.concat([_with_best(frame, part) for part in groups])
    first = out.index.isin([part.index[0] for part in groups])
    out = out.drop(columns="_key").assign(with_best=near, reference=reference, best=near & first)
    for part in late:
        out = out.merge(part, on=KEYS, how="left")
    return out


def _paired(frame: pd.DataFrame, baseline: str, name: str) -> pd.DataFrame:
    """Differences to a baseline, with the ends of their intervals; none without one."""
    rows = stats.paired(frame, baseline) if baseline else pd.DataFrame(columns=[*KEYS, *ENDS])
    return rows[[*KEYS, *ENDS]].rename(columns={column: f"{name}{end}" for column, end in ENDS.items()})


def _finished(frame: pd.DataFrame, metric: str, label: str = "") -> pd.DataFrame:
    """The finished runs that have a number for `metric`, of `label` alone where it is given."""
    there = frame[metric].notna() & frame["status"].eq("finished") if metric in frame else frame["status"].isna()
    return frame[there & frame["label"].eq(label)] if label else frame[there]


def _metric(frame: pd.DataFrame, metric: str, name: str, baseline: str = "") -> pd.DataFrame:
    """Each row's mean, or its ratio to the baseline's; none where no run, or none of the baseline, has a number."""
    if _finished(frame, metric, baseline).empty:
        return pd.DataFrame(columns=[*KEYS, name])
    rows = stats.ratios(frame, baseline, metric) if baseline else stats.summary(frame, metric)
    return rows[[*KEYS, "ratio" if baseline else "mean"]].set_axis([*KEYS, name], axis="columns")


def _published(rows: pd.DataFrame | None) -> pd.DataFrame:
    """The number that stands in the table, with how far ours is from it; its half-width only where it compares."""
    if rows is None or rows.empty:
        return pd.DataFrame(columns=[*KEYS, *PUBLISHED.values()])
    one = distance.chosen(rows)
    one = one.assign(half=one["half"].where(one["distance"].notna()))
    return one[[*KEYS, *PUBLISHED]].rename(columns=PUBLISHED)


def _with_best(frame: pd.DataFrame, rows: pd.DataFrame) -> pd.Series[bool]:
    """Rows of one pair that are not distinguishable from its first row, and that row; none with one seed."""
    best, pair = rows[["label", "pair"]].iloc[0]
    near = simultaneous.tied(frame[frame["pair"] == pair], best) if rows["n"].iloc[0] else None
    return rows["label"].isin([] if near is None else [best, *near])


def calls(frame: pd.DataFrame, rows: pd.DataFrame, earlier: Collection[str]) -> list[str]:
    """By row of `build`: "last" where the last call of the suite asked for one of its runs, else "earlier"."""
    asked = frame.loc[~frame["fingerprint"].isin(earlier), KEYS]
    asked_rows = set(asked.itertuples(index=False, name=None))
    return ["last" if key in asked_rows else "earlier" for key in rows[KEYS].itertuples(index=False, name=None)]


def csv(table: pd.DataFrame) -> str:
    """The numbers, unrounded."""
    return table.to_csv(index=False, lineterminator="\n")


def rich(table: pd.DataFrame) -> list[Table]:
    """One table per pair for the terminal, narrow enough for 80 columns at usual names; the CSV has every column."""
    marked = f"; bold: the best mean, {TIED}: not distinguishable from it"
    return [
        terminal(
            grid(rows, TERMINAL, str(pair)),
            f"± and [ ]: single 95 % t intervals over seeds{marked * bool(rows['with_best'].any())}",
            wrapped=("difference", "to_reference"),
        )
        for pair, rows in table.groupby("pair", sort=False)
    ]


def terminal(shown: Grid, caption: str, wrapped: Collection[str] = ()) -> Table:
    """A table for the terminal; wrapped: columns that take two lines where room is short, so that names stay whole."""
    out = Table(title=Text(shown.title) if shown.title else None, title_justify="left", caption=Text(caption))
    out.collapse_padding = True
    out.box, out.pad_edge, out.show_edge, out.caption_justify = box.SIMPLE_HEAD, False, False, "left"
    for i, (key, column) in enumerate(shown.columns.items()):
        heading = Text(column.heading.replace(" [95 % CI]", ""))
        fixed = key not in (*wrapped, "label", "method")
        out.add_column(heading, justify="right" if i else "left", no_wrap=fixed, overflow="fold")
    for row in shown.rows:
        texts = [Text(f"{cell.text} {TIED}" if cell.tied and i == 0 else cell.text) for i, cell in enumerate(row)]
        out.add_row(*texts, style="bold" if row[0].strong else "")
    return out
