"""Who works on what: a claim is a file that names its owner, and is touched again and again while the owner lives.

A claim is taken by one process at a time, whoever else looks at the same results folder, on this machine or another.
An owner that was killed leaves its claim behind: on its own machine that shows at once, elsewhere after `DEAD_S`
without a beat. Its successor takes the claim over; the file says which records the owner was writing.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any, TypeVar

from tracking.lines import replace
from tracking.locks import boot_id, locked

BEAT_S, DEAD_S = 10.0, 60.0
WAIT_S = 2.0  # until a claim that another process holds is looked at again
T = TypeVar("T")


class Held(Exception):
    """Another process works on it; says who."""


def file_of(folder: Path, name: str) -> Path:
    """Where the claim of that name lies, below the folder of the suite (or of the teachers)."""
    return folder / "claims" / (re.sub(r"[^\w.()+=,-]+", "_", name.replace("->", "--")) + ".json")


@contextmanager
def claim(path: Path, what: str, records: Iterable[Path] = ()) -> Iterator[Callable[[], None]]:
    """Hold the claim in the block, or raise `Held`. Yields a check that raises `Held` where the claim was lost after
    all: this process slept for longer than `DEAD_S`, and another one went on.

    records: the folders of the records that the owner writes, for those who find it dead.
    """
    mine = {"id": uuid.uuid4().hex, "what": what, **_here(), "records": [str(folder.absolute()) for folder in records]}
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.parent / ".lock"):
        if (owner := _read(path)) and _lives(owner, path):
            raise Held(f"{what}: in work by process {owner['pid']} on {owner['host']}")
        replace(path, json.dumps(mine))
    done = Event()
    heart = Thread(target=_beat, args=(path, done), name="claim", daemon=True)
    heart.start()

    def check() -> None:
        if _read(path).get("id") != mine["id"]:
            raise Held(f"{what}: taken over by another process while this one slept")

    try:
        yield check
    finally:
        done.set()
        heart.join()
        with suppress(Held):
            check()
            path.unlink(missing_ok=True)


def run_each_when_free(acts: Iterable[Callable[[], T]], say: Callable[[str], None]) -> Iterator[T]:
    """What each act returns. One that another process holds is left for the end, and tried until that one is through;
    says once for whom it waits."""
    queue, held_in_a_row, said = deque(acts), 0, ""
    while queue:
        act = queue.popleft()
        try:
            done = act()
        except Held as held:
            queue.append(act)
            held_in_a_row += 1
            if held_in_a_row >= len(queue):
                if str(held) != said:
                    say(f"waiting for {(said := str(held))}")
                time.sleep(WAIT_S)
                held_in_a_row = 0
        else:
            held_in_a_row = 0
            yield done


def run_when_free(act: Callable[[], T], say: Callable[[str], None]) -> T:
    """What `act` returns, once nobody else holds what it claims."""
    return next(run_each_when_free([act], say))


def take_dead_claims(folder: Path) -> list[Path]:
    """Remove the claims of dead owners below a suite's folder; the records that they were writing."""
    found: list[Path] = []
    for path in sorted(folder.glob("claims/*.json")):
        with locked(path.parent / ".lock"):
            if (owner := _read(path)) and not _lives(owner, path):
                path.unlink()
                found += map(Path, owner.get("records", []))
    return found


def _here() -> dict[str, Any]:
    """This process, and where its number means something."""
    return {"host": socket.gethostname(), "space": _space(), "pid": os.getpid(), "started": _started(os.getpid())}


def _space() -> list[str | None]:
    """Processes that agree in this see each other's numbers: two containers on one machine do not."""
    with suppress(OSError):
        return [socket.gethostname(), boot_id(), os.readlink("/proc/self/ns/pid")]  # noqa: PTH115  # not a path
    return [socket.gethostname(), boot_id(), None]


def _started(pid: int) -> str | None:
    """When a process began, in the kernel's ticks, so that a number used twice is told apart; None: it is gone, or
    dead and not yet waited for, or this system does not say."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state == "Z" else fields[18]


def _lives(owner: dict[str, Any], path: Path) -> bool:
    """Is the owner of a claim at work? Call it with the folder locked."""
    if owner.get("space") == _space() and owner.get("started"):
        return _started(owner["pid"]) == owner["started"]
    clock = path.parent / ".lock"
    os.utime(clock)  # both times are then by the file system's clock, whatever this machine's says
    try:
        return clock.stat().st_mtime - path.stat().st_mtime < DEAD_S
    except FileNotFoundError:
        return False


def _read(path: Path) -> dict[str, Any]:
    """The owner that a claim names; empty where there is none, or the file is torn."""
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def _beat(path: Path, done: Event) -> None:
    while not done.wait(BEAT_S):
        with suppress(OSError):
            os.utime(path)
