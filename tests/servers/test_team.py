"""A team's servers: MLflow's over PostgreSQL, studies in PostgreSQL; both restarted while machines work."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from tests.servers.conftest import MlflowServer, Postgres
from tests.servers.held import holds_exactly
from tests.servers.proxy import waited
from tracking.mirror import records

ROOT = Path(__file__).parents[2]
TRIALS = 8


@pytest.mark.slow
def test_a_team_whose_servers_restart_while_it_works(tmp_path: Path, tiny: dict[str, Any], postgres: Postgres) -> None:
    """One machine runs a suite, two tune: the same study, and one of their own each. Nobody shares a folder."""
    studies = postgres.database("optuna")
    server = MlflowServer(postgres.database("mlflow"), tmp_path)
    raw = {**tiny, "methods": ["vanilla", "kd", "dkd"], "seeds": 3}
    raw["protocol"] = {**tiny["protocol"], "epochs": 10, "milestones": [8], "threads": 1}
    raw["tune"] = {"trials": TRIALS, "batch": 2, "rule": "best_trial"}
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump({k: v for k, v in raw.items() if k != "name"}))
    environment = {**os.environ, "MLFLOW_TRACKING_URI": server.uri, "MLFLOW_HTTP_REQUEST_TIMEOUT": "2"}

    def machine(name: str, *words: str) -> subprocess.Popen[bytes]:
        log = (tmp_path / f"{name}.log").open("wb")
        command = [sys.executable, "-m", "bench", words[0], str(file), *words[1:], "--results", str(tmp_path / name)]
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)

    machines = {
        "a": machine("a", "tune", "--methods", "kd", "--storage", studies),
        "b": machine("b", "tune", "--methods", "kd,dkd", "--storage", studies),
        "c": machine("c", "run"),
    }
    try:
        assert waited(lambda: len(told(studies, "kd")) >= 2, 180), said(tmp_path, machines)
        server.stop()
        postgres.stop()
        assert waited(lambda: "is away" in said(tmp_path, machines), 60), said(tmp_path, machines)
        time.sleep(2)
        postgres.start()
        server.start()
        for name, process in machines.items():
            assert process.wait(300) == 0, (name, said(tmp_path, machines))
        for name in machines:
            sync = [sys.executable, "-m", "bench", "sync", "--results", str(tmp_path / name)]
            done = subprocess.run(sync, cwd=ROOT, env=environment, capture_output=True, text=True)
            assert done.returncode == 0 and "0 failed" in done.stdout, done
        _nothing_is_missing(tmp_path, server.uri, studies)
    finally:
        for process in machines.values():
            process.kill()
        server.stop()


def _nothing_is_missing(folder: Path, uri: str, studies: str) -> None:
    assert all(record.status == "finished" for record in records(folder / "c"))
    chosen = [yaml.safe_load(next((folder / n / "tuned").glob("*/*/kd.yaml")).read_text()) for n in ("a", "b")]
    assert chosen[0]["values"] == chosen[1]["values"] and chosen[0]["trial"] == chosen[1]["trial"]
    for method in ("kd", "dkd"):
        trials = told(studies, method)
        assert [trial.number for trial in trials] == list(range(TRIALS))
        assert all(trial.state.name == "COMPLETE" for trial in trials)
        assert len({tuple(trial.params.values()) for trial in trials}) == TRIALS  # told twice would be there twice
    together = folder / "together" / "tiny"
    for name in "abc":
        for record in records(folder / name):
            place = together / record.folder.relative_to(folder / name / "tiny").parent / f"{name}-{record.folder.name}"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(record.folder)
    assert holds_exactly(uri, folder / "together") > 1000


def told(studies: str, method: str) -> list[optuna.trial.FrozenTrial]:
    name = f"tiny/resnet8w8->resnet8w4/{method}"
    with suppress(Exception):  # not there yet
        return optuna.load_study(study_name=name, storage=studies).get_trials()
    return []


def said(folder: Path, machines: dict[str, Any]) -> str:
    return "\n".join(f"{name}: {(folder / f'{name}.log').read_text()[-1500:]}" for name in machines)
