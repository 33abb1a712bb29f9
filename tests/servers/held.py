"""Whether a store holds exactly what the records hold."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from tracking import payload, summary
from tracking.location import experiment_of
from tracking.mirror import records
from tracking.record import Record
from tracking.store import Store


def holds_exactly(uri: str, results: Path, suite: str | None = None, *, artifacts: bool = True) -> int:
    """Assert that every record is one run with its status, words, values (each once) and files, and nothing else is
    in the suites' experiments; how many values were compared."""
    store, values = Store(uri, results), 0
    by_experiment: dict[str, dict[str, Record]] = {}
    for record in records(results, suite):
        by_experiment.setdefault(experiment_of(record.header["spec"]), {})[record.header["id"]] = record
    assert by_experiment
    for name, expected in by_experiment.items():
        suites = {record.header["spec"]["suite"] for record in expected.values()}
        query = f"tags.`kd.suite` = '{suite or suites.pop()}'"
        runs = store.search([store.experiment(name)], query)
        assert Counter(run.data.tags["kd.record"] for run in runs) == Counter(list(expected)), name
        for run in runs:
            values += _holds(store, run, expected[run.data.tags["kd.record"]], artifacts)
    return values


def _holds(store: Store, found: Any, record: Record, artifacts: bool) -> int:
    run, lines = store.client.get_run(found.info.run_id), record.read()
    kind = lines.header["spec"].get("kind", "run")
    words = summary.run_description(record, store.uri) if kind == "suite" else payload.run_description(lines, kind)
    assert run.info.status == (payload.MLFLOW_STATUS[lines.end["status"]] if lines.end else "RUNNING"), record
    assert run.data.params == words.params
    assert {name: run.data.tags.get(name) for name in words.tags} == words.tags
    points = [*payload.epoch_points(lines, 0), *payload.final_points(lines, {})]
    want = Counter((name, *_as_stored(value), time, step) for name, value, time, step in points)
    have = Counter(
        (point.key, *_as_stored(point.value), point.timestamp, point.step)
        for name in run.data.metrics
        for point in store.client.get_metric_history(run.info.run_id, name)
    )
    assert have == want, record
    if artifacts and lines.end:
        for name in ("record.jsonl", *record.files()):
            place = f"student/{name}" if name.startswith("student") else name
            got = Path(store.client.download_artifacts(run.info.run_id, place))
            assert got.read_bytes() == (record.folder / name).read_bytes(), name
    return len(points)


def _as_stored(value: float) -> tuple[str, float]:
    """NaN is equal to itself here, and an infinity what MLflow keeps of it."""
    if value != value:
        return "nan", 0.0
    return "", max(-payload.INFINITE, min(payload.INFINITE, value))
