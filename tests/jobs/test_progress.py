"""What is said of a suite's cohorts while they train."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from bench.jobs.progress import Progress, duration


def cohort() -> Any:
    return SimpleNamespace(members=[], protocol=SimpleNamespace(epochs=4))


def made(*, terminal: bool) -> tuple[Progress, io.StringIO]:
    out = io.StringIO()
    return Progress(Console(file=out, width=120, force_terminal=terminal)), out


def train(progress: Progress, title: str) -> None:
    with progress.cohort(title, cohort()) as callbacks:
        for epoch in (1, 2, 3, 4):
            callbacks.after_step(64)
            callbacks.after_epoch(epoch)


@pytest.mark.parametrize("terminal", [False, True])
def test_cohorts_are_counted(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    progress, out = made(terminal=terminal)
    train(progress, "teacher big")
    assert "cohort" not in out.getvalue()
    monkeypatch.setattr("bench.jobs.progress.time.monotonic", iter(range(0, 100_000, 10)).__next__)
    for seed in (0, 1, 2):
        with progress.cohort_of(3):
            train(progress, f"seed {seed}")
    lines = [line for line in out.getvalue().splitlines() if " img/s; validation" in line][1:]
    assert [f"cohort {n} of 3" in line for n, line in enumerate(lines, 1)] == [True] * 3
    assert " left: seed 0" in lines[0] and " left" not in lines[2]


def test_a_single_cohort_is_not_counted_and_a_held_one_not_as_done() -> None:
    progress, out = made(terminal=False)
    with progress.cohort_of(1):
        train(progress, "seed 0")
    assert "cohort" not in out.getvalue()
    progress, _ = made(terminal=False)
    with pytest.raises(RuntimeError), progress.cohort_of(2):
        raise RuntimeError("held by another process")
    assert progress.n_done == 0


def test_durations() -> None:
    assert [duration(s) for s in (0.2, 44, 600, 12_000)] == ["1 s", "1 min", "10 min", "3 h 20 min"]
