"""The report of a suite out of a tracking store, without any results."""

from __future__ import annotations

import resource
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import report
from bench.errors import UserError
from tests.prose import Prose
from tests.report.made_up import suite
from tests.report.test_build import rewrite, runs
from tracking import query
from tracking.store import Store

ROOT = Path(__file__).parents[2]


def deliver(store: Store, root: Path) -> None:
    for record in runs(root):
        store.deliver(record)


def write(store: Store, to: Path) -> report.Report:
    return report.write(to, "made", found=query.suite(store.uri, "made", results=to))


def test_it_equals_the_report_of_the_records(store: Store, tmp_path: Path, prose: Prose) -> None:
    suite(tmp_path, {"dkd": 1.5, "kd": 1.2, "vanilla": 0.0}, seeds=3)  # in the order of a store, by label
    deliver(store, tmp_path)
    here, there = report.write(tmp_path, "made"), write(store, tmp_path / "other")
    assert there.report == tmp_path / "other" / "made" / "mlflow" / "report.md"
    assert there.csv.read_text() == here.csv.read_text() and there.answer == here.answer
    mine, other = here.report.read_text().split("\n"), there.report.read_text().split("\n")
    told = [line for line in other if line not in mine]
    assert len(told) == 1 and "the 9 runs" in told[0] and store.uri in told[0]
    prose(told[0])
    assert [line for line in mine if line not in other] == ["Made up"]
    assert there.figure.read_bytes() == here.figure.read_bytes()
    assert sorted(p.name for p in (tmp_path / "other" / "made").iterdir()) == ["mlflow"]


def test_what_is_left_out_is_said(store: Store, tmp_path: Path) -> None:
    suite(tmp_path, {"kd": 1.2, "vanilla": 0.0}, seeds=2, ended=3)
    deliver(store, tmp_path)
    text = write(store, tmp_path / "other").report.read_text()
    assert "do not lie on this machine" in text and "vanilla on big->small, seed 1: running" in text


@pytest.mark.parametrize(
    ("change", "what"),
    [({"protocol": {"epochs": 9}}, "differ in protocol"), ({"teacher_fingerprint": "u"}, "2 different teachers")],
)
def test_two_kinds_of_runs_are_refused(
    store: Store,
    tmp_path: Path,
    change: dict[str, Any],
    what: str,
) -> None:
    suite(tmp_path)
    rewrite(runs(tmp_path)[3], **change)
    deliver(store, tmp_path)
    with pytest.raises(UserError, match=rf"{what}.* delete those of one kind in MLflow"):
        write(store, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_no_runs(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"^no runs of 'made' in MLflow at {store.uri}$"):
        write(store, tmp_path)


@pytest.mark.slow
def test_one_suite_of_200_runs_among_10000_takes_less_than_10_seconds(
    store: Store,
    tmp_path: Path,
) -> None:
    suite(tmp_path, {"kd": 1.2}, seeds=1)
    deliver(store, tmp_path)
    clone(tmp_path / "mlflow.db", copies=9_999)
    command = [sys.executable, "-m", "bench", "report", "one0", "--from", store.uri, "--results", str(tmp_path / "to")]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    took = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime  # what else runs here must not decide
    assert took < 10, done.stderr
    assert (done.returncode, done.stderr) == (0, "")
    assert "Made from the 200 runs" in (tmp_path / "to" / "one0" / "mlflow" / "report.md").read_text()


def clone(path: Path, copies: int) -> None:
    """The one run of a store again and again: 200 per suite (one0, one1, …), five seeds per label."""
    database = sqlite3.connect(path)
    tables = {}
    for name in ("runs", "params", "tags", "latest_metrics", "metrics"):
        columns = [column[1] for column in database.execute(f"pragma table_info({name})")]
        tables[name] = [dict(zip(columns, row, strict=True)) for row in database.execute(f"select * from {name}")]
    for i in range(copies + 1):
        own = {"suite": f"one{i // 200}", "label": f"m{i % 200 // 5}", "seed": str(i % 5), "fingerprint": f"{i:016x}"}
        for name, rows in tables.items():
            for row in rows:
                new = row | {"run_uuid": f"{i:032x}"}
                if name == "params" and row["key"] in own:
                    new["value"] = own[row["key"]]
                if name == "tags" and row["key"].removeprefix("kd.") in own:
                    new["value"] = own[row["key"].removeprefix("kd.")]
                marks = ", ".join("?" * len(new))
                database.execute(f"insert into {name} ({', '.join(new)}) values ({marks})", tuple(new.values()))
    database.commit()
    database.close()
