"""Which hyper-parameters to try next: a function of what has been told, so that no kill can change a suggestion.

The search is held in memory and asks in whole batches: a batch is asked when all before it has been told. After a kill
it is made anew from the trials that are on disk, and goes on to the suggestions of a search that was never killed.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, RandomSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial

from bench.errors import UserError
from bench.seeds import seed
from bench.suite.spec import TuneSpec
from methods.base import Choice, Float, Int, Knob, Value


class Search:
    """The trials of one study in order; trial 0 is `recipe`. `name` seeds the sampler, with the seed of `spec`."""

    def __init__(self, spec: TuneSpec, knobs: Mapping[str, Knob], recipe: Mapping[str, Value], name: str) -> None:
        self.batch, self.objectives = spec.batch, len(spec.objective)
        self.space = {key: distribution(knob) for key, knob in knobs.items()}
        self.study = optuna.create_study(directions=directions(spec), sampler=_sampler(spec, name))
        self.asked_trials: list[Trial] = []
        self.n_told = 0  # how many of them have a result that this search has been told
        points = grid(spec, knobs, recipe) if spec.sampler == "grid" else []
        self.size = len(points) + 1 if spec.sampler == "grid" else spec.trials  # how many trials there are
        for values in [[recipe[key] for key in knobs], *points]:
            self.study.enqueue_trial(dict(zip(knobs, values, strict=True)))

    def next(self, reported_trials: Sequence[FrozenTrial]) -> dict[int, dict[str, Any]]:
        """The whole batch that holds the first trial not told yet: settings by number, none after the search's last.
        reported_trials: in order of number.

        Raises `UserError` where what was told is not what this search asked.
        """
        while len(reported_trials) >= len(self.asked_trials):
            for trial, reported in list(zip(self.asked_trials, reported_trials, strict=False))[self.n_told :]:
                self._tell(trial, reported)
            self.n_told = len(self.asked_trials)
            self.asked_trials += [self.study.ask(self.space) for _ in range(self.batch)]
        for trial, reported in zip(self.asked_trials, reported_trials, strict=False):
            if trial.params != reported.params:
                raise UserError(
                    f"trial {trial.number} of this study is not what its search asks; trials were added by hand, or by"
                    " another version of Optuna or of its sampler: give a new study its own --name"
                )
        start = len(reported_trials) // self.batch * self.batch
        return {trial.number: trial.params for trial in self.asked_trials[start : min(start + self.batch, self.size)]}

    def _tell(self, trial: Trial, reported: FrozenTrial) -> None:
        for step, value in reported.intermediate_values.items():
            trial.report(value, step)
        complete = reported.state == optuna.trial.TrialState.COMPLETE
        self.study.tell(trial, reported.values if complete else None, state=reported.state)


def directions(spec: TuneSpec) -> list[StudyDirection]:
    return [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE][: len(spec.objective)]


def distribution(knob: Knob) -> BaseDistribution:
    if isinstance(knob, Float):
        return FloatDistribution(knob.low, knob.high, log=knob.log)
    if isinstance(knob, Int):
        return IntDistribution(knob.low, knob.high, log=knob.log)
    assert isinstance(knob, Choice)  # a Text is never tuned
    return CategoricalDistribution(knob.options)


def _sampler(spec: TuneSpec, name: str) -> BaseSampler:
    number = seed("tune", name, spec.seed) % 2**32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match spec.sampler:
            case "tpe":
                return TPESampler(seed=number)
            case "gp":
                return GPSampler(seed=number)
            case "cmaes":
                try:
                    import cmaes  # noqa: F401  # optuna asks for it only when the second trial is asked
                except ImportError:
                    raise UserError("sampler cmaes takes a package more: pip install 'kdbench[cmaes]'") from None
                return CmaEsSampler(seed=number)
            case _:
                return RandomSampler(seed=number)


def check_grid(spec: TuneSpec, rows: Mapping[str, Mapping[str, Knob]]) -> None:
    """Refuse a budget that cannot hold both ends of every range, all choices and the recipe. rows: knobs by title."""
    needed = {row: 1 + math.prod(len(_options(knob, 2)) for knob in knobs.values()) for row, knobs in rows.items()}
    row = max(needed, key=lambda name: needed[name])
    if needed[row] > spec.trials:
        raise UserError(
            f"{spec.trials} trials hold no grid: both ends of the {len(rows[row])} hyper-parameters of {row} take"
            f" {needed[row]}, the recipe included; type --trials {needed[row]}, or --sampler tpe or random"
        )


def grid(spec: TuneSpec, knobs: Mapping[str, Knob], recipe: Mapping[str, Value]) -> list[tuple[Value, ...]]:
    """Its points but for the recipe's: of every knob all choices, or as many values of a range as fit the budget."""
    ranges = [knob for knob in knobs.values() if not isinstance(knob, Choice)]
    n_points = (spec.trials - 1) / math.prod(len(knob.options) for knob in knobs.values() if isinstance(knob, Choice))
    n = int(n_points ** (1 / max(len(ranges), 1)) + 1e-9)
    points = itertools.product(*(_options(knob, n) for knob in knobs.values()))
    return [point for point in points if point != tuple(recipe[key] for key in knobs)]


def _options(knob: Knob, n: int) -> Sequence[Value]:
    """All choices, or n values of a range from end to end, evenly on its own scale; fewer of whole numbers."""
    if isinstance(knob, Choice):
        return knob.options
    assert isinstance(knob, Float | Int)  # a Text is never tuned
    low, high = (math.log(end) if knob.log else end for end in (knob.low, knob.high))
    inner = [low + (high - low) * i / (n - 1) for i in range(1, n - 1)]
    inner = [float(f"{math.exp(step) if knob.log else step:.12g}") for step in inner]  # 4.0, where a recipe has it
    values = [knob.low, *inner, knob.high]
    return sorted({round(value) for value in values}) if isinstance(knob, Int) else values
