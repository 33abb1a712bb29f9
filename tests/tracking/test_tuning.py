"""Studies and trials in MLflow: a run each, the trials below their study, apart from the benchmark's runs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.tracking.conftest import Make, environment, rows, spec
from tests.tracking.test_store import everything
from tracking.deliver import CACHE
from tracking.frame import frame
from tracking.location import experiment_of, tuning_name
from tracking.mirror import Mirror, records, sync, undelivered
from tracking.query import runs
from tracking.record import Record, scan
from tracking.store import VIEW, Store

STUDY, FINGERPRINT = "tiny/big->small/kd", "57udy"
TUNE = {"sampler": "tpe", "pruner": "halving", "objective": ["accuracy"], "batch": 2, "rule": "confirmed", "seed": 7}
SPACE = {"tau": "1 to 10, log", "alpha": "0 to 1"}


def study(
    results: Path, trials: int, end: bool = True, text: str = "", fingerprint: str = FINGERPRINT, pid: int = os.getpid()
) -> Record:
    """A study's record with so many trials, of which every fourth has failed; new, or as it is when tuned again."""
    record = Record(results / "tiny" / "tuning" / "big__small-kd")
    own: dict[str, Any] = {
        "kind": "study",
        "study": STUDY,
        "study_fingerprint": fingerprint,
        "space": SPACE,
        "tune": TUNE,
    }
    record.begin(fingerprint, spec(label="kd", hp={}, **own), environment(pid=pid))
    record.write_epochs(
        {
            "epoch": n,
            "time": 1_700_000_000.0 + n,
            "metrics": {"cost/student_steps": 10.0, "best/validation/top1": top1(min(n, 1))}
            | ({} if n % 4 == 3 else {"validation/top1": top1(n), "validation/nll": 1.0}),
        }
        for n in range(trials)
    )
    if end:
        (record.folder / "figures").mkdir(exist_ok=True)
        for name in ("trials.csv", "tuned.yaml", "figures/history.png"):
            (record.folder / name).write_text(f"# {name} of {trials}{text}")
        counts = {"trials": trials, "pruned": 0, "failed": trials // 4, "cost/student_steps": 10 * trials}
        metrics = {"validation/top1": 0.5, "best/hp.tau": 2.5, **counts}
        record.end("finished", "", metrics, ["trials.csv", "tuned.yaml", "figures/history.png"])
    return record


def top1(trial: int) -> float:
    return 0.5 if trial == 1 else 0.25 + trial / 1000


def trial(
    results: Path, number: int, status: str | None = "finished", reason: str = "", seed: int = 0, stage: str = "search"
) -> Record:
    record = Record(results / "tiny" / "tuning" / "big__small-kd" / "trials" / f"t{number}s{seed}")
    own = {"kind": "trial", "study": STUDY, "study_fingerprint": FINGERPRINT, "trial": number, "stage": stage}
    record.begin(record.folder.name, spec(seed, **own, label="kd", hp={"tau": 2.5, "alpha": 0.5}), environment())
    record.write_epochs(rows(3 if status == "finished" else 2))
    if status:
        record.end(status, reason, {"validation/top1": 0.25} if status == "finished" else {}, [])
    return record


def all_of(store: Store) -> dict[str, Any]:
    """The twin experiment's runs by name, which must be distinct."""
    found = store.search([store.experiment(tuning_name("tiny"))], "")
    out = {run.info.run_name: store.client.get_run(run.info.run_id) for run in found}
    assert len(out) == len(found)
    return out


def history(store: Store, run: Any, name: str) -> list[tuple[int, float]]:
    return [(p.step, p.value) for p in store.client.get_metric_history(run.info.run_id, name)]


def counts(store: Store, run: Any) -> Counter[tuple[str, int]]:
    points = [p for name in run.data.metrics for p in store.client.get_metric_history(run.info.run_id, name)]
    return Counter((p.key, p.step) for p in points)


def test_a_study_and_its_trials(store: Store, tmp_path: Path) -> None:
    made = [
        study(tmp_path, 2),
        trial(tmp_path, 0),
        trial(tmp_path, 1, "pruned", "halving at epoch 2"),
        trial(tmp_path, 3, "failed", "out of memory"),
        trial(tmp_path, 0, seed=5, stage="confirm"),
    ]
    assert all(store.deliver(record) for record in made)
    found = all_of(store)
    parent = found.pop("kd big->small")
    assert found.keys() == {"kd trial 0", "kd trial 1", "kd trial 3", "kd trial 0 s5"}
    assert {run.data.tags["mlflow.parentRunId"] for run in found.values()} == {parent.info.run_id}
    assert "mlflow.parentRunId" not in parent.data.tags

    tags = ("kd.kind", "kd.study", "kd.trial", "kd.stage", "kd.status", "kd.end_reason")
    said = {name: (run.info.status, *(run.data.tags.get(t) for t in tags)) for name, run in found.items()}
    assert said == {
        "kd trial 0": ("FINISHED", "trial", STUDY, "0", "search", "finished", ""),
        "kd trial 1": ("KILLED", "trial", STUDY, "1", "search", "pruned", "halving at epoch 2"),
        "kd trial 3": ("FAILED", "trial", STUDY, "3", "search", "failed", "out of memory"),
        "kd trial 0 s5": ("FINISHED", "trial", STUDY, "0", "confirm", "finished", ""),
    }
    confirmed = found["kd trial 0 s5"].data
    wanted = {"method": "kd", "hp.tau": "2.5", "hp.alpha": "0.5", "seed": "5", "trial": "0"}
    assert wanted.items() <= confirmed.params.items()
    assert "trial 0 (confirm)" in confirmed.tags["mlflow.note.content"]
    assert "validation/top1 0.25 (last epoch)" in confirmed.tags["mlflow.note.content"]
    curve = [(row["epoch"], row["metrics"]["train/m1"]) for row in rows(3)]
    assert history(store, found["kd trial 0"], "train/m1") == curve
    assert history(store, found["kd trial 1"], "train/m1") == curve[:2]


def test_what_a_studys_run_says(store: Store, tmp_path: Path) -> None:
    record = study(tmp_path, 6)
    store.deliver(record)
    (run,) = all_of(store).values()
    assert (run.info.status, run.data.tags["kd.kind"], run.data.tags["kd.study"]) == ("FINISHED", "study", STUDY)
    search = {"sampler": "tpe", "pruner": "halving", "objective": '["accuracy"]', "batch": "2", "rule": "confirmed"}
    wanted = {"method": "kd", "pair": "big->small", "search_seed": "7", **search}
    assert (wanted | {f"space.{name}": text for name, text in SPACE.items()}).items() <= run.data.params.items()
    assert not {"hp.tau", "trials", "trial"} & run.data.params.keys()
    assert history(store, run, "by_trial/validation_top1") == [(n, top1(n)) for n in (0, 1, 2, 4, 5)]
    assert history(store, run, "by_trial/cost_student_steps") == [(n, 10.0) for n in range(6)]
    ends = {"validation/top1": 0.5, "cost/student_steps": 60.0, "best/hp.tau": 2.5, "trials": 6.0}
    assert ends.items() <= run.data.metrics.items()
    note = run.data.tags["mlflow.note.content"]
    assert "finished, 6 trials" in note and "validation/top1 0.5 (best, tau=2.5, see tuned.yaml)" in note
    files = {a.path for folder in ("", "figures") for a in store.client.list_artifacts(run.info.run_id, folder)}
    assert files == {"spec.json", "record.jsonl", "trials.csv", "tuned.yaml", "figures", "figures/history.png"}
    pd.testing.assert_frame_equal(runs(store.uri, "tiny", kind="study"), frame([record]), check_dtype=False)


@pytest.mark.parametrize("seen_open", [False, True])
def test_a_study_is_extended(store: Store, tmp_path: Path, seen_open: bool) -> None:
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    made = [study(tmp_path, 2, pid=int(gone.stdout)), trial(tmp_path, 0)]
    for record in made:
        store.deliver(record)
    before = all_of(store)["kd big->small"]
    assert undelivered(tmp_path) == []
    if seen_open:
        store.deliver(study(tmp_path, 3, end=False))
        assert all_of(store)[before.info.run_name].info.status == "RUNNING" and len(undelivered(tmp_path)) == 1
    longer = study(tmp_path, 4)
    assert [record.folder for record in undelivered(tmp_path)] == [longer.folder]
    assert store.deliver(longer) and not store.deliver(longer) and undelivered(tmp_path) == []
    assert store.deliver(study(tmp_path, 4, text=", drawn again"))
    assert not store.deliver(made[1])
    run = all_of(store)[before.info.run_name]
    assert (run.info.run_id, run.info.status) == (before.info.run_id, "FINISHED")
    assert run.data.metrics["trials"] == 4 and "4 trials" in run.data.tags["mlflow.note.content"]
    assert [step for step, _ in history(store, run, "by_trial/cost_student_steps")] == [0, 1, 2, 3]
    assert set(counts(store, run).values()) == {1}
    for name in ("figures/history.png", "trials.csv"):
        assert Path(store.client.download_artifacts(run.info.run_id, name)).read_text() == f"# {name} of 4, drawn again"


def test_offline_then_sync_and_sync_again(
    make: Make, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KDBENCH_OFFLINE", "1")
    made = [make(), study(tmp_path, 2), trial(tmp_path, 0), trial(tmp_path, 1, "pruned", "halving")]
    with Mirror(lambda: pytest.fail("contacted")) as mirror:
        for record in made:
            mirror.finish(record)
    folders = [record.folder for record in made]
    assert [r.folder for r in records(tmp_path)] == [r.folder for r in undelivered(tmp_path)] == folders
    assert sync(tmp_path, store.uri, "other") == (0, 0, []) and records(tmp_path, "other") == []
    assert sync(tmp_path, store.uri, "tiny") == (4, 0, []) and undelivered(tmp_path) == []
    before = everything(tmp_path / "mlflow.db")
    assert sync(tmp_path, store.uri) == (0, 4, [])
    for record in made[1:]:
        (record.folder / CACHE).unlink()
    assert sync(tmp_path, store.uri).failed == []
    assert everything(tmp_path / "mlflow.db") == before


@pytest.mark.parametrize("trials_first", [False, True])
def test_the_chosen_trial_is_marked(store: Store, tmp_path: Path, trials_first: bool) -> None:
    def chosen(number: int, trials: int) -> Record:
        return study(tmp_path, trials, text=f"\ntrial: {number}\n")

    trials = [trial(tmp_path, number) for number in range(3)]
    order = [*trials, chosen(1, 3)] if trials_first else [chosen(1, 3), *trials]
    for record in order:
        store.deliver(record)
    marks = {name: run.data.tags.get("best") for name, run in all_of(store).items()}
    assert {name for name, mark in marks.items() if mark} == {"kd big->small", "kd trial 1"}
    assert marks["kd big->small"] == "kd trial 1"
    store.deliver(chosen(2, 4))
    marks = {name: run.data.tags.get("best") for name, run in all_of(store).items()}
    assert marks["kd big->small"] == "kd trial 2" and marks["kd trial 1"] is None and marks["kd trial 2"]


def test_reports_and_the_benchmarks_experiment_hold_runs_alone(make: Make, store: Store, tmp_path: Path) -> None:
    with Mirror(lambda: store) as mirror:  # one mirror carries any record
        for record in (study(tmp_path, 2), trial(tmp_path, 0), make()):
            mirror.finish(record)
    assert mirror.pending() == []
    for table in (runs(store.uri, "tiny"), runs(store.uri), frame(scan(tmp_path / "tiny"))):
        assert table["fingerprint"].tolist() == ["f0"]
    (own,) = store.search([store.experiment("kd/tiny")], "")
    assert own.data.tags["kd.kind"] == "run" and len(all_of(store)) == 2


def test_a_trial_brings_its_study(store: Store, tmp_path: Path) -> None:
    study(tmp_path, 1, end=False)
    store.deliver(trial(tmp_path, 0, status=None))
    found = all_of(store)
    assert found["kd trial 0"].data.tags["mlflow.parentRunId"] == found["kd big->small"].info.run_id
    assert {run.info.status for run in found.values()} == {"RUNNING"}


def test_a_trial_finds_the_study_of_another_machine(store: Store, tmp_path: Path) -> None:
    store.deliver(study(tmp_path / "driver", 1))
    study(tmp_path / "worker", 1, fingerprint="another study in the same folder")
    for results in ("worker", "bare"):
        store.deliver(trial(tmp_path / results, 0, seed=len(results), stage="confirm"))
    found = all_of(store)
    parent = found.pop("kd big->small").info.run_id
    assert [run.data.tags["mlflow.parentRunId"] for run in found.values()] == [parent] * 2


def test_a_study_that_is_made_anew_takes_its_trials_along(store: Store, tmp_path: Path) -> None:
    orphan = trial(tmp_path, 0)
    store.deliver(orphan)
    assert "mlflow.parentRunId" not in all_of(store)["kd trial 0"].data.tags
    study(tmp_path, 2)
    for _ in range(2):  # its study comes to be known; its study's run is deleted and comes again
        assert store.deliver(orphan) and not store.deliver(orphan)
        found = all_of(store)
        parent = found["kd big->small"].info.run_id
        assert found["kd trial 0"].data.tags["mlflow.parentRunId"] == parent
        assert set(counts(store, found["kd trial 0"]).values()) == {1}
        store.client.delete_run(parent)


def test_experiments_of_the_project(store: Store) -> None:
    names = ["kd/tiny", "kd-tune/tiny"]
    ids = {name: store.experiment(name) for name in names}
    store.client.create_experiment("kdother/x")
    assert store.experiments() == ids
    views = [store.client.get_experiment(ids[name]).tags[f"mlflow.sharedViewState.{VIEW}"] for name in names]
    assert "groupBy" in views[0] and "groupBy" not in views[1]
    assert [experiment_of({"suite": "tiny", **kind}) for kind in ({}, {"kind": "trial"}, {"kind": "study"})] == [
        "kd/tiny",
        "kd-tune/tiny",
        "kd-tune/tiny",
    ]
