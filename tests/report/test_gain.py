"""Tuned against recipe: on empty, malformed, perfect and hand-computed runs."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from bench.report import markdown, stats
from bench.report.gain import COLUMNS, FAMILY, answer, gain, sections
from tests.prose import Prose, numbers

Row = tuple[str, int, float, str | None]


def runs(rows: list[Row], pair: str = "a->b", **other: Any) -> pd.DataFrame:
    """label, seed, top-1, and of a tuned row the row that was tuned."""
    frame = pd.DataFrame(rows, columns=["label", "seed", "test/top1", "tuned_row"])
    frame = frame.assign(pair=pair, status="finished", reason="", method=frame["label"], **other)
    return frame.assign(tuned=frame["tuned_row"].notna(), tuned_trials=frame["tuned_row"].map({"kd": 24, "at": 24}))


def section(rows: pd.DataFrame) -> str:
    return markdown.blocks(sections(rows))


KD: list[Row] = [("kd", s, v, None) for s, v in enumerate((80.0, 82.0, 81.0))]
KD_TUNED: list[Row] = [("kd(tuned)", s, v, "kd") for s, v in enumerate((83.0, 84.0, 84.0))]  # +3, +2, +3
AT: list[Row] = [("at", s, 70.0 + s, None) for s in range(3)]
AT_TUNED: list[Row] = [("at(tuned)", s, 69.0 + s, "at") for s in range(3)]  # -1 three times


def test_hand_computed(prose: Prose) -> None:
    rows = gain(runs(KD + KD_TUNED + AT + AT_TUNED))
    assert list(rows.columns) == [*COLUMNS, *FAMILY] and list(rows["row"]) == ["kd", "at"]
    kd, at = rows.iloc[0], rows.iloc[1]
    assert (kd["recipe"], kd["n"], kd["trials"]) == (81.0, 3, 24) and kd["tuned"] == pytest.approx(83.6667, abs=1e-4)
    half = 4.302653 * 0.5773503 / 3**0.5  # t(0.975, 2) times the sd of +3, +2, +3 over the root of n
    assert kd["difference"] == pytest.approx(8 / 3) and kd["high"] - kd["difference"] == pytest.approx(half, rel=1e-5)
    assert kd["p"] == 0.25 and kd["p_holm"] == 0.5  # two of eight sign vectors; two rows
    assert (at["difference"], at["low"], at["high"]) == (-1.0, -1.0, -1.0)
    assert list(rows["standing"]) == ["better", "worse"] and numbers(answer(rows)) == [3, 2, 1, 1, 3, 95, 0.8]
    text = section(rows)
    (line,) = (line for line in text.splitlines() if line.startswith("| kd |"))
    assert numbers(line) == [24, 3, 81.0, 83.7, 2.7, 1.2, 4.1, 0.500] and "pair" not in text.splitlines()[4]
    prose(text)


def test_only_rows_that_ran_both_ways() -> None:
    assert gain(runs(KD + AT_TUNED)).empty and section(gain(runs(KD))) == ""
    assert list(gain(runs(KD + KD_TUNED + AT_TUNED))["row"]) == ["kd"]
    some = runs(KD + KD_TUNED)
    assert gain(some.assign(status=["finished"] * 4 + ["failed"] * 2)).iloc[0]["n"] == 1  # paired on what both have


def test_one_seed_tells_nothing(prose: Prose) -> None:
    rows = gain(runs(KD[:1] + KD_TUNED[:1]))
    assert rows.iloc[0]["difference"] == 3.0 and pd.isna(rows.iloc[0]["low"])
    assert list(rows["standing"]) == ["open"] and "+3.0 (n=1)" in section(rows)
    prose(answer(rows))


def test_two_pairs_are_corrected_apart() -> None:
    both = pd.concat([runs(KD + KD_TUNED), runs(KD + KD_TUNED, pair="c->d")], ignore_index=True)
    rows = gain(both)
    assert list(rows["pair"]) == ["a->b", "c->d"] and list(rows["p_holm"]) == [0.25, 0.25]
    assert section(rows).count("| a->b |") == 1
    assert "better on 2 (kd on a->b, kd on c->d)" in answer(rows) and "all methods of a pair at once" in answer(rows)


def test_a_gain_that_is_one_of_36_needs_an_interval_for_all() -> None:
    """+1.0 over three seeds: alone its interval is [0.5, 1.5], as one of 36 it is [-3.3, 5.3]."""
    rows: list[Row] = []
    for i in range(36):
        gains = (1.0, 1.2, 0.8) if i == 0 else (-1.0, 1.0, 0.0)
        rows += [(f"m{i}", seed, 80.0, None) for seed in range(3)]
        rows += [(f"m{i}(tuned)", seed, 80.0 + by, f"m{i}") for seed, by in enumerate(gains)]
    many = gain(runs(rows).assign(tuned_trials=24.0))
    first = many.iloc[0]
    assert (first["row"], first["standing"]) == ("m0", "open") and first["low"] == pytest.approx(0.503, abs=1e-3)
    assert answer(many).startswith("Of 36 methods, none is distinguishable (n = 3 seeds,")
    (alone,) = gain(runs(rows[:6]).assign(tuned_trials=24.0))["standing"]
    assert alone == "better"


def test_malformed() -> None:
    with pytest.raises(ValueError, match="no column 'pair'"):
        gain(pd.DataFrame({"x": [1]}))


def test_tuned_rows_are_held_against_tuned_kd() -> None:
    assert stats.choose_reference(runs(KD + KD_TUNED + AT + AT_TUNED), "kd") == "kd(tuned)"
    assert stats.choose_reference(runs(KD + AT), "at") == "kd"
    second = runs(KD + AT, pair="c->d")  # tuned on one pair of two
    assert stats.choose_reference(pd.concat([runs(KD + KD_TUNED), second]), "at") == "kd"
    assert stats.choose_reference(runs(KD_TUNED), "kd(tuned)") == "kd(tuned)"
