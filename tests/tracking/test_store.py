from __future__ import annotations

import json
import math
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.tracking.conftest import FINAL, Make, environment, rows, spec
from tracking.deliver import CACHE, last_delivery
from tracking.frame import frame
from tracking.location import TrackingError
from tracking.mirror import sync
from tracking.payload import stored_name
from tracking.query import runs
from tracking.record import Record
from tracking.store import SHARED_VIEW, VIEW, Store, ui_link

EXPERIMENT = "kd/tiny"


def only_run(store: Store) -> Any:
    found = store.search([store.experiment(EXPERIMENT)], "")
    assert len(found) == 1
    return store.client.get_run(found[0].info.run_id)


def points(store: Store) -> Counter[tuple[str, int]]:
    """How many values every metric has at every step."""
    run = only_run(store)
    history = [p for name in run.data.metrics for p in store.client.get_metric_history(run.info.run_id, name)]
    return Counter((p.key, p.step) for p in history)


def everything(path: Path) -> list[Any]:
    """All rows that a delivery could change."""
    connection = sqlite3.connect(path)
    tables = (
        "experiments",
        "experiment_tags",
        "runs",
        "params",
        "tags",
        "metrics",
        "latest_metrics",
        "inputs",
        "datasets",
    )
    out = [sorted(map(repr, connection.execute(f"select * from {table}"))) for table in tables]
    connection.close()
    return out


def test_deliver_holds_what_the_record_holds(make: Make, store: Store, tmp_path: Path) -> None:
    record = make()
    assert store.deliver(record, experiment=EXPERIMENT)
    run = only_run(store)
    assert run.info.run_name == "KD (τ=4)/s0" and run.info.status == "FINISHED"
    assert run.info.start_time == round(1000 * record.header["time"])
    assert run.data.params["hp.tau"] == "4.0" and run.data.params["batch_size"] == "64"
    assert run.data.params["seed"] == "0" and run.data.params["hp.taps"] == "[1, 2]"
    tags = run.data.tags
    assert "mlflow.parentRunId" not in tags and tags["kd.kind"] == "run" and tags["kd.git_sha"] == "c0ffee"
    assert tags["kd.fingerprint"] == "f0" and tags["kd.teacher_fingerprint"] == "7eac4e7" and tags["kd.schema"] == "2"
    assert "0.875" in tags["mlflow.note.content"]
    inputs = [(i.dataset.name, i.dataset.digest, i.tags[0].value) for i in run.inputs.dataset_inputs]
    assert sorted(inputs) == [("digits", "d1g1t5", "train"), ("digits (held out)", "d1g1t5", "eval")]
    history = store.client.get_metric_history(run.info.run_id, "train/m1")
    assert [(p.step, p.value, p.timestamp) for p in history] == [
        (r["epoch"], r["metrics"]["train/m1"], round(1000 * r["time"])) for r in rows(3)
    ]
    assert run.data.metrics["test/top1"] == 0.875 and math.isnan(run.data.metrics["test/nll"])
    assert run.data.metrics["cost/odd_name"] == -1.0
    artifacts = {a.path for a in store.client.list_artifacts(run.info.run_id)}
    assert artifacts == {"spec.json", "record.jsonl", "predictions.npz", "student"}
    assert Path(run.info.artifact_uri.removeprefix("file://")).is_relative_to(tmp_path / "artifacts")
    weights = store.client.download_artifacts(run.info.run_id, "student/student.safetensors", str(tmp_path))
    assert Path(weights).read_bytes() == bytes(range(256))


@pytest.mark.parametrize("lose_cache", [False, True])
def test_deliver_twice_is_once(make: Make, store: Store, tmp_path: Path, lose_cache: bool) -> None:
    record = make()
    store.deliver(record, experiment=EXPERIMENT)
    before = everything(tmp_path / "mlflow.db")
    if lose_cache:
        (record.folder / CACHE).write_text("{ torn")
    assert store.deliver(record, experiment=EXPERIMENT) is lose_cache
    assert everything(tmp_path / "mlflow.db") == before
    assert set(points(store).values()) == {1}


