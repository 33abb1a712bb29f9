"""What is tried next: a function of what was told; every sampler; the declared ranges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from bench.errors import UserError
from bench.suite.spec import TuneSpec
from bench.tune.search import Search, check_grid, grid
from methods.base import Choice, Float, Int, Knob

KNOBS: dict[str, Knob] = {"kd": Float(0.01, 20.0, log=True), "tau": Float(1.0, 20.0), "n": Int(1, 9)}
RECIPE = {"kd": 0.9, "tau": 4.0, "n": 3, "ce": 0.1}
SAMPLERS = ["tpe", "random", "grid", "gp", "cmaes"]


def search(**plan: Any) -> Search:
    return Search(TuneSpec(**{"batch": 4, "trials": 28, **plan}), KNOBS, RECIPE, "study")


def told(space: Mapping[str, Any], params: Mapping[str, Any], n: int, objectives: int = 1) -> FrozenTrial:
    """A trial's end: every fifth fails, every fourth is pruned; the rest is best at kd = 2, tau = 7."""
    value = 50 - abs(params.get("kd", 2) - 2) - abs(params.get("tau", 7) - 7)
    state = (
        TrialState.FAIL if n % 5 == 4 else TrialState.PRUNED if n % 4 == 3 and objectives == 1 else TrialState.COMPLETE
    )
    values = None if state == TrialState.FAIL else [value, 1.0 + params.get("n", 0)][:objectives]
    curve = {1: value / 2, 2: value} if objectives == 1 else {}
    return create_trial(
        state=state, values=values, params=dict(params), distributions=dict(space), intermediate_values=curve
    )


def played(found: Search, n: int, objectives: int = 1) -> list[FrozenTrial]:
    trials: list[FrozenTrial] = []
    while len(trials) < n:
        for number, params in found.next(trials).items():
            if number == len(trials) < n:
                trials.append(told(found.space, params, number, objectives))
    return trials


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_recipe_is_first_and_a_killed_search_goes_on_as_if_it_had_not_been(sampler: str) -> None:
    if sampler == "cmaes":
        pytest.importorskip("cmaes")
    whole = played(search(sampler=sampler), 14)
    assert whole[0].params == {key: RECIPE[key] for key in KNOBS}
    assert len({tuple(trial.params.values()) for trial in whole}) == 14
    for stop in range(14):  # told so many when it was killed
        again = search(sampler=sampler).next(whole[:stop])
        start = stop // 4 * 4
        assert list(again) == [start, start + 1, start + 2, start + 3]
        for number, params in again.items():
            assert number >= 14 or params == whole[number].params


def test_suggestions_learn_from_what_was_told() -> None:
    trials = played(search(trials=60), 60)
    late = [50 - abs(t.params["kd"] - 2) - abs(t.params["tau"] - 7) for t in trials]
    assert sum(late[40:]) / 20 > sum(late[1:21]) / 20 + 2


def test_seed_and_name_change_the_search() -> None:
    first = search().next([])
    assert search().next([]) == first
    assert search(seed=1).next([])[1] != first[1] and search(seed=1).next([])[0] == first[0]
    other = Search(TuneSpec(batch=4), KNOBS, RECIPE, "another").next([])
    assert other[1] != first[1]


def test_a_grid_holds_the_ends_and_fits_the_budget() -> None:
    spec = TuneSpec(sampler="grid", trials=28)
    points = grid(spec, KNOBS, RECIPE)
    assert len(points) == 27 and {p[1] for p in points} == {1.0, 10.5, 20.0} and {p[2] for p in points} == {1, 5, 9}
    assert sorted({p[0] for p in points}) == pytest.approx([0.01, (0.01 * 20) ** 0.5, 20.0])
    chosen = grid(spec, {"a": Choice(("x", "y")), "tau": Float(1.0, 20.0)}, {"a": "z", "tau": 2.0})
    assert len(chosen) == 26 and {p[0] for p in chosen} == {"x", "y"}
    found = search(sampler="grid", trials=28)
    assert found.size == 28
    assert [tuple(t.params.values()) for t in played(found, 28)] == [(0.9, 4.0, 3), *points]


def test_a_grid_smaller_than_the_budget_ends_with_its_points() -> None:
    knobs = {"kd": Float(0.01, 20.0, log=True), "tau": Float(1.0, 20.0)}  # four values each: 16 points of 23
    found = Search(TuneSpec(batch=8, trials=24, sampler="grid"), knobs, RECIPE, "study")
    trials = played(found, 17)
    assert found.size == 17 and found.next(trials[:16]) == {16: {"kd": 20.0, "tau": 20.0}}
    sides = [{t.params[key] for t in trials[1:]} for key in knobs]
    assert [len(values) for values in sides] == [4, 4] and len({tuple(t.params.values()) for t in trials}) == 17


