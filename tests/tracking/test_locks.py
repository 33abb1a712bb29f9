"""Locks between processes."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
from pathlib import Path

import pytest

from tracking.locks import file_lock

FORK = multiprocessing.get_context("fork")


def _excluded(path: Path) -> bool:
    """Does another process wait for the lock?"""

    def take() -> None:
        with file_lock(path):
            pass

    process = FORK.Process(target=take)
    process.start()
    process.join(0.3)
    waits = process.is_alive()
    process.kill()
    process.join()
    return waits


@pytest.mark.parametrize("nfs", [False, True])
def test_a_folder_is_locked_also_where_only_files_can_be(
    nfs: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock = fcntl.flock

    def as_on_nfs(handle: int, how: int) -> None:
        if fcntl.fcntl(handle, fcntl.F_GETFL) & 3 == 0:  # open for reading alone
            raise OSError(errno.EBADF, "Bad file descriptor")
        flock(handle, how)

    if nfs:
        monkeypatch.setattr(fcntl, "flock", as_on_nfs)
    with file_lock(tmp_path):
        assert _excluded(tmp_path) and (tmp_path / ".lock").exists() == nfs
    assert not _excluded(tmp_path)
