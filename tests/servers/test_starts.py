"""Eight processes at the same instant, where nothing has been initialised yet."""

from __future__ import annotations

import resource
import sqlite3
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
import sqlalchemy

from tests.servers.conftest import Postgres
from tests.tracking.conftest import Make
from tests.tracking.test_report import clone
from tracking.query import runs
from tracking.store import Store

ROOT = Path(__file__).parents[2]
EIGHT = """
import os, sys, time
from pathlib import Path
import mlflow, optuna, torch
from bench.tune.storage import connect, load_study
from optuna.study import StudyDirection
from tests.tracking.conftest import environment, rows, spec
from tracking.record import Record
from tracking.store import Store

folder, uri, studies = sys.argv[1:]
optuna.logging.set_verbosity(optuna.logging.ERROR)
start, children = time.monotonic() + 0.5, []

def work(seed):
    own = Path(folder) if uri.startswith("sqlite") else Path(folder, str(seed))  # machines that share a server alone
    own.mkdir(exist_ok=True)
    record = Record(own / "tiny" / "runs" / f"f{seed}")
    record.begin(f"f{seed}", spec(seed), environment())
    record.write_epochs(rows(3))
    record.end("finished", "", {"test/top1": 0.5}, [])
    time.sleep(max(0.0, start - time.monotonic()))
    study = load_study(connect(studies, own), "s", [StudyDirection.MAXIMIZE], {"a": 1})
    study.add_trial(optuna.create_trial(value=float(seed)))
    Store(uri, own).deliver(record)

for seed in range(8):
    if (child := os.fork()) == 0:
        try:
            work(seed)
            os._exit(0)
        except BaseException as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\\n")
            os._exit(1)
    children.append(child)
sys.exit(sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
"""


def eight(folder: Path, uri: str, studies: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", EIGHT, str(folder), uri, studies],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert runs(uri, "tiny", results=folder)["seed"].tolist() == list(range(8))
    trials = optuna.load_study(study_name="s", storage=studies).get_trials()
    assert [trial.number for trial in trials] == list(range(8))
    assert sorted(trial.value for trial in trials if trial.value is not None) == list(range(8))


def test_eight_processes_start_on_an_empty_folder(tmp_path: Path) -> None:
    eight(tmp_path, f"sqlite:///{tmp_path}/mlflow.db", f"sqlite:///{tmp_path}/optuna.db")
    for name in ("mlflow.db", "optuna.db"):
        connection = sqlite3.connect(tmp_path / name)
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
        versions = connection.execute("select count(*) from alembic_version").fetchone()
        assert versions == (1,), "one process made the tables"
        connection.close()
    mode = sqlite3.connect(tmp_path / "mlflow.db").execute("pragma journal_mode").fetchone()
    assert mode == ("wal",)


@pytest.mark.slow
def test_eight_machines_start_on_an_empty_database_server(tmp_path: Path, postgres: Postgres) -> None:
    tracking, studies = postgres.database("mlflow"), postgres.database("optuna")
    eight(tmp_path, tracking, studies)
    for url in (tracking, studies):
        with sqlalchemy.create_engine(url).connect() as connection:
            assert connection.execute(sqlalchemy.text("select count(*) from alembic_version")).scalar() == 1
    places = [found.artifact_location for found in Store(tracking, tmp_path).client.search_experiments()]
    assert sum(place.startswith(tmp_path.as_uri()) for place in places) == len(places) - 1, "all but MLflow's own"


@pytest.mark.slow
def test_10000_runs_in_the_store_do_not_slow_a_suite(make: Make, tmp_path: Path, tiny_file: Path) -> None:
    """The whole command, which logs four runs and a report into an experiment of 1 and of 10,000 runs."""
    took: dict[int, list[float]] = {0: [], 9_999: []}
    record = make()
    for turn, copies in [(turn, copies) for turn in range(2) for copies in took]:
        results = tmp_path / f"beside{copies}-{turn}"
        Store(f"sqlite:///{results}/mlflow.db", results).deliver(record)
        if copies:
            clone(results / "mlflow.db", copies)
        command = [sys.executable, "-m", "bench", "run", str(tiny_file), "--results", str(results), "--quiet"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == 0 and "MLflow holds every run" in done.stdout, done
        took[copies].append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    print("processor seconds beside 1 and 10,000 runs:", took)  # noqa: T201
    assert min(took[9_999]) - min(took[0]) < 1.0  # the least: other work on the machine only adds
