"""Cohorts in processes side by side: whoever is told to stop or killed, all leave, and the same command goes on."""

from __future__ import annotations

import time
from pathlib import Path

from tests.faults.child import start
from tests.faults.conftest import same_in_mlflow, same_results, words, working
from tracking.locks import process_may_live
from tracking.record import scan


def test_workers_leave_with_their_parent(tmp_path: Path, suite_file: Path, whole: tuple[Path, float]) -> None:
    results, log = tmp_path / "results", tmp_path / "log"
    command = [*words(suite_file, results), "--workers", "2"]
    process = start(command, log)
    workers = working(results, 2)
    process.terminate()
    process.join()
    assert process.exitcode == 143 and log.read_text().endswith("stopped; the same command goes on where it was\n")
    assert not any(map(process_may_live, workers))
    stopped = [record for record in scan(results / "faulty") if record.status == "interrupted"]
    assert stopped and all((record.folder / "checkpoint.pt").exists() for record in stopped)
    process = start(command, log)
    workers = working(results)
    process.kill()
    process.join()
    end = time.monotonic() + 60
    while any(map(process_may_live, workers)):
        assert time.monotonic() < end, "they outlive it"
        time.sleep(0.02)
    process = start(command, log)
    process.join()
    assert process.exitcode == 0, log.read_text()
    same_results(results, whole[0])
    same_in_mlflow(results, whole[0])
    assert any(record.header.get("resumed") for record in scan(results / "faulty"))
