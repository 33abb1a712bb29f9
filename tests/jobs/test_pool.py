"""Cohorts and studies in processes side by side: the numbers of one process, whoever is killed on the way."""

from __future__ import annotations

import dataclasses
import io
import os
import re
import signal
from pathlib import Path
from threading import Thread
from typing import Any

import optuna
import pytest
import torch
from rich.console import Console

from bench import tune
from bench.errors import UserError
from bench.jobs import claims, pool
from bench.jobs.cohort_job import CohortJob
from bench.jobs.progress import CohortNews, Progress
from bench.jobs.run import SuiteOutcome, run_suite
from bench.memory import available_memory_bytes, physical_memory_bytes
from bench.suite import suite as suites
from bench.suite.suite import Suite
from tests.faults.child import start
from tests.faults.conftest import SUITE, same_results, working
from tests.prose import Prose
from tracking.record import scan

PAIRS = ["resnet8w8 -> resnet8w4", "resnet8w6 -> resnet8w4"]
CPU = torch.device("cpu")


def suite_of(**changes: Any) -> Suite:
    protocol = {**SUITE["protocol"], "epochs": 4, "milestones": [3]}
    return suites.validate({**SUITE, "name": "faulty", "protocol": protocol, **changes}, "a test")


def train(suite: Suite, results: Path, workers: int | None) -> tuple[SuiteOutcome, str]:
    """What it did, and what it said."""
    said = io.StringIO()
    progress = Progress(Console(file=said, width=1000))
    outcome = run_suite(
        suite, results, device=CPU, rerun=False, progress=progress, mirror=None, workers=workers, group_size=0
    )
    return outcome, said.getvalue()


def test_two_processes_give_the_bits_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite, here, there = suite_of(pairs=PAIRS), tmp_path / "here", tmp_path / "there"
    alone, said_alone = train(suite, here, 1)
    both, said = train(suite, there, 2)
    assert both == dataclasses.replace(alone, fingerprints=both.fingerprints) and both.n_trained == 8
    assert same_results(there, here) > 100
    assert len({record.environment["pid"] for record in scan(there / "faulty")} - {os.getpid()}) == 2
    # cohorts that are trained one after another are counted in their lines, those side by side in a bar
    lines = [re.sub(r"^cohort \d of 4(, about [^:]+ left)?: ", "", line) for line in said_alone.splitlines()]
    assert lines != said_alone.splitlines()
    assert sorted(line.split(":")[0] for line in said.splitlines()) == sorted(line.split(":")[0] for line in lines)
    monkeypatch.setattr(pool, "start_loading", lambda suite: pytest.fail("it is finished"))
    assert train(suite, there, 2)[0].n_trained == 0
    one = suite.model_copy(update={"seeds": [7], "pairs": suite.pairs[:1]})
    assert train(one, there, 2)[0].n_trained == 2  # a single cohort


def test_a_killed_worker_is_replaced_and_the_last_cohort_shared(tmp_path: Path) -> None:
    suite, here, there = suite_of(seeds=3), tmp_path / "here", tmp_path / "there"
    killer = Thread(target=lambda: os.kill(working(there)[0], signal.SIGKILL))
    killer.start()
    outcome, said = train(suite, there, 2)
    killer.join()
    assert outcome.n_trained == 6 and not outcome.failures
    (line,) = [line for line in said.splitlines() if "killed" in line]
    assert line.endswith("its worker was killed (SIGKILL); another one goes on from the checkpoints")
    assert "seed 2 part 1 of 2: " in said and "seed 2 part 2 of 2: " in said
    train(suite, here, 1)
    assert same_results(there, here) > 100
    assert said.count("% on validation") == 1


def test_one_that_dies_again_and_again_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "serve", os._exit)  # takes the connection for a code: a TypeError, and the process ends
    outcome, said = train(suite_of(), tmp_path, 2)
    assert outcome.n_trained == 0 and len(outcome.failures) == 3
    assert outcome.failures[0] == "teacher resnet8w8: its worker left (code 1), for the 6th time"
    assert said.count("another one goes on") == 3 * 5


def test_studies_side_by_side_are_told_what_one_process_tells_them(tmp_path: Path) -> None:
    suite = suite_of(methods=["kd", "dkd"], tune={"trials": 3, "batch": 2, "rule": "best_trial"})
    for name, workers in (("here", 1), ("there", 2)):
        (tmp_path / name).mkdir()
        quiet = Progress(Console(file=io.StringIO()), quiet=True)
        tune.tune(suite, tmp_path / name, device=CPU, progress=quiet, workers=workers)
    here, there = (trials(f"sqlite:///{tmp_path / name}/optuna.db") for name in ("here", "there"))
    assert there == here and [len(told) for told in here] == [3, 3]


