"""Who works on what: a claim is a file that names its owner, and is touched again and again while the owner lives.

A claim is taken by one process at a time, whoever else looks at the same results folder, on this machine or another.
An owner that was killed leaves its claim behind: on its own machine that shows at once, elsewhere after `STALE_S`
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

from bench.jobs import stop
from tracking.lines import write_atomically
from tracking.locks import boot_id, file_lock

HEARTBEAT_S, STALE_S = 10.0, 60.0
RETRY_S = 2.0  # until a claim that another process holds is looked at again
T = TypeVar("T")


class ClaimHeld(Exception):
    """Another process works on it; says who."""


def claim_file(folder: Path, name: str) -> Path:
    """Where the claim of that name lies, below the folder of the suite (or of the teachers)."""
    return folder / "claims" / (re.sub(r"[^\w.()+=,-]+", "_", name.replace("->", "--")) + ".json")


@contextmanager
def claim(
    path: Path, title: str, records: Iterable[Path] = (), *, exclusive: bool = False
) -> Iterator[Callable[[], None]]:
    """Hold the claim in the block, or raise `ClaimHeld`. Yields a check that raises `ClaimHeld` where the claim was
    lost after all: this process slept for longer than `STALE_S`, and another one went on.

    records: the folders of the records that the owner writes, for those who find it dead; exclusive: no other claim
    may name one of them, as that of a whole cohort and that of a part of it would.
    """
    content: dict[str, Any] = {
        "id": uuid.uuid4().hex,
        "what": title,
        **_this_process(),
        "records": [str(folder.absolute()) for folder in records],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(path.parent / ".lock"):
        for rival in [path, *(path.parent.glob("*.json") if exclusive else ())]:
            owner = _read_owner(rival)
            held = rival == path or {*owner.get("records", ())} & {*content["records"]}
            if owner and held and _owner_is_alive(owner, rival):
                raise ClaimHeld(f"{title}: in work by process {owner['pid']} on {owner['host']}")
        write_atomically(path, json.dumps(content))
    released = Event()
    heartbeat = Thread(target=_heartbeat, args=(path, released), name="claim", daemon=True)
    heartbeat.start()

    def check() -> None:
        if _read_owner(path).get("id") != content["id"]:
            raise ClaimHeld(f"{title}: taken over by another process while this one slept")

    try:
        yield check
    finally:
        released.set()
        heartbeat.join()
        with suppress(ClaimHeld):
            check()
            path.unlink(missing_ok=True)


def run_each_when_free(tasks: Iterable[Callable[[], T]], log: Callable[[str], None]) -> Iterator[T]:
    """What each task returns. One that another process holds is left for the end, and tried until that one is through;
    says once for whom it waits."""
    queue, held_in_a_row, last_message = deque(tasks), 0, ""
    while queue:
        task = queue.popleft()
        try:
            result = task()
        except ClaimHeld as held:
            queue.append(task)
            held_in_a_row += 1
            if held_in_a_row >= len(queue):
                if str(held) != last_message:
                    log(f"waiting for {(last_message := str(held))}")
                stop.raise_if_time_is_up()
                time.sleep(RETRY_S)
                held_in_a_row = 0
        else:
            held_in_a_row = 0
            yield result


def run_when_free(task: Callable[[], T], log: Callable[[str], None]) -> T:
    """What `task` returns, once nobody else holds what it claims."""
    return next(run_each_when_free([task], log))


def remove_stale_claims(folder: Path) -> list[Path]:
    """Remove the claims of dead owners below a suite's folder; the records that they were writing."""
    records: list[Path] = []
    for path in sorted(folder.glob("claims/*.json")):
        with file_lock(path.parent / ".lock"):
            if (owner := _read_owner(path)) and not _owner_is_alive(owner, path):
                path.unlink()
                records += map(Path, owner.get("records", []))
    return records


def _this_process() -> dict[str, Any]:
    """This process, and where its number means something."""
    return {
        "host": socket.gethostname(),
        "space": _pid_namespace(),
        "pid": os.getpid(),
        "started": _start_time(os.getpid()),
    }


def _pid_namespace() -> list[str | None]:
    """Processes that agree in this see each other's numbers: two containers on one machine do not."""
    with suppress(OSError):
        return [socket.gethostname(), boot_id(), os.readlink("/proc/self/ns/pid")]  # noqa: PTH115  # not a path
    return [socket.gethostname(), boot_id(), None]


def _start_time(pid: int) -> str | None:
    """When a process began, in the kernel's ticks, so that a number used twice is told apart; None: it is gone, or
    dead and not yet waited for, or this system does not say."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state == "Z" else fields[18]


def _owner_is_alive(owner: dict[str, Any], path: Path) -> bool:
    """Is the owner of a claim at work? Call it with the folder locked."""
    if owner.get("space") == _pid_namespace() and owner.get("started"):
        return _start_time(owner["pid"]) == owner["started"]
    clock = path.parent / ".lock"
    os.utime(clock)  # both times are then by the file system's clock, whatever this machine's says
    try:
        return clock.stat().st_mtime - path.stat().st_mtime < STALE_S
    except FileNotFoundError:
        return False


def _read_owner(path: Path) -> dict[str, Any]:
    """The owner that a claim names; empty where there is none, or the file is torn."""
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def _heartbeat(path: Path, released: Event) -> None:
    while not released.wait(HEARTBEAT_S):
        with suppress(OSError):
            os.utime(path)