def test_delivery_in_pieces_equals_one(make: Make, store: Store) -> None:
    record = make(status=None, epochs=1)
    assert store.deliver(record, experiment=EXPERIMENT)
    assert only_run(store).info.status == "RUNNING" and last_delivery(record)["epochs"] == 1
    record.write_epochs(rows(2))
    store.deliver(record, experiment=EXPERIMENT)
    assert not last_delivery(record)["done"]
    make(status="finished")
    assert store.deliver(record, experiment=EXPERIMENT) and last_delivery(record)["done"]
    steps = {(f"train/m{i}", e): 1 for i in (0, 1) for e in (1, 2, 3)}
    assert points(store) == steps | {(stored_name(name), 3): 1 for name in FINAL}
    assert only_run(store).info.status == "FINISHED"


@pytest.mark.parametrize(
    ("status", "shown"),
    [
        ("pruned", "KILLED"),
        ("failed", "FAILED"),
        ("diverged", "FAILED"),
        ("interrupted", "KILLED"),
        ("finished", "FINISHED"),
    ],
)
def test_status(make: Make, store: Store, status: str, shown: str) -> None:
    store.deliver(make(status=status, reason="why"), experiment=EXPERIMENT)
    run = only_run(store)
    assert (run.info.status, run.data.tags["kd.status"], run.data.tags["kd.end_reason"]) == (shown, status, "why")


def test_an_interrupted_run_goes_on_in_the_same_place(make: Make, store: Store) -> None:
    store.deliver(make(epochs=2, status="interrupted", reason="signal"), experiment=EXPERIMENT)
    before = only_run(store)
    record = make(epochs=3, status=None)
    store.deliver(record, experiment=EXPERIMENT)
    assert only_run(store).info.status == "RUNNING" and only_run(store).data.tags["kd.end_reason"] == ""
    store.deliver(make(), experiment=EXPERIMENT)
    after = only_run(store)
    assert after.info.run_id == before.info.run_id and after.info.status == "FINISHED"
    assert {count for (name, _), count in points(store).items() if name.startswith("train")} == {1}


def test_epochs_that_the_record_took_back_are_gone(make: Make, store: Store) -> None:
    record = make(status=None)
    store.deliver(record, experiment=EXPERIMENT)
    record.write_epochs(rows(1))
    store.deliver(record, experiment=EXPERIMENT)
    assert points(store) == {("train/m0", 1): 1, ("train/m1", 1): 1}


def test_a_run_deleted_in_mlflow_comes_back(make: Make, store: Store) -> None:
    record = make()
    store.deliver(record, experiment=EXPERIMENT)
    store.client.delete_run(only_run(store).info.run_id)
    assert store.deliver(record, experiment=EXPERIMENT)
    assert only_run(store).info.status == "FINISHED" and set(points(store).values()) == {1}


def test_more_metrics_than_a_request_takes(make: Make, store: Store) -> None:
    record = make(status=None)
    record.write_epochs(rows(90, 12))
    store.deliver(record, experiment=EXPERIMENT)
    assert len(points(store)) == 90 * 12


def test_query_equals_frame(make: Make, store: Store, tmp_path: Path) -> None:
    records = [
        make(0),
        make(1, status="diverged", reason="loss is NaN"),
        make(2, epochs=0, status="failed", reason="x"),
    ]
    for record in records:
        store.deliver(record, experiment=EXPERIMENT)
    for table in (runs(store.uri, "tiny"), runs(store.uri, experiment=EXPERIMENT)):
        pd.testing.assert_frame_equal(table, frame(records), check_dtype=False)
    assert runs(store.uri, "other").empty and runs(store.uri, experiment="kd/other").empty


