"""A disk that is full or read-only: one line, what was finished stays, and with space the same command goes on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.child import start
from tests.faults.conftest import same_in_mlflow, same_results, words
from tracking.record import scan


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(place)], capture_output=True).returncode:
        pytest.skip("mounting a small file system takes root")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def called(suite: Path, results: Path, log: Path) -> tuple[int | None, str]:
    log.write_text("")
    process = start(words(suite, results), log)
    process.join()
    return process.exitcode, log.read_text()


@pytest.mark.parametrize(
    "bytes_free", [[150_000], pytest.param([20_000, 60_000, 100_000, 250_000, 400_000], marks=pytest.mark.slow)]
)
def test_a_full_disk(
    bytes_free: list[int], disk: Path, tmp_path: Path, suite_file: Path, whole: tuple[Path, float]
) -> None:
    log, filler = tmp_path / "log", disk / "filler"
    results, safe = disk / "results", dict[str, bytes]()
    for free in bytes_free:
        space = os.statvfs(disk)
        size = space.f_bavail * space.f_frsize + (filler.stat().st_size if filler.exists() else 0) - free
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
        code, said = called(suite_file, results, log)
        assert code == 2 and "Traceback" not in said, said
        assert "No space left on device" in said.splitlines()[-1] or "full" in said.splitlines()[-1], said
        for name, content in safe.items():
            assert (results / name).read_bytes() == content
        done = [record for record in scan(results / "faulty") if record.status == "finished"]
        assert all(record.is_intact() for record in done)
        safe = {str(record.path.relative_to(results)): record.path.read_bytes() for record in done}
    filler.unlink()
    code, said = called(suite_file, results, log)
    assert code == 0, said
    same_results(results, whole[0])
    same_in_mlflow(results, whole[0])


def test_a_read_only_disk(disk: Path, tmp_path: Path, suite_file: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    code, said = called(suite_file, disk / "results", tmp_path / "log")
    assert code == 2 and said.count("\n") == 1 and "is not writable (Read-only file system)" in said
