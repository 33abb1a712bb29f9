"""A study in a process of its own, killed at random moments with a signal that nothing can catch."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import mlflow
import pytest
import yaml

from tests.tune.conftest import trials_of
from tracking.record import Record

ROOT = Path(__file__).parent.parent.parent
KILLS = int(os.environ.get("KDBENCH_KILLS", "10"))


def started(file: Path, results: Path) -> subprocess.Popen[bytes]:
    words = ["--trials", "16", "--batch", "4", "--pruner", "halving", "--results", str(results)]
    log = (results.parent / f"{results.name}.log").open("ab")
    return subprocess.Popen(
        [sys.executable, "-m", "bench", "tune", str(file), *words], cwd=ROOT, stdout=log, stderr=log
    )


@pytest.mark.slow
def test_a_study_survives_being_killed(tmp_path: Path, tiny: dict[str, Any]) -> None:
    raw = {**tiny, "methods": ["kd"], "protocol": {**tiny["protocol"], "epochs": 12, "milestones": [8]}}
    raw["data"] = {**raw["data"], "train": 300}
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump({key: value for key, value in raw.items() if key != "name"}))
    begin = time.monotonic()
    assert started(file, tmp_path / "whole").wait(600) == 0
    took = time.monotonic() - begin
    shutil.copytree(tmp_path / "whole" / "teachers", tmp_path / "killed" / "teachers")
    draw, kills, begun = random.Random(0), 0, list[int]()
    while kills < KILLS:
        process = started(file, tmp_path / "killed")
        try:
            code = process.wait(draw.uniform(0.3, 1.0) * took)  # from the imports to the confirmation
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
            begun.append(len(list((tmp_path / "killed").glob("tiny/tuning/*/trials/*"))))
            continue
        assert code == 0
        shutil.rmtree(tmp_path / "killed" / "tiny")  # it came to its end: once more from the beginning
        (tmp_path / "killed" / "optuna.db").unlink()
    assert started(file, tmp_path / "killed").wait(600) == 0
    assert trials_of(tmp_path / "killed") == trials_of(tmp_path / "whole")
    chosen = [next((tmp_path / name / "tuned").glob("*/*/kd.yaml")) for name in ("whole", "killed")]
    assert chosen[0].read_text() == chosen[1].read_text()
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'killed' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("kd-tune/tiny")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    records = [Record(path.parent) for path in (tmp_path / "killed" / "tiny" / "tuning").glob("**/record.jsonl")]
    assert len({run.data.tags["kd.record"] for run in runs} & {record.header["id"] for record in records}) == len(
        records
    )
    assert "RUNNING" not in {run.info.status for run in runs}
