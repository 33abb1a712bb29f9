"""What a person sees while a suite trains: bars on a terminal, one line per cohort elsewhere."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Column

if TYPE_CHECKING:
    from bench.training.cohort import Cohort


@dataclass
class ProgressCallbacks:
    """What is called while a cohort trains: after a step with its number of images, after an epoch with its number."""

    after_step: Callable[[int], None]
    after_epoch: Callable[[int], None]


@dataclass(frozen=True)
class CohortNews:
    """How far a cohort is that a worker trains."""

    title: str
    epoch: int
    epochs: int
    accuracy: str


class Board:
    """The bars of what is done by workers; without bars, nothing is shown."""

    def __init__(self, bars: Bars | None = None, what: str = "", total: int = 0) -> None:
        self._bars, self._what, self._total, self._ended = bars, what, total, 0
        self._begun: dict[str, tuple[TaskID, float]] = {}  # by title: its bar, and which share of it is done
        if bars:
            self._all = bars.add_task(what, total=total, count="", accuracy="")
            self._refresh()

    def show(self, news: CohortNews) -> None:
        """A cohort has ended an epoch."""
        if self._bars:
            if news.title not in self._begun:
                bar = self._bars.add_task(news.title, total=news.epochs, count="", accuracy="")
                self._begun[news.title] = bar, 0.0
            bar, _ = self._begun[news.title]
            done, count = max(news.epoch, 0), f"{news.epoch}/{news.epochs}"
            self._bars.update(bar, completed=done, count=count, accuracy=news.accuracy)
            self._begun[news.title] = bar, done / news.epochs
            self._refresh()

    def remove(self, title: str) -> None:
        """It is no longer in training."""
        if self._bars and title in self._begun:
            self._bars.remove_task(self._begun.pop(title)[0])

    def add(self, n: int) -> None:
        """There are n more than were counted."""
        self._total += n
        self._refresh()

    def count(self) -> None:
        """One more has ended."""
        self._ended += 1
        self._refresh()

    def _refresh(self) -> None:
        if self._bars:
            counted = self._what == "cohorts"  # of a study, how far it is is not known
            begun = [done for title, (_, done) in self._begun.items() if counted and not title.startswith("teacher ")]
            done, count = self._ended + sum(begun), f"{self._ended}/{self._total}"
            self._bars.update(self._all, completed=done, total=self._total, count=count)


class Progress:
    def __init__(self, console: Console, quiet: bool = False) -> None:
        self.console = console
        self.live = console.is_terminal and not quiet and not os.environ.get("CI")
        self.quiet = quiet
        self.shown_board = Board()  # the one that a worker's news go to
        self.n_cohorts = self.n_done = 0  # of this call
        self._in_cohort = False
        self._start = time.monotonic()

    @contextmanager
    def cohort_of(self, n_cohorts: int) -> Iterator[None]:
        """Around the work on one of so many cohorts; without it a cohort (a teacher alone, trials) is not counted."""
        if not self.n_cohorts:
            self.n_cohorts, self._start = n_cohorts, time.monotonic()
        self._in_cohort = True
        try:
            yield
            self.n_done += 1
        finally:
            self._in_cohort = False

    @contextmanager
    def cohort(self, title: str, cohort: Cohort) -> Iterator[ProgressCallbacks]:
        """Follow one cohort: epochs, images per second, time left, and each member's validation accuracy."""
        start = time.monotonic()
        images = 0

        def step(n: int) -> None:
            nonlocal images
            images += n

        if not self.live:
            yield ProgressCallbacks(step, lambda epoch: None)
            self._log_cohort(title, cohort, time.monotonic() - start, images)
            return
        columns = (
            "{task.description}",
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            "{task.fields[rate]}",
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[accuracy]}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
        )
        with Bars(*columns, console=self.console, transient=True, expand=True) as bars:
            first = min((m.epoch for m in cohort.members), default=0)
            epochs: int = cohort.protocol.epochs
            empty: dict[str, Any] = {"rate": "", "accuracy": ""}
            task = bars.add_task(title, total=epochs, completed=first, **empty)
            many = self._is_one_of_many()
            whole = bars.add_task(self._place(), total=epochs * self.n_cohorts, visible=many, **empty)

            def epoch(number: int) -> None:
                rate = f"{images / max(time.monotonic() - start, 1e-9):,.0f} img/s"
                bars.update(task, completed=number, rate=rate, accuracy=accuracies(cohort))
                bars.update(whole, completed=epochs * self.n_done + number)

            yield ProgressCallbacks(step, epoch)
        self._log_cohort(title, cohort, time.monotonic() - start, images)

    @contextmanager
    def board(self, what: str, total: int) -> Iterator[Board]:
        """Follow what is done by workers: a bar for all of it, and one for each cohort in training."""
        if not self.live:
            yield Board()
            return
        columns = (
            "{task.description}",
            BarColumn(bar_width=16),
            TextColumn("{task.fields[count]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[accuracy]}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
        )
        with Bars(*columns, console=self.console, transient=True, expand=True) as bars:
            self.shown_board = Board(bars, what, total)
            try:
                yield self.shown_board
            finally:
                self.shown_board = Board()

    def log(self, line: str) -> None:
        if not self.quiet:
            self.console.print(line, highlight=False, markup=False)

    def _log_cohort(self, title: str, cohort: Cohort, seconds: float, images: int) -> None:
        rate = f"{images / max(seconds, 1e-9):,.0f} img/s"
        place = f"{self._place()}{self._time_left()}: " if self._is_one_of_many() else ""
        self.log(f"{place}{title}: {seconds:.1f} s, {rate}; validation {accuracies(cohort)}")

    def _is_one_of_many(self) -> bool:
        return self._in_cohort and self.n_cohorts > 1

    def _place(self) -> str:
        return f"cohort {self.n_done + 1} of {self.n_cohorts}"

    def _time_left(self) -> str:
        """At the pace of the cohorts so far, the one that ends now among them."""
        n_ended = self.n_done + 1
        seconds = (time.monotonic() - self._start) / n_ended * (self.n_cohorts - n_ended)
        return f", about {duration(seconds)} left" if seconds else ""


def duration(seconds: float) -> str:
    """'40 s', '12 min', '3 h 20 min'."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{max(seconds, 1):.0f} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def accuracies(cohort: Cohort) -> str:
    """'kd 88.3  dkd 89.0  crd diverged': the last validation accuracy of every member."""
    parts = []
    for member in cohort.members:
        metrics = member.history[-1]["metrics"] if member.history else {}
        top1 = metrics.get("validation/top1")
        failed = member.status not in ("running", "finished")
        parts.append(f"{member.name} {member.status if failed or top1 is None else f'{top1:.1f}'}")
    return "  ".join(parts)