def test_a_run_made_again_elsewhere_stays_apart_and_is_read_once(make: Make, store: Store, tmp_path: Path) -> None:
    store.deliver(make(), experiment=EXPERIMENT)
    there = Record(tmp_path / "there" / "f0")
    there.begin("f0", spec(), environment(host="elsewhere"))
    there.end("failed", "out of memory", {}, [])
    store.deliver(there, experiment=EXPERIMENT)
    assert len(store.search([store.experiment(EXPERIMENT)], "")) == 2
    assert runs(store.uri, "tiny")["host"].tolist() == [environment()["host"]]


def test_sync_delivers_once(make: Make, store: Store, tmp_path: Path) -> None:
    make(0), make(1)
    damaged = make(2)
    damaged.path.write_bytes(damaged.path.read_bytes().replace(b"kd", b"ke", 1))
    seen: list[Record] = []
    delivered, already, failed = sync(tmp_path, store.uri, progress=seen.append)
    assert (delivered, already, len(seen)) == (2, 0, 3) and "line 1 is damaged" in failed[0][1]
    before = everything(tmp_path / "mlflow.db")
    assert sync(tmp_path, store.uri, suite="tiny")[:2] == (0, 2)
    assert everything(tmp_path / "mlflow.db") == before
    assert sync(tmp_path, store.uri, suite="other") == (0, 0, [])


def test_reap_ends_runs_whose_process_is_gone(make: Make, store: Store, tmp_path: Path) -> None:
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    store.deliver(make(0, status=None), experiment=EXPERIMENT)
    for seed, changes in ((1, {}), (2, {"host": "elsewhere"})):
        record = Record(tmp_path / "tiny" / "runs" / f"f{seed}")
        record.begin(f"f{seed}", spec(seed), environment(**changes))
        store.deliver(record, experiment=EXPERIMENT)
    dead = last_delivery(record)["run_id"]
    store.client.set_tag(dead, "kd.host", environment()["host"])
    store.client.set_tag(dead, "kd.pid", gone.stdout.decode().strip())
    assert store.end_orphaned_runs(EXPERIMENT) == [dead] and store.end_orphaned_runs(EXPERIMENT) == []
    run = store.client.get_run(dead)
    assert run.info.status == "KILLED" and "is gone" in run.data.tags["kd.end_reason"]


def test_a_killed_runs_record_is_delivered_as_killed(store: Store, tmp_path: Path) -> None:
    record = Record(tmp_path / "tiny" / "runs" / "f0")
    record.begin("f0", spec(), environment(boot_id="an earlier start of this machine"))
    record.write_epochs(rows(2))
    assert store.deliver(record, experiment=EXPERIMENT) and only_run(store).info.status == "KILLED"
    assert not store.deliver(record, experiment=EXPERIMENT)


def test_experiment_has_its_view_and_note(store: Store) -> None:
    identity = store.experiment(EXPERIMENT)
    assert Store(store.uri, store.results).experiment(EXPERIMENT) == identity
    tags = store.client.get_experiment(identity).tags
    assert (
        json.loads(tags[f"mlflow.sharedViewState.{VIEW}"]) == SHARED_VIEW
        and "validation" in tags["mlflow.note.content"]
    )
    link = ui_link("http://127.0.0.1:5000/", identity)
    assert link.startswith(f"http://127.0.0.1:5000/#/experiments/{identity}/runs?workflowType=machine_learning&")
    store.client.delete_experiment(identity)
    with pytest.raises(TrackingError, match="was deleted there"):
        Store(store.uri, store.results).experiment(EXPERIMENT)


def test_nobody_answers(make: Make, tmp_path: Path) -> None:
    away = Store("http://user:hunter2@127.0.0.1:9", tmp_path)
    start = time.monotonic()
    with pytest.raises(TrackingError, match="nobody answers") as caught:
        away.deliver(make(), experiment=EXPERIMENT)
    assert time.monotonic() - start < 15
    assert "hunter2" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("not a database, but long enough to be looked at" * 50)
    with pytest.raises(TrackingError, match=r"^MLflow at sqlite:///.*not a database"):
        Store(f"sqlite:///{tmp_path}/mlflow.db", tmp_path).ping()
