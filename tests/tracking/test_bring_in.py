"""Results of another machine: what is finished and whole comes in, what is here stays."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.test_cli import call
from tracking.bring_in import bring_in
from tracking.parts import missing_parts, write_parts
from tracking.record import Record, RecordError, scan


def add_run(results: Path, name: str, status: str | None = "finished", top1: float = 50.0) -> Record:
    """A run of suite `s` with one file."""
    record = Record(results / "s" / "runs" / name)
    record.begin(name, {"seed": 0}, {})
    record.write_epochs([{"epoch": 1, "time": 1.0, "metrics": {"a": 1.0}}])
    (record.folder / "predictions.npz").write_bytes(name.encode())
    if status:
        record.end(status, "", {"test/top1": top1}, ["predictions.npz"])
    return record


def add_manifest(results: Path, lr: float = 0.1) -> None:
    suite = {"name": "s", "data": {"source": "digits"}, "protocol": {"lr": lr}}
    (results / "s" / "suite.json").write_text(json.dumps({"suite": suite, "fingerprints": ["a", "b"]}))


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A results folder with two finished runs, one that still runs, and a teacher."""
    folder = tmp_path / "other"
    for name, status in (("a", "finished"), ("b", "finished"), ("c", None)):
        add_run(folder, name, status)
    add_manifest(folder)
    (folder / "teachers" / "t").mkdir(parents=True)
    (folder / "teachers" / "t" / "teacher.safetensors").write_bytes(b"weights")
    return folder


def test_finished_runs_and_teachers_come_in_once(other: Path, tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    done = bring_in(other, here)
    assert done.taken == ["s/a", "s/b"] and done.suites == ["s"]
    assert [name for name, reason in done.refused if "it is running" in reason] == ["s/c"]
    assert [record.is_intact() for record in scan(here / "s")] == [True, True]
    assert (here / "s" / "suite.json").exists() and (here / "teachers" / "t" / "teacher.safetensors").exists()
    again = bring_in(other, here)
    assert again.taken == [] and again.unchanged == ["s/a", "s/b"]
    assert not list(here.glob("**/.import-*"))


def test_what_is_here_stays(other: Path, tmp_path: Path) -> None:
    here = tmp_path / "here"
    mine = add_run(here, "a", top1=51.0)
    add_run(here, "b", status=None)  # begun here, finished there
    before = mine.path.read_bytes()
    done = bring_in(other, here)
    assert mine.path.read_bytes() == before and done.taken == ["s/b"]
    assert any(name == "s/a" and "other numbers" in reason for name, reason in done.refused)


def test_another_protocol_is_refused_as_a_whole(other: Path, tmp_path: Path) -> None:
    here = tmp_path / "here"
    (here / "s").mkdir(parents=True)
    add_manifest(here, lr=0.2)
    done = bring_in(other, here)
    assert done.taken == [] and done.refused == [("s", "its protocol differ from those of the suite that is here")]


def test_a_damaged_file_is_refused(other: Path, tmp_path: Path) -> None:
    (other / "s" / "runs" / "a" / "predictions.npz").write_bytes(b"bent")
    done = bring_in(other, tmp_path)
    assert done.taken == ["s/b"] and "damaged" in dict(done.refused)["s/a"]


def test_parts_are_joined_and_a_missing_one_is_named(
    other: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    parts = write_parts(other, home, "result", size=5000)
    assert len(parts) > 2 and missing_parts(home, "result") == []
    kept = parts[1].read_bytes()
    parts[1].write_bytes(kept[:-1])
    assert call("import", str(home), "--results", str(here)) == 2
    assert f"{parts[1].name} is missing or cut short" in capsys.readouterr().err and not (here / "s").exists()
    parts[1].write_bytes(kept)
    assert call("import", str(home), "--results", str(here)) == 1  # one run was refused
    assert "2 runs taken, 0 were here already, 1 refused" in capsys.readouterr().out
    shutil.rmtree(here)


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no results of a suite"):
        bring_in(tmp_path, tmp_path)
