"""The runs of a suite out of a store, with all that a report is made of."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pandas as pd
import pytest

from tests.prose import Prose
from tests.tracking.conftest import FINAL, Make, spec
from tracking import query
from tracking.frame import frame
from tracking.location import TrackingError
from tracking.payload import settings_of
from tracking.store import Store

PROTOCOL = spec()["protocol"]


def test_suite_holds_what_the_records_say(make: Make, store: Store) -> None:
    records = [make(0), make(1), make(2, epochs=1, status=None)]
    for record in records:
        store.deliver(record)
    found = query.suite(store.uri, "tiny")
    pd.testing.assert_frame_equal(found.frame, frame(records), check_dtype=False)
    told = {"protocol": PROTOCOL, "data": spec()["data"], "pair": "big->small", "teacher_fingerprint": "7eac4e7"}
    assert found.specs == {f"f{seed}": told | {"seed": str(seed)} for seed in range(3)}
    assert sorted(record.header["fingerprint"] for record in found.records) == ["f0", "f1"], "a run ends with artifacts"
    assert len(found.records[0].epochs) == 3 and (found.records[0].folder / "predictions.npz").exists()
    assert set(found.ids) == {"f0", "f1", "f2"} and len({run for _, run in found.ids.values()}) == 3
    assert found.where == store.uri


def test_a_suite_that_is_not_there(make: Make, store: Store, tmp_path: Path, prose: Prose) -> None:
    store.deliver(make())
    found = query.suite(store.uri, "other")
    assert found.frame.empty and (found.specs, found.ids, found.records) == ({}, {}, [])
    nowhere = tmp_path / "nowhere" / "mlflow.db"
    with pytest.raises(TrackingError, match=r"nowhere/mlflow.db .*`kdbench run`") as error:
        query.suite(f"sqlite:///{nowhere}", "tiny")
    prose(str(error.value))
    assert not nowhere.parent.exists()


def test_artifacts_that_are_elsewhere_or_not_of_this_run_are_not_taken(
    make: Make, store: Store, tmp_path: Path
) -> None:
    for seed in range(3):
        store.deliver(make(seed))
    lying = {record.header["fingerprint"]: record for record in query.suite(store.uri, "tiny").records}
    lying["f0"].path.write_bytes(lying["f1"].path.read_bytes())
    lying["f1"].path.write_text("{ torn")
    database = sqlite3.connect(tmp_path / "mlflow.db")
    mine = "run_uuid in (select run_uuid from tags where value = 'f2')"
    database.execute(f"update runs set artifact_uri = 's3://bucket/f2' where {mine}")
    database.commit()
    assert query.suite(store.uri, "tiny").records == []
    assert len(query.suite(store.uri, "tiny").frame) == 3


def test_a_run_that_says_a_part_of_its_protocol_limits_all(make: Make, store: Store, tmp_path: Path) -> None:
    for seed in range(2):
        store.deliver(make(seed))
    database = sqlite3.connect(tmp_path / "mlflow.db")
    of_f1 = "(select run_uuid from tags where key = 'kd.fingerprint' and value = 'f1')"
    database.execute(f"delete from params where key like 'protocol.%' and run_uuid in {of_f1}")
    database.commit()
    specs = query.suite(store.uri, "tiny").specs
    assert specs["f0"]["data"] == specs["f1"]["data"] == spec()["data"]
    known = {key: value for key, value in PROTOCOL.items() if key not in ("momentum", "milestones")}
    assert specs["f0"]["protocol"] == specs["f1"]["protocol"] == known


def test_a_store_of_an_older_version_reads_the_same(make: Make, store: Store, tmp_path: Path) -> None:
    record = make()
    store.deliver(record)
    new = query.suite(store.uri, "tiny")
    database = sqlite3.connect(tmp_path / "mlflow.db")
    database.execute("delete from params where key like 'hp.%' or key like 'protocol.%'")
    database.execute("update latest_metrics set key = 'cost/step_ms' where key = 'cost/step_own_part_ms'")
    (run,) = database.execute("select run_uuid from runs").fetchone()
    hp, final = json.dumps(spec()["hp"], sort_keys=True), json.dumps(sorted(FINAL))
    database.execute("delete from tags where key = 'kd.final'")
    tags = {"kd.hp": hp, "kd.final": final, "kd.protocol": json.dumps(PROTOCOL), "kd.data": json.dumps(spec()["data"])}
    database.executemany("insert into tags (key, value, run_uuid) values (?, ?, ?)", [(*t, run) for t in tags.items()])
    database.commit()
    old = query.suite(store.uri, "tiny")
    pd.testing.assert_frame_equal(old.frame, new.frame)
    assert old.specs == new.specs and old.specs["f0"]["protocol"] == PROTOCOL


def test_settings_of_a_run_that_says_nothing() -> None:
    assert settings_of({}, {}) == {"protocol": {}, "data": {}}
    assert settings_of({"kd.protocol": "{ torn"}, {"lr": "0.1", "optimizer": "sgd"}, "[1]") == {
        "protocol": {"lr": 0.1, "optimizer": "sgd"},
        "data": {},
    }


def test_more_runs_than_an_answer_holds(make: Make, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(5):
        store.deliver(make(seed))
    monkeypatch.setattr("tracking.store.PAGE", 2)
    assert query.suite(store.uri, "tiny").frame["seed"].tolist() == [0, 1, 2, 3, 4]
