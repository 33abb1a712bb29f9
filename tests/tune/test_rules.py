"""Pruning and selection: which trials go on, and which one is chosen."""

from __future__ import annotations

from collections.abc import Sequence

import methods
from bench.suite.spec import TuneSpec
from bench.tune.pruning import rungs, trials_to_prune
from bench.tune.select import best_trial, confirmed, ranked, unused_seeds
from bench.tune.trials import TrialResult


def test_rungs_stand_at_thirds_of_what_is_left() -> None:
    halving = TuneSpec(pruner="halving", batch=9)
    assert rungs(halving, 27, 0.0, 0) == rungs(halving, 27, 0.0, 5) == [3, 9]
    assert rungs(TuneSpec(pruner="halving", batch=3), 27, 0.0, 0) == [9]
    assert rungs(TuneSpec(pruner="halving", batch=2), 27, 0.0, 0) == []  # one of two is not a third
    assert rungs(TuneSpec(), 27, 0.0, 0) == []


def test_nothing_is_judged_before_every_term_is_at_work() -> None:
    sld = methods.get("sld")
    starts = sld.fully_active_from(sld.resolve(""))
    assert starts == 150 / 240 and methods.get("kd").fully_active_from({}) == 0
    assert methods.get("kd+sld").fully_active_from(methods.get("kd+sld").resolve("")) == starts
    assert min(rungs(TuneSpec(pruner="halving"), 240, starts, 0)) > 150


def test_hyperband_takes_turns() -> None:
    spec = TuneSpec(pruner="hyperband", batch=9)
    assert [rungs(spec, 27, 0.0, batch) for batch in range(4)] == [[3, 9], [9], [], [3, 9]]


def test_one_in_three_goes_on() -> None:
    scores = {6: (50.0, 1.0), 1: (60.0, 1.0), 2: (60.0, 0.9), 3: (40.0, 0.1), 4: (60.0, 0.9), 5: (1.0, 9.0)}
    assert sorted(trials_to_prune(scores)) == [1, 3, 5, 6]  # 2 and 4 are equal, and the lower NLL of the three with 60
    assert trials_to_prune({7: (1.0, 1.0)}) == [] and trials_to_prune({}) == []
    assert trials_to_prune({2: (5.0, 1.0), 1: (5.0, 1.0)}) == [2]


def test_the_recipe_is_one_of_those_that_go_on() -> None:
    scores = {0: (1.0, 9.0), 1: (60.0, 1.0), 2: (60.0, 0.9), 3: (40.0, 0.1), 4: (60.0, 0.9), 5: (1.0, 9.0)}
    assert sorted(trials_to_prune(scores)) == [1, 3, 4, 5]


def result(top1: float | None, nll: float = 1.0, status: str = "finished") -> TrialResult:
    return TrialResult(status, "", top1, nll, 1.0, 3, 9, 1.0, 0.0, 1.0)


RESULTS = {
    0: result(70.0),
    1: result(80.0, 2.0),
    2: result(80.0, 1.0),
    3: result(99.0, status="pruned"),
    4: result(None, status="diverged"),
    5: result(75.0),
}


def never(numbers: Sequence[int], seed: int) -> dict[int, TrialResult]:
    raise AssertionError


def test_the_best_trial() -> None:
    assert ranked(RESULTS) == [2, 1, 5, 0] and ranked({}) == []
    assert best_trial(RESULTS, never, [1, 2]).trial == 2


def test_the_confirmed_trial_is_the_best_mean_of_the_top_three_and_the_recipe() -> None:
    asked = []

    def again(numbers: Sequence[int], seed: int) -> dict[int, TrialResult]:
        asked.append((list(numbers), seed))
        luck = {2: 60.0, 1: 70.0 + seed, 5: 71.0, 0: 65.0}
        return {number: result(luck[number]) for number in numbers}

    got = confirmed(RESULTS, again, [1, 2, 3])
    assert asked == [([2, 1, 5, 0], seed) for seed in (1, 2, 3)]
    assert got.trial == 1 and got.means == {2: 60.0, 1: 72.0, 5: 71.0, 0: 65.0} and got.student_steps == 108
    better = confirmed(RESULTS, lambda numbers, _: {n: result(80.0 if n == 0 else 60.0) for n in numbers}, [1, 2, 3])
    assert better.trial == 0, "what beats the recipe in a single run alone is not chosen"


def test_a_trial_that_fails_when_it_is_confirmed_is_not_chosen() -> None:
    def again(numbers: Sequence[int], seed: int) -> dict[int, TrialResult]:
        reached = {n: result(90.0 if n else 85.0) for n in numbers}
        return reached | ({2: result(None, status="diverged")} if seed == 2 else {})

    assert confirmed(RESULTS, again, [1, 2, 3]).trial == 1
    alone = {0: result(70.0)}
    assert (
        confirmed(alone, lambda n, s: {0: result(None, status="diverged")}, [1]).trial == 0
    )  # nothing better is known


def test_no_seed_of_the_suite_is_used() -> None:
    assert unused_seeds([0, 1]) == [1000, 1001, 1002, 1003]
    assert unused_seeds([1001]) == [1000, 1002, 1003, 1004]