def test_a_point_of_a_grid_is_trained_once() -> None:
    middle: dict[str, Knob] = {"tau": Float(1.0, 16.0, log=True), "n": Int(1, 2)}
    spec = TuneSpec(batch=4, trials=10, sampler="grid")
    points = grid(spec, middle, {"tau": 4.0, "n": 2})
    assert sorted(points) == [(1.0, 1), (1.0, 2), (4.0, 1), (16.0, 1), (16.0, 2)]  # without the recipe's (4.0, 2)
    assert Search(spec, middle, {"tau": 4.0, "n": 2}, "study").size == 6


@pytest.mark.parametrize("trials", [33, 60])
def test_a_grid_of_many_ranges_reaches_both_ends_of_each(trials: int) -> None:
    knobs = {f"k{i}": Float(0.1, 10.0, log=True) for i in range(5)}
    spec, recipe = TuneSpec(trials=trials, sampler="grid"), dict.fromkeys(knobs, 1.0)
    check_grid(spec, {"many": knobs})
    trials_ = played(Search(spec, knobs, recipe, "study"), 33)
    assert all({t.params[key] for t in trials_[1:]} == {0.1, 10.0} for key in knobs)


def test_a_budget_too_small_for_a_grid_is_refused() -> None:
    rows: dict[str, dict[str, Knob]] = {
        "few": {"tau": Float(1.0, 20.0)},
        "many": {"a": Choice(("x", "y", "z")), **{f"k{i}": Float(0.1, 10.0) for i in range(4)}},
    }
    with pytest.raises(UserError, match=r"both ends of the 5 hyper-parameters of many take 49, .*type --trials 49, or"):
        check_grid(TuneSpec(trials=48, sampler="grid"), rows)
    check_grid(TuneSpec(trials=49, sampler="grid"), rows)


def test_two_objectives() -> None:
    assert len(played(search(objective=["accuracy", "cost"]), 14, 2)) == 14


def test_what_was_not_asked_is_refused() -> None:
    trials = played(search(), 5)
    with pytest.raises(UserError, match="trial 4 of this study is not what its search asks"):
        search().next([*trials[:4], trials[2]])
    with pytest.raises(UserError, match="trial 1 of this study"):
        search(seed=5).next(trials)


@pytest.mark.parametrize(
    ("space", "told_"),
    [
        ({"kdd": {}}, "no method 'kdd'; did you mean 'kd'"),
        ({"kd": {"tua": [1, 2]}}, "no hyper-parameter of kd 'tua'; did you mean 'tau'"),
        ({"kd": {"tau": []}}, r"tune.space.kd.tau: write \[low, high\]"),
        ({"kd": {"tau": [5, 2]}}, "is empty; write the lower end first"),
        ({"kd": {"tau": [2, 2]}}, "is empty"),
        ({"kd": {"tau": [2, 3, 4]}}, r"a range is \[low, high\]"),
        ({"kd": {"tau": [2, 500]}}, "both ends are a number from 1 to 20"),
        ({"kd": {"kd": [0, 5]}}, "both ends are a number from 0.01 to 20"),
        ({"logit_free": {"layers": ["auto"]}}, "it is a text that no study turns"),
        ({"sld": {"detach": ["maybe"]}}, "choices are one of false, true|choices are one of False, True"),
    ],
)
def test_a_range_that_makes_no_sense_is_refused(space: dict[str, Any], told_: str) -> None:
    with pytest.raises(ValueError, match=told_):
        TuneSpec(space=space)


def test_a_suite_narrows_the_space() -> None:
    spec = TuneSpec(
        space={"kd": {"tau": [2, 6]}, "sld": {"detach": [True, False]}, "crd + 0.5*kd": {"kd.weight": [0.1, 2]}}
    )
    assert spec.search_space("kd")["tau"] == Float(2.0, 6.0, log=True) and "ce" not in spec.search_space("kd")
    assert spec.search_space("sld")["detach"] == Choice(
        (True, False)
    )  # a knob that no study turns unless it is asked to
    assert spec.search_space("crd+kd")["kd.weight"] == Float(0.1, 2.0, log=True)
    assert spec.search_space("vanilla") == {}


def test_a_logarithm_does_not_start_at_zero() -> None:
    from bench.suite.spec import _narrow_range

    with pytest.raises(ValueError, match="logarithmic scale starts above 0"):
        _narrow_range("x", Float(0.0, 1.0, log=True), [0.0, 1.0])
