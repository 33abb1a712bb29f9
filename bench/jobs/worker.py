"""A task in a process that works for another one: its data, its context, its lines; whoever brought it there."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from io import StringIO
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from os import _exit, getpid, kill
from threading import Thread
from time import sleep
from traceback import format_exception
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console

from bench import data as datasets
from bench import environment as env
from bench.jobs import claims, stop
from bench.jobs.local import LocalExecutor, Task
from bench.jobs.progress import CohortNews, Progress, ProgressCallbacks, accuracies

if TYPE_CHECKING:
    from bench.training.cohort import Cohort


@dataclass(frozen=True)
class Outcome:
    """What came of a task, and what was said on the way."""

    value: Any  # what it returned; `claims.ClaimHeld`, where another process holds what it claims
    lines: str  # of the progress
    notices: str  # of the error stream


class Worker:
    """Runs tasks one after the other; what two of them have in common (data, a pair's teacher) stays loaded."""

    def __init__(
        self, device: str, threads: int, command: str, send: Callable[[CohortNews], None] = lambda news: None
    ) -> None:
        """threads: of the CPU; command: that the records name; send: takes how far the cohort in training is."""
        torch.set_num_threads(threads)
        self.device, self.lines = env.resolve_device(device), StringIO()
        self.environment = {**env.describe(self.device), "command": command}
        self.progress = RelayedProgress(Console(file=self.lines, width=1000), send)
        self._loaded: tuple[object, LocalExecutor] | None = None

    def run(self, task: Task) -> Outcome:
        notices = StringIO()
        self.lines.seek(self.lines.truncate(0))
        try:
            with redirect_stderr(notices):
                value = task.run(self._executor(task).context(task))
        except claims.ClaimHeld as held:
            return Outcome(held, "", "")
        return Outcome(value, self.lines.getvalue(), notices.getvalue())

    def _executor(self, task: Task) -> LocalExecutor:
        """What holds the task's data and context."""
        key = (task.suite.data, task.opens_test_split, task.results)
        if self._loaded is None or self._loaded[0] != key:
            self._loaded = None  # its memory goes before other data come
            data = datasets.load(task.suite.data, self.device, test=task.opens_test_split)
            self._loaded = key, LocalExecutor(data, task.results, self.environment, self.progress, None)
        return self._loaded[1]


class RelayedProgress(Progress):
    """Lines as without a terminal; epochs are passed on."""

    def __init__(self, console: Console, send: Callable[[CohortNews], None]) -> None:
        super().__init__(console)
        self.send = send

    @contextmanager
    def cohort(self, title: str, cohort: Cohort) -> Iterator[ProgressCallbacks]:
        with super().cohort(title, cohort) as callbacks:

            def after_epoch(number: int) -> None:
                self.send(CohortNews(title, number, cohort.protocol.epochs, accuracies(cohort)))

            yield ProgressCallbacks(callbacks.after_step, after_epoch)


def serve(connection: Connection, device: str, threads: int, command: str, live: bool) -> None:
    """The life of a worker process of this machine: takes tasks from the connection until its other end is closed.

    It listens to the process that started it alone: Ctrl-C in a terminal, or a system that ends all processes of a job,
    reaches that one as well, and it says what is to be done. live: whether anybody looks at how far a cohort is.
    """
    for number in stop.FROM_OUTSIDE:
        signal.signal(number, signal.SIG_IGN)
    Thread(target=_leave_with_parent, daemon=True).start()
    worker = Worker(device, threads, command, connection.send if live else lambda news: None)
    while True:
        try:
            task = connection.recv()
            try:
                connection.send(worker.run(task))
            except Exception as error:
                connection.send(_sendable(error))
        except (stop.Interrupted, EOFError, OSError):  # asked to stop, or the other end is gone
            return


def _sendable(error: Exception) -> Exception:
    """The error, with the traceback of this process as a note."""
    error.add_note("".join(format_exception(error)))
    return error


def _leave_with_parent() -> None:
    """What the parent's death asks for is what the parent would ask for."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    kill(getpid(), stop.FROM_PARENT)
    sleep(stop.GRACE_S + 1)
    _exit(1)