def trials(storage: str) -> list[Any]:
    names = sorted(study.study_name for study in optuna.get_all_study_summaries(storage))
    studies = [optuna.load_study(study_name=name, storage=storage) for name in names]
    return [[(t.params, t.values, t.intermediate_values) for t in study.get_trials()] for study in studies]


@pytest.mark.parametrize(
    ("asked", "changes", "size"),
    [
        (None, {}, 4),  # 8 cores for 2 threads each
        (None, {"threads": 16}, 1),
        (None, {"threads": None}, 1),
        (None, {"on_cpu": False}, 1),
        (None, {"n_tasks": 3}, 3),
        (None, {"free": 25}, 2),
        (None, {"free": 5}, 1),
        (None, {"n_tasks": 0}, 1),
        (6, {}, 6),
        (6, {"on_cpu": False, "threads": None}, 6),
        (6, {"n_tasks": 5}, 5),
        (6, {"free": 35}, 3),
    ],
)
def test_how_many_workers(asked: int | None, changes: dict[str, Any], size: int) -> None:
    given = {"n_tasks": 10, "cores": 8, "threads": 2, "on_cpu": True, "free": 1000, "needed": 10}
    assert pool.count_workers(asked, **{**given, **changes}) == size


def test_no_number_of_workers(tmp_path: Path, prose: Prose) -> None:
    for text in ("0", "-1", "many", "1.5", "²"):
        with pytest.raises(UserError) as refused:
            pool.workers_asked(text)
        assert text in str(refused.value)
    assert pool.workers_asked("3") == 3 and pool.workers_asked("auto") is None
    process = start(["run", "digits", "--results", str(tmp_path / "results"), "--workers", "0"], tmp_path / "log")
    process.join()
    assert process.exitcode == 2
    prose((tmp_path / "log").read_text())


def test_more_than_memory_allows_are_fewer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < available_memory_bytes() <= physical_memory_bytes()
    needed = 2**30
    monkeypatch.setattr(pool, "worker_bytes", lambda *_: needed)
    monkeypatch.setattr(pool, "available_memory_bytes", lambda: needed + 1)
    outcome, said = train(suite_of(), tmp_path, 2)
    assert outcome.n_trained == 4
    assert said.startswith("--workers 2: 1 at a time, since 1.0 GiB are free, and a worker takes about 1.0\n")


def test_parts_take_about_equally_long(tmp_path: Path) -> None:
    suite = suite_of(methods=["vanilla", "kd", "crd", "block_kd"])
    job = CohortJob(suite, tmp_path, ({},) * 4, ("a", "b", "c", "d"))
    parts = job.parts(2, [5.0, 6.0, 7.0, 19.0])
    assert [part.fingerprints for part in parts] == [("d",), ("a", "b", "c")]
    assert [[spec.title for spec in part.suite.methods] for part in parts] == [["block_kd"], ["vanilla", "kd", "crd"]]
    assert len({part.title for part in parts}) == 2 and len(job.parts(9, [1.0] * 4)) == 4


def test_a_cohort_and_a_part_of_it_are_not_trained_at_a_time(tmp_path: Path) -> None:
    records = [Path("a"), Path("b")]
    whole, part, other = (claims.claim_file(tmp_path, name) for name in ("seed 1", "seed 1 part 1 of 2", "seed 2"))
    with claims.claim(part, "part", records[:1], exclusive=True):
        with pytest.raises(claims.ClaimHeld), claims.claim(whole, "whole", records, exclusive=True):
            pass
        with claims.claim(other, "other", records[1:], exclusive=True):
            pass
    with claims.claim(whole, "whole", records, exclusive=True):
        pass


def test_one_display_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    screen = io.StringIO()
    progress = Progress(Console(file=screen, force_terminal=True, width=100))
    with progress.board("cohorts", 3) as board:
        board.show(CohortNews("a seed 0", 3, 6, "kd 88.3"))
        board.show(CohortNews("a seed 1", 5, 6, "kd 70.0"))
        board.count()
        board.remove("a seed 1")
    text = screen.getvalue()
    assert "1/3" in text and "a seed 0" in text and "3/6" in text and "kd 88.3" in text
    quiet = Progress(Console(file=(lines := io.StringIO())))
    with quiet.board("cohorts", 3) as board:
        board.show(CohortNews("a seed 0", 3, 6, "kd 88.3"))
        board.count()
    assert lines.getvalue() == ""
