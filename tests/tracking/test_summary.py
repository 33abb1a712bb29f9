from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.tracking.conftest import Make
from tests.tracking.test_store import everything
from tracking import summary
from tracking.deliver import CACHE
from tracking.frame import frame
from tracking.lines import RecordError
from tracking.location import REPORTS
from tracking.mirror import Mirror, records, sync, undelivered
from tracking.query import runs
from tracking.record import Record
from tracking.store import Store

ANSWER = "KD beats the student alone by 1.2 points [0.5, 1.9] over 2 seeds."

Write = Callable[..., Record]


@pytest.fixture
def folder(make: Make, tmp_path: Path) -> Path:
    """A suite's folder with two runs and a report."""
    make(0), make(1)
    (tmp_path / "tiny" / "figures").mkdir()
    for name in ("report.md", "table.csv", "table.tex", "figures/difference.png", "figures/x.png.123.partial"):
        (tmp_path / "tiny" / name).write_text(name)
    return tmp_path / "tiny"


def write(folder: Path, answer: str = ANSWER) -> Record:
    return summary.write_record(folder, answer, table(folder))


def table(folder: Path) -> pd.DataFrame:
    return frame([Record(path) for path in sorted((folder / "runs").iterdir())])


def reports(store: Store) -> list[Any]:
    """Of the store, oldest first."""
    found = store.search([store.experiment(REPORTS)], "")
    return [store.client.get_run(run.info.run_id) for run in sorted(found, key=lambda run: run.info.start_time)]


def artifacts(store: Store, run: Any) -> set[str]:
    found = {artifact.path for artifact in store.client.list_artifacts(run.info.run_id)}
    return found | {artifact.path for artifact in store.client.list_artifacts(run.info.run_id, "figures")}


def listed(store: Store, run: Any, to: Path) -> list[dict[str, str]]:
    text = Path(store.client.download_artifacts(run.info.run_id, "runs.csv", str(to))).read_text()
    return list(csv.DictReader(io.StringIO(text)))


def test_a_record_keeps_the_report_and_says_what_it_is_of(folder: Path) -> None:
    made = write(folder)
    assert made.folder == folder / "summary" and made.status == "finished" and made.is_intact()
    assert sorted(made.files()) == ["figures/difference.png", "report.md", "table.csv", "table.tex"]
    said = made.header["spec"]
    assert (said["kind"], said["suite"], said["answer"]) == ("suite", "tiny", ANSWER)
    assert [(row["fingerprint"], row["seed"], row["status"]) for row in said["runs"]] == [
        ("f0", 0, "finished"),
        ("f1", 1, "finished"),
    ]
    assert made.environment["commit"] == "c0ffee"
    assert [p.name for p in folder.glob("summary*")] == ["summary"]


def test_the_same_report_is_the_same_record(folder: Path) -> None:
    before = write(folder).path.read_bytes()
    (folder / "figures" / "difference.png").write_text("other bytes of the same picture")
    assert write(folder).path.read_bytes() == before


@pytest.mark.parametrize("name", ["report.md", "table.csv", "answer", "runs"])
def test_a_changed_report_is_another_record(folder: Path, name: str, make: Make) -> None:
    before = write(folder).header
    (folder / "summary" / CACHE).write_text("{}")
    if name == "runs":
        make(2)
    elif name != "answer":
        (folder / name).write_text("changed")
    after = write(folder, "Another answer." if name == "answer" else ANSWER)
    assert after.header["id"] != before["id"] and after.header["fingerprint"] != before["fingerprint"]
    assert not (folder / "summary" / CACHE).exists() and after.is_intact()


def test_what_a_report_no_longer_has_is_gone(folder: Path) -> None:
    write(folder)
    (folder / "table.tex").unlink()
    assert "table.tex" not in write(folder).files() and not (folder / "summary" / "table.tex").exists()


def test_damage_and_the_remains_of_a_kill_are_replaced(folder: Path) -> None:
    made = write(folder)
    fingerprint = made.header["fingerprint"]
    made.path.write_text("{ torn")
    (folder / "summary.partial" / "figures").mkdir(parents=True)
    (folder / "summary.partial" / "old.csv").touch()
    again = write(folder)
    assert again.header["fingerprint"] == fingerprint and again.is_intact()
    assert not (folder / "summary" / "old.csv").exists()
    (folder / "summary" / "report.md").write_text("somebody wrote here")
    assert write(folder).is_intact()


