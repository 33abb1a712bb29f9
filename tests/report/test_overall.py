from __future__ import annotations

import io
import math

import numpy as np
import pandas as pd
import pytest

from bench.report import markdown, overall, stats, table
from tests.prose import Prose
from tests.report.made_up import frame, run

PAIRS = ("a->b", "c->d", "e->f")
BY_HAND = {  # pair -> label -> top-1 by seed
    "a->b": {"vanilla": (70.0, 71.0, 72.0), "kd": (71.0, 73.0, 73.0), "dkd": (72.0, 72.0, 74.0)},
    "c->d": {"vanilla": (60.0, 60.0, 61.0), "kd": (62.0, 61.0, 63.0), "dkd": (60.0, 63.0, 63.0)},
}


def by_hand() -> pd.DataFrame:
    return pd.DataFrame(
        [
            run(label, seed, top1, pair)
            for pair, rows in BY_HAND.items()
            for label, values in rows.items()
            for seed, top1 in enumerate(values)
        ]
    )


def written(across_pairs: pd.DataFrame, rows: pd.DataFrame) -> str:
    """The table and what it means."""
    grid = overall.grid(across_pairs, rows)
    return "\n\n".join([markdown.grid(grid), *grid.captions]) + "\n"


def test_differences_are_averaged_over_pairs_within_a_seed() -> None:
    runs = by_hand()
    out = overall.build(runs, table.build(runs)).set_index("label")
    kd = np.array([(1 + 2) / 2, (2 + 1) / 2, (1 + 2) / 2])
    half = 4.302652729911275 * kd.std(ddof=1) / math.sqrt(3)  # t(0.975, 2)
    want = [3, kd.mean(), kd.mean() - half, kd.mean() + half]
    assert out.loc["kd", ["n", "difference", "low", "high"]].tolist() == pytest.approx(want)
    assert out.loc["kd", "a->b"] == pytest.approx(217 / 3) and out.loc["kd", "pairs"] == 2
    # a->b: dkd 72.67, kd 72.33; c->d: kd 62 and dkd 62 are tied
    assert out["rank"].to_dict() == {"dkd": 1.25, "kd": 1.75, "vanilla": 3.0}


def test_means_that_are_equal_but_for_rounding_share_a_rank() -> None:
    values = {"vanilla": (0.1, 0.2, 0.3), "kd": (0.3, 0.2, 0.1)}
    assert np.mean(values["vanilla"]) != np.mean(values["kd"])
    runs = pd.DataFrame([run(k, s, x, p) for p in PAIRS[:2] for k, row in values.items() for s, x in enumerate(row)])
    assert overall.build(runs, table.build(runs))["rank"].tolist() == [1.5, 1.5]


def test_order_is_by_difference_and_the_baseline_stands_at_zero() -> None:
    runs = pd.concat([frame(pair=pair, seeds=2) for pair in PAIRS], ignore_index=True)
    out = overall.build(runs, table.build(runs))
    key = out["difference"].where(out["label"] != "vanilla", 0.0)
    assert key.is_monotonic_decreasing and len(out) == 6
    assert out.columns.tolist() == [*overall.FIXED, *PAIRS]


def test_seeds_that_a_pair_lacks_are_left_out() -> None:
    runs = by_hand()
    runs = runs[~((runs["pair"] == "c->d") & (runs["label"] == "kd") & (runs["seed"] == 0))]
    out = overall.build(runs, table.build(runs)).set_index("label")
    assert out.loc["kd", "n"] == 2 and out.loc["kd", "difference"] == pytest.approx(1.5)
    assert out.loc["dkd", "n"] == 3


def test_one_shared_seed_has_no_interval_and_none_no_difference() -> None:
    runs = by_hand()
    one = runs[~((runs["label"] == "kd") & (runs["seed"] > 0))]
    rows = overall.build(one, table.build(one)).set_index("label").loc["kd"]
    assert rows["n"] == 1 and rows["difference"] == pytest.approx(1.5) and math.isnan(rows["low"])
    none = runs[~((runs["label"] == "kd") & (runs["seed"] != np.where(runs["pair"] == "a->b", 0, 1)))]
    text = written(overall.build(none, table.build(none)), table.build(none))
    assert "| kd | 0 | – |" in text


def test_a_row_without_a_pair_has_no_rank_and_says_so() -> None:
    runs = pd.concat([by_hand(), frame({"vanilla": 0.0, "sld": 3.0}, seeds=3, pair="a2->b2")], ignore_index=True)
    rows = table.build(runs)
    out = overall.build(runs, rows)
    assert out.set_index("label")["rank"].isna().to_dict() == {"sld": True, "kd": True, "dkd": True, "vanilla": False}
    text = written(out, rows)
    assert "| pairs |" in text and "does not compare" in text and "| sld | 3 | 1 |" in text


def test_a_row_that_never_finished_stands_last() -> None:
    lost = pd.DataFrame([run("sld", 0, math.nan, pair, status="failed", reason="x") for pair in BY_HAND])
    runs = pd.concat([lost, by_hand()], ignore_index=True)
    out = overall.build(runs, table.build(runs))
    assert out["label"].iloc[-1] == "sld" and out["n"].iloc[-1] == 0


def test_bold_is_the_best_of_a_pair_and_what_is_not_distinguishable_from_it_is_marked() -> None:
    runs = pd.concat([frame(pair=pair, seeds=5) for pair in PAIRS], ignore_index=True)
    rows = table.build(runs)
    cells = overall.grid(overall.build(runs, rows), rows)
    near, best = (
        set(rows.loc[rows[key], ["pair", "label"]].itertuples(index=False, name=None)) for key in ("with_best", "best")
    )
    bold, tied = (
        {
            (k, row[0].text)
            for row in cells.rows
            for k, cell in zip(cells.columns, row, strict=True)
            if getattr(cell, mark)
        }
        for mark in ("strong", "tied")
    )
    assert bold == best and tied == near - best and best and tied


def test_markdown_and_csv(prose: Prose) -> None:
    runs = by_hand()
    rows = table.build(runs)
    out = overall.build(runs, rows)
    text = written(out, rows)
    lines = {line.split(" ")[1]: line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")}
    assert lines["method"] == ["method", "n", "− vanilla [95 % CI]", "rank", "a → b", "c → d"]
    assert lines["vanilla"][:4] == ["vanilla", "–", "baseline", "3.0"] and "| pairs |" not in text
    prose(text)
    back = pd.read_csv(io.StringIO(table.csv(out)))
    assert back["label"].tolist() == out["label"].tolist() and back["difference"].dropna().tolist() == pytest.approx(
        out["difference"].dropna().tolist()
    )
    assert stats.choose_baseline(runs) == "vanilla"
