"""Being asked to stop: by Ctrl-C, or by a system that takes its machine back (SIGTERM)."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM)
GRACE_S = 5.0  # how long the end of an epoch is waited for: systems kill what has not left after 10 s or more


class Interrupted(BaseException):
    """A signal asked this process to stop. No KeyboardInterrupt, since typer would make of that what it likes."""

    def __init__(self, number: int, whole: bool = False) -> None:
        super().__init__(number, whole)
        self.number = number
        self.whole = whole  # raised between two epochs: what trains is in a state worth keeping


@contextmanager
def gracefully() -> Iterator[Callable[[], None]]:
    """In the block a first signal raises `Interrupted` where the yielded function is next called (the end of an epoch),
    or after `GRACE_S` wherever the block then is; a second one ends the process at once. A signal that the process was
    started to ignore, as the shell starts `command &` in a script with Ctrl-C's, stays ignored."""
    asked: list[int] = []

    def ask(number: int, frame: object) -> None:
        if asked:
            os._exit(128 + number)
        asked.append(number)
        signal.setitimer(signal.ITIMER_REAL, GRACE_S)

    def late(number: int, frame: object) -> None:
        raise Interrupted(asked[0])

    def pause() -> None:
        if asked:
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise Interrupted(asked[0], whole=True)

    if threading.current_thread() is not threading.main_thread():  # signals reach the main thread alone
        yield lambda: None
        return
    taken = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, ask) for number in taken}
    before[signal.SIGALRM] = signal.signal(signal.SIGALRM, late)
    try:
        yield pause
        if asked:  # too late to be noticed in the block
            raise Interrupted(asked[0])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def at_once() -> None:
    """From now on SIGTERM, too, raises `Interrupted`: for whatever runs outside `gracefully`."""

    def stop(number: int, frame: object) -> None:
        raise Interrupted(number)

    if signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN:
        signal.signal(signal.SIGTERM, stop)
