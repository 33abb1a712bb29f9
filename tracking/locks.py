"""File locks between processes, and whether a process still lives."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a folder, or on a file that is made for it. Freed with the process, however it ends.

    NFS locks only what is open for writing, which no folder can be: a file `.lock` in it then stands for it.
    """
    flags = os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT
    handle = os.open(path, flags, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno != errno.EBADF or not path.is_dir():
                raise
            with file_lock(path / ".lock"):
                yield
        else:
            yield
    finally:
        os.close(handle)


def process_may_live(pid: object) -> bool:
    """True unless there is certainly no such process on this machine."""
    try:
        os.kill(int(str(pid)), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except (ValueError, PermissionError):
        return True
    return True


def boot_id() -> str | None:
    """Changes with every start of the machine: process ids of an earlier one mean nothing."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
