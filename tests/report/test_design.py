"""What a report says of a suite's design: what varies from seed to seed, and how its seeds were decided."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from bench.errors import UserError
from bench.report import design, markdown, stats, table
from bench.report.notes import notes
from bench.report.sections import _of_teachers
from tests.prose import Prose, numbers
from tests.report.made_up import frame, run

ONE: dict[str, Any] = {"name": "made", "protocol": {"epochs": 3}}
OWN = ONE | {"teacher": {"each": "seed"}}
BOTH = OWN | {"split": {"each": "seed"}}


def specs(teachers: str = "ab", splits: str = "00", size: int = 90) -> list[dict[str, Any]]:
    """Two rows over two seeds, with the teacher and the split of each seed."""
    return [
        {
            "pair": "big->small",
            "seed": seed,
            "protocol": ONE["protocol"],
            "teacher_fingerprint": teachers[seed],
            "data": {"name": "digits", "train": size, "split_seed": splits[seed], "fingerprint": splits[seed]},
        }
        for _ in ("kd", "dkd")
        for seed in (0, 1)
    ]


@pytest.mark.parametrize(
    ("suite", "runs"),
    [(ONE, specs("aa")), (OWN, specs()), (OWN, specs("aa")), (BOTH, specs(splits="01"))],
    ids=["one teacher", "a teacher each", "the same teacher twice", "a split each"],
)
def test_what_the_design_says_may_differ(suite: dict[str, Any], runs: list[dict[str, Any]]) -> None:
    design.check_comparable(runs, suite, "run again")


def test_nothing_else_may_differ(prose: Prose) -> None:
    one_of_four = [*specs()[:3], specs("ac")[3]]
    other_size = [*specs(splits="01")[:3], specs(splits="01", size=91)[3]]
    another_split = [*specs(splits="01")[:3], specs(splits="02")[3]]
    cases = [(ONE, specs()), (OWN, one_of_four), (OWN, specs(splits="01")), (BOTH, other_size), (BOTH, another_split)]
    words = ["2 different teachers", "seed 1, have 2 different", "fingerprint, split_seed", "(train)", "fingerprint"]
    said = []
    for (suite, runs), part in zip(cases, words, strict=True):
        with pytest.raises(UserError) as error:
            design.check_comparable(runs, suite, "run `kdbench run made` again")
        assert part in str(error.value)
        said.append(str(error.value))
    prose("\n".join(said))


def layout(shared: float, own: float, seeds: int = 4000, rows: int = 6) -> pd.DataFrame:
    """Runs whose rows differ by a constant, with these standard deviations of a seed and of each run."""
    draw = np.random.default_rng(1)
    values = (
        80 + np.arange(rows) + shared * draw.standard_normal((seeds, 1)) + own * draw.standard_normal((seeds, rows))
    )
    return pd.DataFrame([run(f"m{j}", i, value) for i, row in enumerate(values) for j, value in enumerate(row)])


def test_variance_is_split_as_it_was_made() -> None:
    values = stats.complete(layout(2.0, 1.0))["big->small"].to_numpy()
    assert design.components(values) == (pytest.approx(4.0, rel=0.08), pytest.approx(1.0, rel=0.05))
    shared, own = design.components(stats.complete(layout(0.0, 1.0, 40))["big->small"].to_numpy())
    assert 0 <= shared < 0.15 and own == pytest.approx(1.0, rel=0.2)
    hand = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 9.0]])  # seeds' means 1.5, 3.5, 7; the rest is ±0.5, ±0.5, ∓1
    assert design.components(hand) == (pytest.approx(7.75 - 1.5 / 2), pytest.approx(1.5))


def test_the_report_says_what_of_the_variance_cancels(prose: Prose) -> None:
    runs = frame(seeds=5)
    (one,) = design.variance(runs, ONE)
    assert "initial weights" in one and "teacher" not in one and numbers(one)[2:] == [5, 6]
    (both,) = design.variance(runs, BOTH)
    assert "(teacher, split, initial weights" in both and numbers(both)[2:] == [5, 5], "vanilla has no teacher"
    prose(both)
    assert design.variance(frame(seeds=2), ONE) == design.variance(frame({"kd": 0.0}), ONE) == []
    assert one in notes(runs, table.build(runs), ONE)


def test_the_design_of_a_store_is_inferred() -> None:
    def found(runs: list[dict[str, Any]]) -> list[str]:
        return [each["each"] for each in design.inferred(runs).values()]

    assert found(specs("aa")) == ["suite", "suite"] and found(specs()) == ["seed", "suite"]
    assert found(specs(splits="01")) == ["seed", "seed"]
    assert found([*specs()[:3], specs("ac")[3]]) == ["suite", "suite"], "two teachers within a seed are no design"
    assert found(specs()[:1]) == ["suite", "suite"], "one seed tells nothing"


def test_intervals_say_what_they_hold(prose: Prose) -> None:
    said = [f"{design.conditions(suite)} | {design.briefly(suite)}" for suite in (ONE, OWN, BOTH)]
    assert "conditional on one teacher and one split" in said[0] and "cannot be separated" not in said[0]
    assert "conditional on one split" in said[1] and "cannot be separated" in said[1]
    assert "conditional" not in said[2] and "cannot be separated" in said[2]
    prose("\n".join(said))


def test_several_teachers_are_a_mean_and_a_range(prose: Prose) -> None:
    runs = frame({"vanilla": 0.0, "kd": 1.0}, seeds=3)
    top1 = {0: 91.0, 1: 93.0, 2: 95.0}
    runs = runs.assign(teacher_fingerprint=runs["seed"].map(str), **{"test/teacher_top1": runs["seed"].map(top1)})
    (line,) = _of_teachers(pd.DataFrame(runs))
    assert "93.00 %" in line and "91.00 to 95.00" in line and "3 teachers" in line
    prose(line)


def decided(pair: str = "big->small", **rows: tuple[int, float | None, float | None, str]) -> list[dict[str, Any]]:
    names = ("n", "low", "high", "verdict")
    return [
        {"pair": pair, "method": row, "reference": "kd", **dict(zip(names, v, strict=True))} for row, v in rows.items()
    ]


def test_decisions_are_a_sentence_and_a_table(prose: Prose) -> None:
    suite = ONE | {"until": {"margin": 0.5, "least": 3, "most": 30}}
    rows = decided(
        vanilla=(4, -3.1, -0.4, "worse"),
        dkd=(6, 0.2, 1.4, "better"),
        fitnet=(22, -0.4, 0.45, "close"),
        crd=(30, -0.2, 0.9, "open"),
        at=(0, None, None, "open"),
    )
    answer, section = design.answer(suite, rows), markdown.blocks(design.sections(suite, rows))
    assert answer == (
        "dkd is better than kd; vanilla is worse than kd; fitnet is within 0.5 points of kd; crd and at are undecided"
        " beside kd (30 seeds)."
    )
    assert (
        "all 5 comparisons" in section
        and "Undecided: crd and at." in section
        and "| at | undecided | 0 | – |" in section
    )
    two = [*decided(dkd=(6, 0.2, 1.4, "better")), *decided("tall->small", dkd=(9, 0.1, 1.0, "better"))]
    assert design.answer(suite, two).splitlines()[1] == "tall->small: dkd is better than kd."
    section_of_two = markdown.blocks(design.sections(suite, two))
    assert "All are decided." in section_of_two and "| tall->small | dkd |" in section_of_two
    prose(section)