def test_no_report_and_no_room(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(summary.shutil, "copyfile", full)
    with pytest.raises(RecordError, match=r"summary: No space left on device$"):
        write(folder)
    (folder / "report.md").unlink()
    with pytest.raises(RecordError, match=r"no report.md to keep"):
        write(folder)


def test_delivered_as_a_run_of_its_own(folder: Path, store: Store, tmp_path: Path) -> None:
    for record in records(tmp_path):
        store.deliver(record)
    made = write(folder)
    assert store.deliver(made) and not store.deliver(made)
    (run,) = reports(store)
    assert run.info.run_name == "tiny" and run.info.status == "FINISHED"
    assert run.data.params == {"suite": "tiny", "runs": "2", "commit": "c0ffee"}
    assert run.data.tags["kd.kind"] == "suite" and run.data.tags["kd.suite"] == "tiny"
    ids = {run.data.tags["kd.fingerprint"]: run.info.run_id for run in store.search([store.experiment("kd/tiny")], "")}
    note = run.data.tags["mlflow.note.content"]
    assert note.startswith(f"**{ANSWER}**") and all(f"/runs/{run_id}?" in note for run_id in ids.values())
    assert {row["fingerprint"]: row["run_id"] for row in listed(store, run, tmp_path)} == ids
    shown = {"report.md", "table.csv", "table.tex", "figures", "figures/difference.png", "runs.csv", "record.jsonl"}
    assert artifacts(store, run) == shown | {"spec.json"}
    assert not (run.inputs and run.inputs.dataset_inputs)
    assert len(runs(store.uri, "tiny")) == 2, "a report is no run"


def test_twice_changes_nothing_and_a_change_is_a_new_version(folder: Path, store: Store, tmp_path: Path) -> None:
    assert sync(tmp_path, store.uri) == (2, 0, [])
    write(folder)
    assert sync(tmp_path, store.uri)[:2] == (1, 2)
    (first,) = reports(store)
    before = everything(tmp_path / "mlflow.db")
    write(folder)
    assert sync(tmp_path, store.uri)[:2] == (0, 3) and everything(tmp_path / "mlflow.db") == before
    (folder / "summary" / CACHE).unlink()
    store.deliver(write(folder))
    assert everything(tmp_path / "mlflow.db") == before, "nor without the cache"
    (folder / "report.md").write_text("changed")
    store.deliver(write(folder, "Another answer."))
    old, new = reports(store)
    assert old.info.run_id == first.info.run_id and old.data.tags["mlflow.note.content"].startswith(f"**{ANSWER}")
    assert new.data.tags["mlflow.note.content"].startswith("**Another answer.**")


def test_runs_that_come_later_get_their_ids(folder: Path, store: Store, tmp_path: Path) -> None:
    store.deliver(Record(folder / "runs" / "f0"))
    store.deliver(write(folder))
    (early,) = reports(store)
    assert early.data.tags["mlflow.note.content"].count("not in MLflow yet") == 1
    assert [bool(row["run_id"]) for row in listed(store, early, tmp_path)] == [True, False]
    assert [record.folder.name for record in undelivered(tmp_path)] == ["f1"]
    store.deliver(Record(folder / "runs" / "f1"))
    assert [record.folder.name for record in undelivered(tmp_path, "tiny", store.uri)] == ["summary"]
    assert sync(tmp_path, store.uri) == (1, 2, []) and undelivered(tmp_path) == []
    (late,) = reports(store)
    assert late.info.run_id == early.info.run_id and late.info.status == "FINISHED"
    assert "not in MLflow yet" not in late.data.tags["mlflow.note.content"]
    assert [bool(row["run_id"]) for row in listed(store, late, tmp_path)] == [True, True]


def test_a_store_that_is_away_is_no_error_and_sync_brings_it_later(folder: Path, store: Store, tmp_path: Path) -> None:
    with Mirror(lambda: Store("http://127.0.0.1:9", tmp_path)) as mirror:
        mirror.finish(write(folder))
    ((record, reason),) = mirror.pending()
    assert record.folder.name == "summary" and "nobody answers" in reason
    assert folder / "summary" in [record.folder for record in undelivered(tmp_path)]
    assert sync(tmp_path, store.uri, "tiny") == (3, 0, []) and undelivered(tmp_path) == []
    with Mirror(lambda: store) as mirror:
        mirror.finish(write(folder))
    assert mirror.pending() == [] and len(reports(store)) == 1
    assert undelivered(tmp_path, "tiny", store.uri) == []
    assert len(undelivered(tmp_path, "tiny", "http://me:secret@elsewhere")) == 3


def test_offline(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDBENCH_OFFLINE", "1")
    with Mirror(lambda: pytest.fail("contacted")) as mirror:
        mirror.finish(write(folder))
    assert [reason for _, reason in mirror.pending()] == ["offline"]


def test_a_note_of_many_runs_is_cut_at_a_line(folder: Path, store: Store, tmp_path: Path) -> None:
    many = pd.concat([table(folder)] * 300, ignore_index=True)
    many["fingerprint"] = [f"{i:016x}" for i in range(len(many))]
    many.loc[1, "status"] = "diverged"
    store.deliver(summary.write_record(folder, ANSWER, many))
    (run,) = reports(store)
    note = run.data.tags["mlflow.note.content"]
    shown = note.count("\n- KD")
    assert len(note) < 7500 and note.endswith(f"- and {600 - shown} more; all are in the artifact `runs.csv`")
    assert shown > 50 and ", diverged: not in MLflow yet\n" in note
    assert len(listed(store, run, tmp_path)) == 600
