"""Step times by name, without stopping the device: wall clock on CPU, CUDA events read at the end of an epoch."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class Clock:
    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._laps: dict[str, list[Any]] = defaultdict(list)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time a block. A block that raises is not counted.

        On CUDA the first block of a name between two readings stands for all: a pair of events takes the host longer
        than it has beside a small step.
        """
        if self._cuda and name in self._laps:
            yield
            return
        start = self._now()
        yield
        self._laps[name].append((start, self._now()))

    def _now(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def read_medians(self) -> dict[str, float]:
        """Median lap of every name in milliseconds, and start anew."""
        if self._cuda:
            torch.cuda.synchronize()
        laps = {name: statistics.median(self._lap(*lap) for lap in laps) for name, laps in self._laps.items()}
        self._laps.clear()
        return laps

    def _lap(self, start: Any, end: Any) -> float:
        return float(start.elapsed_time(end)) if self._cuda else 1000 * (end - start)
