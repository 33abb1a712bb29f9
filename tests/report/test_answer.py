from __future__ import annotations

import pandas as pd
import pytest

from bench.report.answer import answer
from tests.report.made_up import frame, run


def rows(**values: list[float]) -> pd.DataFrame:
    return pd.DataFrame([run(label, seed, v) for label, many in values.items() for seed, v in enumerate(many)])


BASE = [80.0, 81.0, 80.5]


def shift(*by: float) -> list[float]:
    return [b + d for b, d in zip(BASE, by, strict=True)]


@pytest.mark.parametrize(
    ("frame_", "want"),
    [
        (
            rows(vanilla=BASE, kd=shift(2.0, 2.2, 1.8), dkd=shift(2.4, 1.9, 2.3), crd=shift(1.0, 1.1, 0.9)),
            "dkd beats vanilla by 2.2 points [1.5, 2.9] over 3 seeds; kd is not distinguishable from it.",
        ),
        (
            rows(vanilla=BASE, kd=shift(3.0, 3.1, 2.9), crd=shift(1.0, 1.1, 0.9)),
            "kd beats vanilla by 3.00 points [2.75, 3.25] over 3 seeds; every other method is distinguishable from it.",
        ),
        (
            rows(vanilla=BASE, kd=shift(3.0, 3.1, 2.9)),
            "kd beats vanilla by 3.00 points [2.75, 3.25] over 3 seeds.",
        ),
        (
            rows(vanilla=BASE, kd=shift(1.0, -1.0, 0.6), crd=shift(-1, 1, 0)),
            "no method is distinguishable from the student alone: the largest mean difference is kd's, "
            "+0.2 points [−2.4, +2.8] over 3 seeds.",
        ),
        (
            rows(vanilla=BASE, kd=shift(1.0, -1.0, 0.6), crd=shift(-3.0, -3.1, -2.9)),
            "no method is distinguishably better than the student alone, and crd is distinguishably worse; "
            "the largest mean difference is kd's, +0.2 points [−2.4, +2.8] over 3 seeds.",
        ),
        (
            rows(vanilla=BASE, kd=shift(6.0, -1.0, 2.0), crd=shift(1.0, 1.1, 0.9)),
            "kd has the largest mean difference to vanilla, +2.3 points [−6.4, +11.1], but its interval contains 0; "
            "distinguishably better than the student alone: crd by 1.00 points [0.75, 1.25], over 3 seeds.",
        ),
        (
            rows(vanilla=BASE[:1], kd=[81.5]),
            "one seed tells no method from vanilla (the largest mean difference is kd's, +1.5 points); run more seeds.",
        ),
        (
            rows(kd=BASE),
            "kd reaches 80.5 ± 1.2 % top-1 over 3 seeds; with one method there is no difference to judge.",
        ),
        (
            rows(kd=BASE, crd=shift(1.0, -1.0, 0.6)),
            "no method is distinguishable from kd: the largest mean difference is crd's, "
            "+0.2 points [−2.4, +2.8] over 3 seeds.",
        ),
    ],
    ids=["near", "apart", "two", "none", "worse", "wide-top", "one-seed", "one-method", "against-kd"],
)
def test_the_sentence_is_no_stronger_than_the_intervals(frame_: pd.DataFrame, want: str) -> None:
    assert answer(frame_, str(frame_["label"].iloc[0])) == want


def test_two_seeds_are_called_few() -> None:
    assert "few seeds" in answer(rows(vanilla=[80.0, 81.0], kd=[82.0, 83.01]), "vanilla")


def test_a_line_per_pair_also_where_the_baseline_is_missing() -> None:
    other = frame({"kd": 1.0, "dkd": 1.0}, pair="a->b")
    lines = answer(pd.concat([frame(), other], ignore_index=True), "vanilla").split("\n")
    assert lines[0].startswith(
        "big->small: block_kd beats vanilla by 1.7 points [1.0, 2.4] over 5 seeds; dkd and kd are"
    )
    assert lines[1] == "a->b: vanilla has no finished run here, so nothing can be compared."


def test_seeds_that_are_not_shared_compare_nothing() -> None:
    apart = pd.DataFrame([run("vanilla", 0, 80.0), run("kd", 1, 81.0)])
    assert "nothing can be compared" in answer(apart, "vanilla")
