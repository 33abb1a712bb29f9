"""Being asked to stop: what the last step gave is kept, and the same command goes on."""

from __future__ import annotations

import multiprocessing
import signal
import time
from pathlib import Path

import pytest

from bench.jobs import run, stop
from tests.faults.child import start
from tests.faults.conftest import same_in_mlflow, same_results, words
from tracking.record import Record, scan


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_it_keeps_leaves_and_goes_on(
    number: signal.Signals, tmp_path: Path, suite_file: Path, whole: tuple[Path, float]
) -> None:
    results, log = tmp_path / "results", tmp_path / "stopped.log"
    process = start(words(suite_file, results), log, every_s=1000, asked_by=number)  # no other checkpoint
    while process.is_alive() and not [*results.glob("faulty/runs/*")]:
        time.sleep(0.005)
    began = time.monotonic()
    process.join()
    assert process.exitcode == 128 + number and time.monotonic() - began < 10, log.read_text()
    assert "kdbench: stopped; the same command" in log.read_text()
    stopped = [record for record in scan(results / "faulty") if record.status == "interrupted"]
    assert len(stopped) == 2 and all(not r.epochs and (r.folder / "checkpoint.pt").exists() for r in stopped)
    process = start(words(suite_file, results), log)
    process.join()
    assert process.exitcode == 0, log.read_text()
    same_results(results, whole[0])
    same_in_mlflow(results, whole[0])


def test_the_runs_of_the_dead_are_ended_at_the_next_start(tmp_path: Path, suite_file: Path) -> None:
    results = tmp_path / "results"
    process = start(words(suite_file, results), tmp_path / "log")
    while process.is_alive() and len([r for r in scan(results / "faulty") if r.epochs]) < 2:
        time.sleep(0.005)
    process.kill()
    process.join()
    killed, told = scan(results / "faulty"), list[Record]()
    assert [record.status for record in killed] == ["running"] * 2

    class RecordMirror:
        offer = finish = told.append

    run.end_orphaned_runs(results / "faulty", RecordMirror())  # type: ignore[arg-type]
    assert [record.status for record in killed] == ["interrupted"] * 2 and len(told) == 2
    assert killed[0].final is not None and killed[0].final["reason"].startswith("its process is gone")
    run.end_orphaned_runs(results / "faulty", RecordMirror())  # type: ignore[arg-type]
    assert len(told) == 2


def test_a_step_that_does_not_end_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stop, "GRACE_S", 0.05)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(stop.Interrupted) as stopped, stop.stop_gracefully():
        signal.raise_signal(signal.SIGTERM)
        time.sleep(30)
    assert stopped.value.number == signal.SIGTERM and not stopped.value.between_steps
    assert signal.getsignal(signal.SIGINT) is before


def test_the_end_of_a_step_is_waited_for() -> None:
    reached = False
    with pytest.raises(stop.Interrupted) as stopped, stop.stop_gracefully() as pause:
        signal.raise_signal(signal.SIGINT)
        reached = True
        pause()
    assert reached and stopped.value.between_steps and signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_one_that_the_process_was_started_to_ignore_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop.stop_gracefully() as pause:
            signal.raise_signal(signal.SIGINT)
            pause()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def _stubborn() -> None:
    with stop.stop_gracefully():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)


def test_a_second_one_leaves_at_once() -> None:
    process = multiprocessing.get_context("fork").Process(target=_stubborn)
    process.start()
    process.join(5)
    assert process.exitcode == 130
