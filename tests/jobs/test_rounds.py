"""Designs of an experiment as runs: a teacher and a split for every seed, and seeds added until all is decided."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from bench import data as datasets
from bench import report
from bench.errors import UserError
from bench.jobs.cohort_job import describe_data
from bench.jobs.progress import Progress
from bench.jobs.rounds import rounds
from bench.jobs.run import SuiteOutcome, resolve_suite, run_suite
from bench.jobs.teacher_source import teacher_fingerprint
from bench.suite.decide import Decision
from bench.suite.suite import Run, Suite
from tests.test_cli import call
from tracking.record import Record


def suite_of(raw: dict[str, Any], **changes: Any) -> Suite:
    return Suite.model_validate(raw | {"protocol": raw["protocol"] | {"epochs": 1, "milestones": []}} | changes)


def run(suite: Suite, results: Path) -> SuiteOutcome:
    quiet = Progress(Console(), quiet=True)
    return run_suite(suite, results, device=torch.device("cpu"), rerun=False, progress=quiet, mirror=None)


def specs(results: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """By row and seed, what the records of the runs say of them."""
    found = [Record(folder).header["spec"] for folder in (results / "tiny" / "runs").iterdir()]
    return {(spec["label"], spec["seed"]): spec for spec in found}


OWN = {"teacher": {"each": "seed", "seed": 4}}


def test_every_seed_learns_from_its_own_teacher(tmp_path: Path, tiny: dict[str, Any]) -> None:
    suite = resolve_suite(suite_of(tiny, **OWN), torch.device("cpu"))
    outcome = run(suite, tmp_path)
    assert outcome.n_trained == 4 and run(suite, tmp_path).n_skipped == 4
    found, rows = specs(tmp_path), ("vanilla", "kd")
    teachers = {seed: {found[row, seed]["teacher_fingerprint"] for row in rows} for seed in (0, 1)}
    data, pair, suite = datasets.load(suite.data), suite.pairs[0], resolve_suite(suite, torch.device("cpu"))
    for seed in (0, 1):
        of_seed = suite.model_copy(update={"teacher": suite.teacher.model_copy(update={"seed": 4 + seed})})
        made_from = teacher_fingerprint(of_seed, pair, describe_data(data))
        assert teachers[seed] == {made_from} and (tmp_path / "teachers" / made_from / "teacher.safetensors").exists()
    done = report.write(tmp_path, "tiny")
    text = done.report.read_text()
    assert "mean of 2 teachers" in text and "teacher of its own" in text and "one split" in text


def test_the_first_seeds_runs_are_those_of_a_suite_with_one_teacher(tmp_path: Path, tiny: dict[str, Any]) -> None:
    one = run(suite_of(tiny), tmp_path)
    own = run(suite_of(tiny, teacher={"each": "seed"}), tmp_path)
    assert own.n_trained == 2 and set(own.fingerprints[:2]) == set(one.fingerprints[:2])
    assert not set(own.fingerprints[2:]) & set(one.fingerprints)


def test_fingerprints_of_suites_with_one_teacher_are_what_they_were(
    tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.suite.protocol.NUMBERS", 2)  # as when the known value was made
    suite = Suite.model_validate(tiny)
    assert suite.by_teacher() == [suite]
    made = [Run.of(part, suite.pairs[0], suite.methods[1], 3, {"name": "d"}, "t") for part in (
        suite, Suite.model_validate(tiny | OWN).by_teacher()[0])]  # fmt: skip
    assert {run.fingerprint for run in made} == {"579d9e4ad471568e"}


def test_every_seed_may_have_its_own_split(tmp_path: Path, tiny: dict[str, Any]) -> None:
    run(suite_of(tiny, split={"each": "seed"}, **OWN), tmp_path)
    found = specs(tmp_path)
    for seed in (0, 1):
        one, two = (found[row, seed] for row in ("vanilla", "kd"))
        assert one["data"] == two["data"] and one["data"]["split_seed"] == seed
    assert found["kd", 0]["data"]["fingerprint"] != found["kd", 1]["data"]["fingerprint"]
    assert "a teacher and a split of its own" in report.write(tmp_path, "tiny").report.read_text()


def test_two_teachers_within_a_seed_are_refused(tmp_path: Path, tiny: dict[str, Any]) -> None:
    run(suite_of(tiny, **OWN), tmp_path)
    folder = next(path for path in (tmp_path / "tiny" / "runs").iterdir() if Record(path).header["spec"]["seed"] == 1)
    record, final = Record(folder), Record(folder).final or {}
    header, environment = record.header, record.environment
    record.path.unlink()
    record.begin(header["fingerprint"], header["spec"] | {"teacher_fingerprint": "other"}, environment)
    record.end("finished", "", final["metrics"], [])
    with pytest.raises(UserError, match=r"resnet8w4, seed 1, have 2 different teachers"):
        report.write(tmp_path, "tiny")


UNTIL = {"until": "decided", "margin": 0.001, "least": 2, "most": 4}


def manifest(results: Path) -> dict[str, Any]:
    return dict(json.loads((results / "tiny" / "suite.json").read_text()))


def test_seeds_are_added_until_most_and_the_same_command_goes_on(tmp_path: Path, tiny: dict[str, Any]) -> None:
    """A margin that nothing can be within, and a call that stops after the first seeds."""
    short = suite_of(tiny, seeds=UNTIL | {"most": 2})
    assert run(short, tmp_path).n_trained == 4
    suite = suite_of(tiny, seeds=UNTIL)
    outcome = run(suite, tmp_path)
    (decided,) = manifest(tmp_path)["decisions"]
    n = len(outcome.fingerprints) // 2
    assert outcome.n_trained == 2 * (n - 2) and decided["n"] == n and (decided["verdict"] != "open" or n == 4)
    assert manifest(tmp_path)["fingerprints"] == outcome.fingerprints and run(suite, tmp_path).n_trained == 0
    text = report.write(tmp_path, "tiny").report.read_text()
    assert (
        "## Seeds until decided" in text and f"| vanilla | {decided['verdict'].replace('open', 'undecided')} |" in text
    )


def test_a_teacher_that_was_lost_between_two_rounds_must_come_back_with_its_bits(
    tmp_path: Path, tiny: dict[str, Any]
) -> None:
    run(suite_of(tiny, seeds=UNTIL | {"most": 2}), tmp_path)
    for folder in (tmp_path / "tiny" / "runs").iterdir():
        record, spec, final = Record(folder), Record(folder).header["spec"], Record(folder).final or {}
        fingerprint, environment, files = record.header["fingerprint"], record.environment, [*final.get("files", {})]
        record.path.unlink()
        record.begin(fingerprint, spec | {"teacher_hash": "of another processor"}, environment)
        record.end("finished", "", {**final["metrics"], "test/top1": 50.0 + spec["seed"]}, files)
    with pytest.raises(UserError, match="of other bits"):
        run(suite_of(tiny, seeds=UNTIL), tmp_path)


def test_the_seeds_on_the_command_line_are_fixed(
    tmp_path: Path, tiny: dict[str, Any], tiny_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import yaml

    tiny_file.write_text(yaml.safe_dump({k: v for k, v in tiny.items() if k != "name"} | {"seeds": UNTIL}))
    assert call("check", str(tiny_file), "--seeds", "1") == 0
    said = capsys.readouterr()
    assert "--seeds 1 fixes the seeds" in said.err and "2 runs in 1 cohorts" in said.out
    assert call("check", str(tiny_file)) == 0
    said = capsys.readouterr()
    assert not said.err and "at most 8 runs" in said.out and "until all is decided" in said.out


def test_rounds_ask_for_open_rows_and_what_they_are_compared_with(tiny: dict[str, Any]) -> None:
    suite = Suite.model_validate(tiny | {"methods": ["vanilla", "kd", "dkd", "fitnet"], "seeds": UNTIL | {"most": 9}})
    verdicts = {"vanilla": "worse", "dkd": "open", "fitnet": "open"}

    def decisions() -> list[Decision]:
        return [Decision("resnet8w8->resnet8w4", row, "kd", 2, None, None, word) for row, word in verdicts.items()]

    asked, seen = rounds(suite, decisions, lambda: 3), []
    for seeds, rows in asked:
        seen.append((list(seeds), list(rows.values())))
        verdicts["fitnet"] = "close" if len(seen) > 1 else "open"
        verdicts["dkd"] = "better" if len(seen) > 2 else "open"
    every, some = ["vanilla", "kd", "dkd", "fitnet"], ["vanilla", "kd", "dkd"]
    assert seen == [([0, 1], [every]), ([2, 3, 4], [every]), ([5, 6, 7], [some])]
    assert [list(seeds) for seeds, _ in rounds(Suite.model_validate(tiny), decisions, lambda: 1)] == [[0, 1]]


def test_a_plan_counts_what_is_left(
    tmp_path: Path, tiny: dict[str, Any], tiny_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import yaml

    raw = {k: v for k, v in tiny.items() if k != "name"} | {"seeds": UNTIL} | OWN
    tiny_file.write_text(yaml.safe_dump(raw))
    assert call("plan", str(tiny_file), "--results", str(tmp_path / "results"), "--json") == 0
    least, most = json.loads(capsys.readouterr().out)
    assert (least["case"], most["case"]) == ("least", "most")
    assert [(row["runs"], row["cohorts"], row["teachers"]) for row in (least, most)] == [(4, 2, 2), (8, 4, 4)]
    assert least["student_steps"] == 4 * 3 * 3 and 0 < least["seconds"] < most["seconds"]
    assert min(most["memory_mb"], most["disk_mb"], most["seconds_per_cohort"], most["seconds_per_teacher"]) > 0
    suite = Suite.model_validate(tiny | OWN)
    run(suite, tmp_path / "results")
    assert call("plan", str(tiny_file), "--results", str(tmp_path / "results")) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "4 most" in line).split()
    assert line[line.index("most") + 1 :][:4] == ["4", "2", "36", "2"], "the runs and teachers of two seeds are here"
