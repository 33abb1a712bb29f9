"""A real Ray on this machine, two workers: the numbers of the local executor, whoever is killed on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from tests.faults.conftest import SUITE, same_in_mlflow, same_results
from tracking.locks import process_may_live
from tracking.record import scan

pytest.importorskip("ray", reason="Ray is not installed; make test-scale does it")
pytestmark = [pytest.mark.scale, pytest.mark.slow]
ROOT = Path(__file__).parent.parent.parent
PLUGIN = """
from methods.kd import KD


class Mine(KD):
    def loss(self, s, t, y, at):
        return {name: 0.5 * term for name, term in super().loss(s, t, y, at).items()}
"""
PLAN = ["--trials", "4", "--batch", "2", "--rule", "best_trial", "--methods", "kd,dkd"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a cluster with two CPUs, and no more than that."""
    folder = tmp_path_factory.mktemp("ray")
    ray, port = str(Path(sys.executable).with_name("ray")), 20_000 + os.getpid() % 10_000
    options = ["--head", "--block", "--num-cpus=2", f"--port={port}", "--include-dashboard=false", "--num-gpus=0"]
    settings = {"PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    log = (folder / "log").open("w")
    process = subprocess.Popen(
        [ray, "start", *options], stdout=log, stderr=log, env={**os.environ, **settings}, start_new_session=True
    )
    end = time.monotonic() + 120
    while "Ray runtime started" not in (folder / "log").read_text():
        assert process.poll() is None and time.monotonic() < end, (folder / "log").read_text()
        time.sleep(0.5)
    yield f"127.0.0.1:{port}"
    os.killpg(process.pid, signal.SIGTERM)
    process.wait(60)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a suite whose cohorts take some seconds, and a method from elsewhere that it names."""
    folder = tmp_path_factory.mktemp("suite")
    protocol = {**SUITE["protocol"], "epochs": 250, "milestones": [170]}
    raw = {**SUITE, "protocol": protocol, "methods": ["kd", "mine"], "seeds": 3}
    (folder / "faulty.yaml").write_text(yaml.safe_dump(raw))
    (folder / "mine.py").write_text(PLUGIN)
    return folder


def started(verb: str, files: Path, results: Path, *words: str) -> subprocess.Popen[bytes]:
    log = results.with_suffix(".log").open("ab")
    command = [sys.executable, "-m", "bench", verb, str(files / "faulty.yaml"), "--results", str(results), *words]
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=environment)


def done(process: subprocess.Popen[bytes], results: Path) -> str:
    code, said = process.wait(1500), results.with_suffix(".log").read_text()
    assert code == 0, said
    return said


def workers(driver: subprocess.Popen[bytes], results: Path, n: int, but: int = 0) -> list[int]:
    """The process ids of n workers that train, as soon as there are as many besides that one."""
    end = time.monotonic() + 500
    while driver.poll() is None and time.monotonic() < end:
        pids = {r.environment["pid"] for r in scan(results / "faulty") if r.status == "running" and len(r.epochs)}
        if len(living := [pid for pid in pids if process_may_live(pid) and pid != but]) >= n:
            return living
        time.sleep(0.2)
    raise AssertionError(results.with_suffix(".log").read_text())


def test_whoever_is_killed_the_numbers_are_those_of_one_process(cluster: str, files: Path, tmp_path: Path) -> None:
    plugin = ["--plugin", str(files / "mine.py")]
    here, there = tmp_path / "here", tmp_path / "there"
    done(started("run", files, here, *plugin), here)
    ray = [*plugin, "--executor", "ray", "--address", cluster]
    driver = started("run", files, there, *ray)
    first = workers(driver, there, 2)  # two cohorts at a time
    os.kill(first[0], signal.SIGKILL)
    second = workers(driver, there, 1, but=first[0])  # and Ray tries again
    assert driver.poll() is None
    driver.kill()
    driver.wait()
    end = time.monotonic() + 30
    while any(map(process_may_live, second)):
        assert time.monotonic() < end, "its workers outlive the driver"
        time.sleep(0.1)
    stopped = started("run", files, there, *ray)
    workers(stopped, there, 1)
    stopped.send_signal(signal.SIGTERM)
    began = time.monotonic()
    assert stopped.wait(60) == 143, there.with_suffix(".log").read_text()
    took = time.monotonic() - began
    assert took < 15 and "interrupted" in {record.status for record in scan(there / "faulty")}
    done(started("run", files, there, *ray), there)
    assert same_results(there, here) > 1000
    assert same_in_mlflow(there, here) > 1000
    assert any(record.header.get("resumed") for record in scan(there / "faulty"))
    assert not [*there.glob(".ray-*")]


def trials_of(results: Path) -> list[Any]:
    storage = f"sqlite:///{results / 'optuna.db'}"
    studies = [optuna.load_study(study_name=name, storage=storage) for name in sorted(names(storage))]
    return [[(t.params, t.values, t.intermediate_values) for t in study.get_trials()] for study in studies]


def names(storage: str) -> list[str]:
    return [study.study_name for study in optuna.get_all_study_summaries(storage)]


def test_studies_side_by_side_are_told_what_one_process_tells_them(cluster: str, files: Path, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    short = ["--set", "protocol.epochs=3", "--set", "protocol.milestones=[2]", "--set", "methods=[kd,dkd]", *PLAN]
    done(started("tune", files, here, *short), here)
    done(started("tune", files, there, *short, "--executor", "ray", "--address", cluster), there)
    assert trials_of(there) == trials_of(here) and [len(trials) for trials in trials_of(here)] == [4, 4]
    for file in here.glob("tuned/*/*/*.yaml"):
        assert (there / file.relative_to(here)).read_text() == file.read_text()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--executor", "ray", "--address", "127.0.0.1:1"], "no Ray cluster at 127.0.0.1:1"),
        (
            ["--executor", "ray", "--gpus-per-cohort", "0.5"],
            "0.5 GPUs, and no machine",
        ),
        (
            ["--executor", "ray", "--set", "protocol.threads=64"],
            "64 CPUs, and no machine",
        ),
    ],
)
def test_what_cannot_be_is_one_line(words: list[str], reason: str, cluster: str, files: Path, tmp_path: Path) -> None:
    words += [] if "--address" in words else ["--address", cluster]
    words += ["--plugin", str(files / "mine.py")]
    process = started("run", files, tmp_path / "results", *words)
    code, said = process.wait(200), (tmp_path / "results.log").read_text()
    assert code == 2, said
    assert reason in said and "Traceback" not in said
