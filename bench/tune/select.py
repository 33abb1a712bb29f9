"""Which trial a study chooses: rules by name. Both read the validation split alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from statistics import fmean

from bench.tune.trials import TrialResult

N_CANDIDATES, N_CONFIRMATION_SEEDS = 3, 3  # `confirmed`: how many trials are run again, over how many further seeds
RECIPE = 0  # the number of its trial

Retrain = Callable[[Sequence[int], int], Mapping[int, TrialResult]]
"""Trains trials of those numbers anew with another seed."""


@dataclass(frozen=True)
class ChosenTrial:
    """A trial, why it was chosen, and on what."""

    trial: int
    rule: str
    seeds: tuple[int, ...] = ()  # of the confirmation
    means: Mapping[int, float] = field(default_factory=dict)  # validation top-1 over those seeds, by trial
    student_steps: int = 0  # of the confirmation


def ranked(results: Mapping[int, TrialResult]) -> list[int]:
    """Finished trials, the best first: higher top-1, then lower NLL, then the earlier."""
    keys = {n: (-r.top1, r.nll, n) for n, r in results.items() if r.status == "finished" and r.top1 is not None}
    return sorted(keys, key=lambda number: keys[number])  # type: ignore[arg-type,return-value]


def best_trial(results: Mapping[int, TrialResult], retrain: Retrain, seeds: Sequence[int]) -> ChosenTrial:
    """The best single run. Of many trials it is also the luckiest."""
    return ChosenTrial(ranked(results)[0], "best_trial")


def confirmed(results: Mapping[int, TrialResult], retrain: Retrain, seeds: Sequence[int]) -> ChosenTrial:
    """The best mean of the best three trials and the recipe over three further seeds.

    Without the recipe among them, what the choice gains over it would be known of single runs alone.
    """
    trials = ranked(results)
    candidates = list(dict.fromkeys([*trials[:N_CANDIDATES], *(number for number in trials if number == RECIPE)]))
    runs = [retrain(candidates, seed) for seed in seeds]
    finished = [n for n in candidates if all(run[n].status == "finished" for run in runs)]
    means = {n: fmean(run[n].top1 or 0.0 for run in runs) for n in finished}
    ties = {n: fmean(run[n].nll or 0.0 for run in runs) for n in finished}
    best = min(finished, key=lambda n: (-means[n], ties[n], n), default=candidates[0])
    steps = sum(result.student_steps for run in runs for result in run.values())
    return ChosenTrial(best, "confirmed", tuple(seeds), means, steps)


RULES = {"best_trial": best_trial, "confirmed": confirmed}


def unused_seeds(used: Sequence[int]) -> list[int]:
    """The seed that trials train with, and those of the confirmation: none that the suite's own runs use."""
    return list(islice((seed for seed in count(1000) if seed not in set(used)), 1 + N_CONFIRMATION_SEEDS))
