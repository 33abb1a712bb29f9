"""Step times by name, on a clock that the test moves."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench.training import clock


class Event:
    """A CUDA event that is recorded at the time of `now`, in milliseconds."""

    now, made = 0.0, 0

    def __init__(self, enable_timing: bool) -> None:
        Event.made += 1
        self.at = 0.0

    def record(self) -> None:
        self.at = Event.now

    def elapsed_time(self, other: Event) -> float:
        return other.at - self.at


def timed(device: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Laps of 1, 3 and 8 ms of one name, and one of 5 ms that raises."""
    Event.now, Event.made = 0.0, 0
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)
    monkeypatch.setattr(clock.time, "perf_counter", lambda: Event.now / 1000)
    watch: Any = clock.Clock(torch.device(device))
    with pytest.raises(ValueError, match="broken"), watch("kd"):
        Event.now += 5
        raise ValueError("broken")
    for ms in (1, 3, 8):
        with watch("kd"):
            Event.now += ms
    out = watch.read_medians()
    assert watch.read_medians() == {}
    return {name: round(value, 6) for name, value in out.items()}


def test_a_cpu_takes_the_median_of_all_laps(monkeypatch: pytest.MonkeyPatch) -> None:
    assert timed("cpu", monkeypatch) == {"kd": 3}


def test_a_gpu_takes_one_pair_of_events_per_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert timed("cuda", monkeypatch) == {"kd": 1}
    assert Event.made == 3  # a start that came to nothing, and one pair
