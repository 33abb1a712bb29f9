"""What a report says of its own numbers."""

from __future__ import annotations

import pandas as pd
import pytest
from scipy.stats import t as student

from bench.report import stats, table
from bench.report.notes import better, notes, ranked
from tests.prose import Prose
from tests.report.made_up import frame

EQUAL = "Further seeds"


def runs(differences: list[float]) -> pd.DataFrame:
    """kd at 80 % in every seed, and a row that is so much above it."""
    out = frame({"vanilla": 0.0, "kd": 0.0, "dkd": 0.0}, seeds=len(differences))
    out = out[out["label"] != "vanilla"].reset_index(drop=True)
    out[stats.TOP1] = 80.0
    out.loc[out["label"] == "dkd", stats.TOP1] = [80 + d for d in differences]
    return out


def test_an_undecided_row_has_a_probability_and_a_number_of_further_seeds() -> None:
    said = better(runs([1.0, 2.0, -1.0, 2.0]), "kd")
    assert f"dkd {student.cdf(1 / (2**0.5 / 4**0.5), 3):.2f}" in said[0] and "kd (t model" in said[0]
    assert said[1].startswith(EQUAL) and "80 % power" in said[1] and said[1].endswith("dkd 14.")


def test_a_decided_row_needs_no_further_seeds() -> None:
    said = better(runs([1.0, 1.1, 0.9, 1.0]), "kd")
    assert len(said) == 1 and said[0].endswith("dkd > 0.99.")


@pytest.mark.parametrize("differences", [[1.0], [0.0, 0.0]])
def test_what_cannot_be_said_is_not_said(differences: list[float]) -> None:
    assert not any(line.startswith(EQUAL) for line in better(runs(differences), "kd"))


def test_missing_seeds_are_named(prose: Prose) -> None:
    whole = runs([1.0, 2.0, 3.0])
    assert not any("lacks" in line for line in notes(whole, table.build(whole), {}))
    part = whole.drop(index=whole.index[whole["label"].eq("dkd") & whole["seed"].eq(1)])
    line = next(line for line in notes(part, table.build(part), {}) if "lacks" in line)
    assert line.startswith("dkd lacks seed 1;")
    prose(line)


def test_ranks_only_over_enough_pairs() -> None:
    pairs = [frame(seeds=2, pair=f"t{i}->s") for i in range(5)]
    assert ranked(pd.concat(pairs[:4], ignore_index=True)) == []
    (line,) = ranked(pd.concat(pairs, ignore_index=True))
    assert line.startswith("Mean ranks over 5 pairs") and "Friedman's test" in line
