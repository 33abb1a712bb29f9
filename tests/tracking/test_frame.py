from __future__ import annotations

import json

from tests.tracking.conftest import FINAL, Make, rows, spec
from tracking.frame import COLUMNS, epochs_frame, frame


def test_one_row_per_run(make: Make) -> None:
    table = frame([make(1), make(0, status="diverged", reason="loss is NaN"), make(2, status=None)])
    assert list(table["seed"]) == [0, 1, 2]
    assert list(table["status"]) == ["diverged", "finished", "running"]
    assert list(table["reason"]) == ["loss is NaN", "", ""]
    row = table.iloc[1]
    for name in ("suite", "pair", "teacher", "student", "method", "label", "recipe", "dataset"):
        assert row[name] == spec()[name]
    assert row["commit"] == "c0ffee" and row["hardware"] == "abacus" and row["epochs"] == 3 and not row["tuned"]
    assert json.loads(row["hp"]) == spec()["hp"]
    assert row["test/top1"] == FINAL["test/top1"] and row["cost/step_ms"] == float("inf")
    assert table["test/top1"].isna().tolist() == [False, False, True]


def test_no_runs_have_the_same_columns() -> None:
    assert list(frame([])) == [*COLUMNS, "time"]
    assert list(epochs_frame([])) == ["fingerprint", "label", "seed", "epoch", "metric", "value"]


def test_long_format(make: Make) -> None:
    table = epochs_frame([make(0), make(1, epochs=2)])
    assert len(table) == 10
    one = table[(table["seed"] == 1) & (table["metric"] == "train/m1")]
    assert one["value"].tolist() == [row["metrics"]["train/m1"] for row in rows(2)]
