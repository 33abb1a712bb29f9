"""What lockstep gains a study: k trials as one cohort, beside the same trials trained one after another.

sequential   each trial alone, as a classical study trains it: its own drawing of views, its own teacher forward
lockstep     the k trials as one cohort: one drawing of views and one teacher forward for all of them

Timed are whole training steps of the harness's own loop: fetching the batch, views, teacher forward, and per student
forward, loss, backward, optimiser step and metering. Left out is what an epoch's end and a study add: the evaluation
on the validation split, which every trial pays for itself on both sides (the teacher's answers there, once per cohort),
records, MLflow and Optuna. A whole study therefore gains a little less than its steps.
"""

from __future__ import annotations

import statistics
from typing import Any

import torch
from rich.console import Console

from bench import data as datasets
from bench import environment as env
from bench.data import Data
from bench.errors import UserError
from bench.jobs.run import resolve_suite
from bench.suite.suite import Suite
from bench.timing.step import STEPS, Lap, harness_lap, make_untrained_cohort, milliseconds_of
from bench.training.cohort import Cohort
from methods.base import Choice, Float, Int, Knob, Value


def measure_trials(suite: Suite, k: int, rounds: int, device: torch.device, console: Console) -> dict[str, Any]:
    """The figures of `kdbench time --tune`, by name: of the suite's first pair and its only row.

    `sequential_ms` and `lockstep_ms` are one trial's share of a training step, in milliseconds, medians over the
    rounds; `speed_up` is the one over the other, and its lowest and highest are those of single rounds.
    Raises `UserError` where k trials are no cohort, or the row is not one method with something to tune.
    """
    if k < 2:
        raise UserError(f"--batch {k} shares no teacher forward; type --batch 2 or more")
    if len(suite.methods) > 1:
        raise UserError(f"--tune times the trials of one method, got {len(suite.methods)}; type e.g. --methods kd")
    suite = resolve_suite(suite, device)
    cohort = make_trials(suite, k, datasets.load(suite.data, device))
    laps = sequential_and_lockstep_laps(cohort)
    times: dict[str, list[float]] = {name: [] for name in laps}
    for round_number in range(rounds + 1):  # the first round warms up
        console.print(f"round {round_number} of {rounds}", end="\r") if console.is_terminal else None
        for name, lap in laps.items():
            milliseconds = milliseconds_of(lap, device) / STEPS / k
            if round_number:
                times[name].append(milliseconds)
    for member in cohort.members:  # a trial that ended takes no steps, and would be timed as a fast one
        if member.status != "running":
            raise UserError(f"{member.name} ended: {member.reason}")
    sequential, lockstep = (statistics.median(times[name]) for name in ("sequential", "lockstep"))
    ratios = [a / b for a, b in zip(times["sequential"], times["lockstep"], strict=True)]
    return {
        "speed_up": sequential / lockstep,
        "speed_up_lowest": min(ratios),
        "speed_up_highest": max(ratios),
        "sequential_ms": sequential,
        "lockstep_ms": lockstep,
        "k": k,
        "rounds": rounds,
        "method": suite.methods[0].title,
        "networks": suite.pairs[0].name,
        "batch_size": suite.protocol.batch_size,
        "precision": suite.protocol.precision,
        **{key: env.describe(device)[key] for key in ("device", "cpu", "threads", "torch", "commit")},
    }


def make_trials(suite: Suite, k: int, data: Data) -> Cohort:
    """k fresh trials of the suite's first row: its recipe, and settings spread evenly over what a study searches."""
    row = suite.methods[0]
    knobs = suite.tune.search_space(row.method)
    if not knobs:
        raise UserError(f"{row.title} has nothing to tune; type --methods kd")
    settings = [{name: _value_at(knob, (i - 0.5) / (k - 1)) for name, knob in knobs.items()} for i in range(1, k)]
    rows = [
        row.model_copy(update={"label": f"trial {i}", "set": row.set | values})
        for i, values in enumerate([{}, *settings])
    ]
    cohort = make_untrained_cohort(suite, rows, data)
    for member in cohort.members:
        member.epoch = 0  # what comes before the first epoch is not timed
    return cohort


def sequential_and_lockstep_laps(cohort: Cohort) -> dict[str, Lap]:
    """Both ways to take STEPS steps with every member; they train the same students, so that only the way differs."""
    single_laps = [harness_lap(Cohort(cohort.data, cohort.protocol, cohort.teacher, [m], 0)) for m in cohort.members]

    def sequential() -> None:
        for lap in single_laps:
            lap()

    return {"sequential": sequential, "lockstep": harness_lap(cohort)}


def _value_at(knob: Knob, share: float) -> Value:
    """The value at a share of the knob's range, between 0 and 1, on its own scale."""
    if isinstance(knob, Choice):
        return knob.options[int(share * len(knob.options))]
    assert isinstance(knob, Float | Int)  # a Text is never tuned
    value = knob.low * (knob.high / knob.low) ** share if knob.log else knob.low + share * (knob.high - knob.low)
    return round(value) if isinstance(knob, Int) else value
