"""Values that a study found, in the bench: used where they hold, refused where they do not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console

from bench.errors import UserError
from bench.jobs import tuned as values
from bench.jobs.progress import Progress
from bench.jobs.run import run_suite
from bench.report import write
from bench.suite.suite import validate
from bench.tune.storage import connect
from methods.kd import KD
from tests.prose import Prose
from tests.tune.conftest import tuned
from tracking.frame import frame
from tracking.record import scan


def bench(raw: dict[str, Any], results: Path, how: str = "both") -> Any:
    suite = values.with_tuned_rows(validate(raw, "test"), how)
    quiet = Progress(Console(quiet=True), quiet=True)
    return run_suite(suite, results, device=torch.device("cpu"), rerun=False, progress=quiet, mirror=None)


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.conftest import TINY

    folder = tmp_path_factory.mktemp("studied")
    torch.set_num_threads(1)
    tuned({**TINY, "methods": ["kd", {"method": "dkd", "label": "mine"}]}, folder, trials=3)
    return folder


def test_tuned_rows_stand_beside_the_recipes(studied: Path, tiny: dict[str, Any]) -> None:
    raw = {**tiny, "methods": ["vanilla", "kd", {"method": "dkd", "label": "mine"}], "seeds": 1}
    assert bench(raw, studied).n_trained == 5
    found = {row["label"]: row for row in frame(scan(studied / "tiny")).to_dict("records")}
    assert sorted(found) == ["kd", "kd(tuned)", "mine", "mine(tuned)", "vanilla"]
    content = yaml.safe_load(next(studied.glob("tuned/tiny/*/kd.yaml")).read_text())
    assert yaml.safe_load(found["kd(tuned)"]["hp"]) == content["values"]
    assert [label for label, row in found.items() if row["tuned"]] == ["kd(tuned)", "mine(tuned)"]
    spec = next(r.header["spec"] for r in scan(studied / "tiny") if r.header["spec"]["label"] == "kd(tuned)")
    assert spec["tuned"] == {
        "row": "kd", "study": "tiny/resnet8w8->resnet8w4/kd", "trial": content["trial"], "rule": "best_trial",
        **content["budget"],
    }  # fmt: skip
    report = write(studied, "tiny")
    text = report.report.read_text()
    assert "## Tuned against recipe" in text and "## Tuning" in text and "One seed says nothing" in text
    told = {line.split(" | ")[0].strip("| *"): line for line in text.splitlines() if line.startswith("| ")}
    assert "tuned, 3 trials" in told["kd(tuned)"] and "recipe" in told["vanilla"]
    assert bench({**raw, "methods": ["vanilla", "kd"]}, studied, "only").n_skipped == 2


def test_a_suite_can_ask_for_a_tuned_row(studied: Path, tiny: dict[str, Any]) -> None:
    assert bench({**tiny, "methods": [{"method": "kd", "recipe": "tuned"}], "seeds": [7]}, studied).n_trained == 1


def test_where_the_recipe_was_best_the_row_is_a_run_of_its_own(studied: Path, tiny: dict[str, Any]) -> None:
    """Equal numbers, two rows: the comparison shows a difference of nothing."""
    file = next(studied.glob("tuned/tiny/*/kd.yaml"))
    kept = file.read_text()
    content = yaml.safe_load(kept)
    content["values"] = KD.resolve("")
    file.write_text(yaml.safe_dump(content))
    try:
        assert bench({**tiny, "methods": ["kd"], "seeds": [3]}, studied).n_trained == 2
    finally:
        file.write_text(kept)
    rows = frame(scan(studied / "tiny"))
    rows = rows[rows["seed"] == 3]
    assert len(rows) == 2 and rows["test/top1"].nunique() == 1


def change(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content.__setitem__(key, value)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (change("values", {"kd": 900, "tau": 4.0, "ce": 0.1}), "a number from 0.01 to 20"),
        (change("values", {"kdd": 1}), "no hyper-parameter of kd 'kdd'"),
        (change("budget", None), "is not what kdbench tune writes"),
        (lambda content: content.pop("made_for"), "is not what kdbench tune writes"),
    ],
)
def test_a_damaged_file_is_refused(
    damage: Callable[[dict[str, Any]], None], told: str, studied: Path, tiny: dict[str, Any]
) -> None:
    file = next(studied.glob("tuned/tiny/*/kd.yaml"))
    kept = file.read_text()
    content = yaml.safe_load(kept)
    damage(content)
    file.write_text(yaml.safe_dump(content))
    try:
        with pytest.raises(UserError, match=told):
            bench({**tiny, "methods": ["kd"]}, studied)
    finally:
        file.write_text(kept)


def test_values_found_under_other_conditions_are_refused(
    studied: Path, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch, prose: Prose
) -> None:
    raw = {**tiny, "methods": ["kd"]}
    with pytest.raises(UserError, match=r"protocol.lr 0.05, not 0.1; teacher"):
        bench({**raw, "protocol": {**tiny["protocol"], "lr": 0.1}}, studied)
    with pytest.raises(UserError, match=r"data.train 90, not 80"):
        bench({**raw, "data": {**tiny["data"], "train": 80}}, studied)
    with pytest.raises(UserError, match=r"dkd .*kdbench tune tiny --methods 'dkd'") as error:
        bench({**raw, "methods": ["dkd"]}, studied)
    prose(str(error.value))
    with pytest.raises(UserError, match="'yes'") as error:
        bench(raw, studied, "yes")
    prose(str(error.value))
    monkeypatch.setattr(KD, "version", 99)
    with pytest.raises(UserError, match="version 1, not 99"):
        bench(raw, studied)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("somewhere", "is no URL"),
        ("sqlite:////nowhere/at/all/optuna.db", "cannot be opened"),
        ("postgresql://user:secret@127.0.0.1:1/db", r"user:\*\*\*|\*\*\*:\*\*\*|cannot be opened"),
        ("nothing://x", "cannot be opened"),
    ],
)
def test_a_storage_that_does_not_answer_is_said(url: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=told) as error:
        connect(url, tmp_path)
    assert "secret" not in str(error.value) and "\n" not in str(error.value)


def test_mlflows_database_is_not_optunas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sqlite3

    connection = sqlite3.connect(tmp_path / "other.db")
    for table in ("experiments", "runs"):
        connection.execute(f"create table {table} (x int)")
    connection.close()
    for url in (f"sqlite:///{tmp_path / 'other.db'}", f"sqlite:///{tmp_path / 'mlflow.db'}"):
        with pytest.raises(UserError, match="is MLflow's database"):
            connect(url, tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://team@host/mlflow")
    with pytest.raises(UserError, match="is MLflow's database"):
        connect("postgresql://team@host/mlflow", tmp_path)
