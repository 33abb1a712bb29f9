"""Which runs a report covers: those of the last call, and what earlier calls finished of the same protocol."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bench import report
from bench.errors import UserError
from bench.jobs.manifest import write_manifest
from bench.report.source import Source, from_folder
from bench.suite.suite import Suite
from tests.prose import Prose
from tests.report.made_up import suite
from tests.report.test_build import rewrite, runs
from tests.test_cli import call
from tracking.seal import verify_checksum

SIX = {"vanilla": 0.0, "kd": 1.2, "dkd": 1.5, "fitnet": -0.4, "crd": 0.9, "block_kd": 1.9}
LAST = ("vanilla", "kd", "dkd")


def narrowed(results: Path, last: Sequence[str] = LAST, seeds: int = 2) -> dict[str, Any]:
    """Six methods were run, and then a call asked for some of them."""
    about = suite(results, SIX, seeds)
    named = {record.header["fingerprint"]: record.header["spec"]["label"] for record in runs(results)}
    about["fingerprints"] = [name for name, label in named.items() if label in last]
    about["others"] = [name for name, label in named.items() if label not in last]
    (results / "made" / "suite.json").write_text(json.dumps(about))
    return about


def labels(source: Source) -> list[str]:
    return list(dict.fromkeys(source.runs["label"]))


def test_a_narrower_call_keeps_the_full_report_and_marks_its_rows(tmp_path: Path, prose: Prose) -> None:
    about = narrowed(tmp_path)
    assert set(labels(from_folder(tmp_path, "made"))) == set(SIX)
    assert from_folder(tmp_path, "made").earlier == about["others"]
    made = report.write(tmp_path, "made")
    marks = made.rows.set_index("label")["call"]
    assert {label for label in SIX if marks[label] == "last"} == set(LAST) and set(marks) == {"last", "earlier"}
    text = made.report.read_text()
    rows = {line.strip("| ").split(" ")[0].strip("*"): line for line in text.splitlines() if line.startswith("| ")}
    assert all((" | earlier | " in rows[label]) is (label not in LAST) for label in SIX)
    prose(next(line for line in text.splitlines() if line.startswith("- **call**")))


def test_report_only_narrows_to_the_last_call_and_methods_to_rows(tmp_path: Path) -> None:
    narrowed(tmp_path)
    assert labels(from_folder(tmp_path, "made", last_call=True)) == list(LAST)
    assert labels(from_folder(tmp_path, "made", methods=["kd", "crd"])) == ["kd", "crd"]
    assert call("report", "made", "--results", str(tmp_path), "--only") == 0
    text = (tmp_path / "made" / "report.md").read_text()
    assert "| kd ≈ |" in text and "block_kd" not in text and "| call |" not in text
    with pytest.raises(UserError, match=r"no row of made 'krd'.*crd"):
        from_folder(tmp_path, "made", methods=["krd"])


def test_without_earlier_calls_no_row_is_marked(tmp_path: Path) -> None:
    suite(tmp_path, {"vanilla": 0.0, "kd": 1.0})
    made = report.write(tmp_path, "made")
    assert set(made.rows["call"]) == {"last"} and "| call |" not in made.report.read_text()


@pytest.mark.parametrize(
    "spec",
    [
        {"protocol": {"epochs": 9, "batch_size": 32, "lr": 0.05, "milestones": [2]}},
        {"data": {"name": "digits", "n_train": 91, "n_validation": 60, "n_test": 100}},
        {"teacher_fingerprint": "another"},
    ],
    ids=["protocol", "data", "teacher"],
)
def test_what_does_not_compare_with_the_last_call_is_no_part_of_the_report(
    tmp_path: Path, spec: dict[str, Any]
) -> None:
    narrowed(tmp_path)
    for record in runs(tmp_path):
        if record.header["spec"]["label"] == "crd":
            rewrite(record, **spec)
    assert set(labels(from_folder(tmp_path, "made"))) == set(SIX) - {"crd"}


def test_of_earlier_calls_finished_runs_count_and_of_two_settings_the_newest(tmp_path: Path) -> None:
    about = narrowed(tmp_path)
    by_row = {(record.header["spec"]["label"], record.header["spec"]["seed"]): record for record in runs(tmp_path)}
    by_row["crd", 1].path.unlink()
    rewrite(by_row["block_kd", 1], hp={"tau": 9.0})
    rewrite(by_row["fitnet", 0], label="kd", method="kd", hp={"tau": 9.0})  # kd as the last call did not ask for it
    found = from_folder(tmp_path, "made")
    kept = {(run.label, run.seed) for run in found.runs.itertuples()}
    assert kept == {(label, seed) for label in LAST for seed in (0, 1)} | {("crd", 0), ("fitnet", 1), ("block_kd", 0)}
    about["others"].reverse()  # the newest call comes first
    (tmp_path / "made" / "suite.json").write_text(json.dumps(about))
    kept = {(run.label, run.seed) for run in from_folder(tmp_path, "made").runs.itertuples()}
    assert ("block_kd", 1) in kept and ("block_kd", 0) not in kept


def test_a_call_remembers_the_runs_of_those_before_it(tmp_path: Path, tiny: dict[str, Any]) -> None:
    def manifest(raw: dict[str, Any], fingerprints: list[str]) -> list[str]:
        write_manifest(tmp_path, Suite.model_validate(raw), fingerprints, {})
        found = json.loads(verify_checksum((tmp_path / "suite.json").read_text()))
        assert found["fingerprints"] == fingerprints
        return list(found["others"])

    assert manifest(tiny, ["a", "b", "c"]) == []
    assert manifest(tiny | {"methods": ["kd"]}, ["b"]) == ["a", "c"]
    assert manifest(tiny | {"methods": ["kd", "dkd"]}, ["d"]) == ["b", "a", "c"]
    longer = tiny | {"protocol": tiny["protocol"] | {"epochs": 9}}
    assert manifest(longer, ["e"]) == [], "another protocol compares with nothing before it"
