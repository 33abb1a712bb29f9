from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import mlflow
import pytest
import yaml

from tests.faults.child import start
from tracking.locks import process_may_live
from tracking.record import Record, scan

SUITE: dict[str, Any] = {
    "data": {"source": "digits", "train": 200, "validation": 100, "test": 200},
    "protocol": {"epochs": 6, "batch_size": 50, "lr": 0.05, "milestones": [4], "test_every_epoch": True, "threads": 1},
    "pairs": ["resnet8w8 -> resnet8w4"],
    "methods": ["kd", "crd"],
    "seeds": 2,
}
TIMES = (
    "cost/step_ms",
    "cost/step_own_part_ms",
    "cost/step_alone_ms",
    "before/step_ms",
)  # the clock's, and no two are alike


@pytest.fixture(scope="session")
def suite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("faults") / "faulty.yaml"
    path.write_text(yaml.safe_dump(SUITE))
    return path


def words(suite: Path, results: Path) -> list[str]:
    return ["run", str(suite), "--results", str(results), "--device", "cpu"]


@pytest.fixture(scope="session")
def whole(suite_file: Path) -> tuple[Path, float]:
    """The results of an uninterrupted run, and how many seconds it took."""
    results = suite_file.parent / "whole"
    start(["list", "methods"], suite_file.parent / "warm.log").join()  # the server's imports are not the run's
    began = time.monotonic()
    process = start(words(suite_file, results), suite_file.parent / "whole.log")
    process.join()
    assert process.exitcode == 0, (suite_file.parent / "whole.log").read_text()
    return results, time.monotonic() - began


def working(results: Path, n: int = 1) -> list[int]:
    """The process ids of n workers that train, as soon as there are as many."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        pids = {r.environment["pid"] for r in scan(results / "faulty") if r.status == "running"}
        if len(living := [pid for pid in pids if process_may_live(pid)]) >= n:
            return living
        time.sleep(0.02)
    raise AssertionError("nobody works")


def numbers(record: Record) -> list[dict[str, float]]:
    """Every number of a run but the clock's: each epoch's, then the final ones."""
    assert record.final is not None and record.is_intact()
    rows = [{**row["metrics"], "epoch": row["epoch"]} for row in record.epochs]
    return [{k: v for k, v in row.items() if k not in TIMES} for row in [*rows, record.final["metrics"]]]


def same_results(results: Path, whole: Path) -> int:
    """Assert that every run and every teacher ended with the numbers and weights of `whole`; how many values agree."""
    compared = 0
    for twin in [*scan(whole / "faulty"), *(Record(p.parent) for p in whole.glob("teachers/*/record.jsonl"))]:
        record = Record(results / twin.folder.relative_to(whole))
        assert record.status == twin.status == "finished"
        assert numbers(record) == numbers(twin)
        weights = next(twin.folder.glob("*.safetensors"))
        assert (record.folder / weights.name).read_bytes() == weights.read_bytes()
        compared += sum(map(len, numbers(twin)))
    assert len(scan(results / "faulty")) == len(scan(whole / "faulty")) > 0
    assert not [*results.glob("**/claims/*.json")] and not [*results.glob("**/checkpoint*")]
    return compared


def same_in_mlflow(results: Path, whole: Path) -> int:
    """Assert that MLflow holds every run once, FINISHED, with the values of `whole`, each once; how many there are."""
    (statuses, found), (_, wanted) = _logged(results), _logged(whole)
    assert statuses == {"FINISHED"} and found == wanted
    return sum(len(points) for run in found.values() for points in run.values())


def _logged(results: Path) -> tuple[set[str], dict[str, dict[str, list[tuple[int, float]]]]]:
    """The statuses of a suite's runs in MLflow; and every point of every metric, by fingerprint."""
    client = mlflow.MlflowClient(f"sqlite:///{results / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("kd/faulty")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    marks = [run.data.tags["kd.fingerprint"] for run in runs]
    assert sorted(marks) == sorted(record.header["fingerprint"] for record in scan(results / "faulty"))  # none twice
    points = [
        {
            name: sorted((point.step, point.value) for point in client.get_metric_history(run.info.run_id, name))
            for name in run.data.metrics
            if name not in TIMES
        }
        for run in runs
    ]
    return {run.info.status for run in runs}, dict(zip(marks, points, strict=True))
