"""Being asked to stop: by Ctrl-C, by a system that takes its machine back (SIGTERM), by the process that started it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

FROM_OUTSIDE = (signal.SIGINT, signal.SIGTERM)
FROM_PARENT = signal.SIGUSR1  # to a worker by the process that started it
SIGNALS = (*FROM_OUTSIDE, FROM_PARENT)
GRACE_S = 5.0  # how long the end of an epoch is waited for: systems kill what has not left after 10 s or more


class Interrupted(BaseException):
    """A signal asked this process to stop. No KeyboardInterrupt, since typer would make of that what it likes."""

    def __init__(self, number: int, between_epochs: bool = False) -> None:
        super().__init__(number, between_epochs)
        self.number = number
        self.between_epochs = between_epochs  # raised between two epochs: what trains is in a state worth keeping


@contextmanager
def stop_gracefully() -> Iterator[Callable[[], None]]:
    """In the block a first signal raises `Interrupted` where the yielded function is next called (the end of an epoch),
    or after `GRACE_S` wherever the block then is; a second one ends the process at once. A signal that the process was
    started to ignore, as the shell starts `command &` in a script with Ctrl-C's, stays ignored."""
    signals: list[int] = []

    def request_stop(number: int, frame: object) -> None:
        if signals:
            os._exit(128 + number)
        signals.append(number)
        signal.setitimer(signal.ITIMER_REAL, GRACE_S)

    def raise_interrupted(number: int, frame: object) -> None:
        raise Interrupted(signals[0])

    def raise_if_asked() -> None:
        if signals:
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise Interrupted(signals[0], between_epochs=True)

    if threading.current_thread() is not threading.main_thread():  # signals reach the main thread alone
        yield lambda: None
        return
    handled = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, request_stop) for number in handled}
    before[signal.SIGALRM] = signal.signal(signal.SIGALRM, raise_interrupted)
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
