"""The job for a borrowed machine: parts before work, every stage once, all within its minutes."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tools import gpu_job
from tracking.parts import write_parts


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that the job calls; none is run."""
    made: list[list[str]] = []

    def call(self: gpu_job.Job, log: str, words: Iterable[str], seconds: float) -> int:
        made.append(list(words))
        (self.work / "logs" / log).write_text("printed")
        return 0

    monkeypatch.setattr(gpu_job, "BUILD", tmp_path / "build")
    monkeypatch.setattr(gpu_job.Job, "call", call)
    return made


def job(out: Path, **changes: Any) -> gpu_job.Job:
    given = dict(minutes=9.0, out=out, only="test,time,train", device="cuda", suite="cifar100", sets=["data.train=90"])
    given |= dict(methods=gpu_job.METHODS, pairs=",".join(gpu_job.PAIRS), seeds="3")
    return gpu_job.Job(argparse.Namespace(**given | changes))


def test_tests_and_timings_once_and_training_every_time(calls: list[list[str]], tmp_path: Path) -> None:
    assert job(tmp_path / "out").run() == 0
    kinds = [words[2] if words[1] == "bench" else words[1] for words in calls]
    assert kinds == ["pytest", *["time"] * 4, "run"]
    run = calls[-1]
    assert run[:4] == ["-m", "bench", "run", "cifar100"]
    assert "pairs=['resnet32x4 -> resnet8x4', 'resnet56 -> resnet20']" in run  # of one suite, by priority
    assert 8.0 < float(run[run.index("--minutes") + 1]) < 9.0 and "--no-report" in run
    assert len(list((tmp_path / "out" / "logs").iterdir())) == 6
    calls.clear()
    assert job(tmp_path / "out").run() == 0
    assert [words[2] for words in calls] == ["run"]


def test_nothing_begins_where_no_time_is_left(calls: list[list[str]], tmp_path: Path) -> None:
    assert job(tmp_path / "out", minutes=0.4).run() == 0 and calls == []


def test_an_unknown_stage_is_refused(
    calls: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job(tmp_path / "out", only="tset").run() == 2 and "--only test,time,train" in capsys.readouterr().err


def test_a_part_that_is_missing_ends_the_call(calls: list[list[str]], tmp_path: Path) -> None:
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "result.json").write_text('{"result-000": 5}')
    with pytest.raises(SystemExit, match="result-000 of build/gpu is not here yet"):
        job(tmp_path / "out").run()
    assert calls == []


def test_results_of_an_earlier_machine_go_on(calls: list[list[str]], tmp_path: Path) -> None:
    earlier = tmp_path / "earlier"
    (earlier / "cifar100").mkdir(parents=True)
    (earlier / "cifar100" / "suite.json").write_text("{}")
    (tmp_path / "build").mkdir()
    write_parts(earlier, tmp_path / "build", "result")
    assert job(tmp_path / "out", only="train").run() == 0
    assert (tmp_path / "build" / "work" / "results" / "cifar100" / "suite.json").read_text() == "{}"
    assert (tmp_path / "out" / "result-000").exists()
