"""Being asked to stop: by Ctrl-C, by a system that takes its machine back (SIGTERM), by the process that started it, or
by the end of the time that a call was given (`--minutes`)."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bench.errors import UserError

FROM_OUTSIDE = (signal.SIGINT, signal.SIGTERM)
FROM_PARENT = signal.SIGUSR1  # to a worker by the process that started it
TIME_IS_UP = signal.SIGALRM  # to this process by its own timer
SIGNALS = (*FROM_OUTSIDE, FROM_PARENT)
GRACE_S = 5.0  # how long the end of a step is waited for: systems kill what has not left after 10 s or more
LEAVE_S = 15.0  # before the end of its time a call begins to leave: the grace, checkpoints, and what goes to MLflow
BEGAN = time.monotonic()

_end = float("inf")  # of this process's time, by the monotonic clock


class Interrupted(BaseException):
    """A signal asked this process to stop. No KeyboardInterrupt, since typer would make of that what it likes."""

    def __init__(self, number: int, between_steps: bool = False) -> None:
        super().__init__(number, between_steps)
        self.number = number
        self.between_steps = between_steps  # raised between two steps: what trains is in a state worth keeping


def end_after(seconds: float) -> None:
    """Give this process so much time from its beginning: `stop_gracefully` then asks it to stop. Raises `UserError`
    where that is over already."""
    global _end
    _end = BEGAN + seconds - LEAVE_S
    if time.monotonic() >= _end:
        needed = time.monotonic() - BEGAN + LEAVE_S
        raise UserError(
            f"--minutes {seconds / 60:g}: to start and to leave takes {needed:.0f} s alone; type --minutes 2"
        )


def _seconds_left() -> float:
    """Until this process is to stop, more than none; 0: it has all the time."""
    return max(_end - time.monotonic(), 1e-3) if _end < float("inf") else 0.0


def raise_if_time_is_up() -> None:
    """For whoever waits outside `stop_gracefully`."""
    if time.monotonic() >= _end:
        raise Interrupted(TIME_IS_UP)


@contextmanager
def stop_gracefully() -> Iterator[Callable[[], None]]:
    """In the block a first signal raises `Interrupted` where the yielded function is next called (between two steps),
    or after `GRACE_S` wherever the block then is; a second one ends the process at once. A signal that the process was
    started to ignore, as the shell starts `command &` in a script with Ctrl-C's, stays ignored."""
    signals: list[int] = []

    def request_stop(number: int, frame: object) -> None:
        if signals:
            os._exit(128 + number)
        signals.append(number)
        signal.setitimer(signal.ITIMER_REAL, GRACE_S)

    def hear_timer(number: int, frame: object) -> None:
        if signals:  # the grace is over
            raise Interrupted(signals[0])
        request_stop(number, frame)

    def raise_if_asked() -> None:
        if signals:
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise Interrupted(signals[0], between_steps=True)

    if threading.current_thread() is not threading.main_thread():  # signals reach the main thread alone
        yield lambda: None
        return
    handled = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, request_stop) for number in handled}
    before[signal.SIGALRM] = signal.signal(signal.SIGALRM, hear_timer)
    signal.setitimer(signal.ITIMER_REAL, _seconds_left())
    try:
        yield raise_if_asked
        if signals:  # too late to be noticed in the block
            raise Interrupted(signals[0])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def raise_on_sigterm() -> None:
    """From now on SIGTERM, too, raises `Interrupted`: for whatever runs outside `stop_gracefully`."""

    def raise_interrupted(number: int, frame: object) -> None:
        raise Interrupted(number)

    if signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN:
        signal.signal(signal.SIGTERM, raise_interrupted)
