"""A results folder that was moved: its artifacts are found, and nothing is written where it was."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.tracking.conftest import Make
from tests.tracking.test_store import EXPERIMENT, only_run
from tracking.location import default_uri
from tracking.store import Store

WEIGHTS = "student/student.safetensors"


def opened(results: Path) -> Store:
    store = Store(default_uri(results), results)
    store.ping()
    return store


def taken(results: Path, there: Path, *names: str) -> Path:
    """Some of a results folder elsewhere; the database by SQLite's own copy, since MLflow has it open here."""
    there.mkdir(parents=True)
    for name in names:
        shutil.copytree(results / name, there / name)
    with closing(sqlite3.connect(results / "mlflow.db")) as old, closing(sqlite3.connect(there / "mlflow.db")) as new:
        old.backup(new)
    return there


def weights(store: Store) -> Path:
    """Where the run's weights lie, which MLflow finds there."""
    info = only_run(store).info
    assert Path(store.client.download_artifacts(info.run_id, WEIGHTS)).read_bytes() == bytes(range(256))
    return Path(unquote(urlsplit(info.artifact_uri).path)) / WEIGHTS


@pytest.fixture
def results(make: Make, store: Store, tmp_path: Path) -> Path:
    """A folder with one delivered run."""
    store.deliver(make(), experiment=EXPERIMENT)
    return tmp_path


@pytest.mark.parametrize("copied", [False, True])
def test_artifacts_come_along(results: Path, tmp_path_factory: pytest.TempPathFactory, copied: bool) -> None:
    there = taken(results, tmp_path_factory.mktemp("a name") / "with spaces", "tiny", "artifacts")
    if not copied:
        shutil.rmtree(results)
    store = opened(there)
    assert weights(store).is_relative_to(there)
    weights(store).unlink()
    words = [
        sys.executable,
        "-m",
        "bench",
        "sync",
        "--results",
        str(there),
    ]  # since MLflow keeps a run's place in memory
    done = subprocess.run(words, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert "1 records delivered, 0 were there already" in done.stdout  # what is missing came again
    assert weights(store).is_relative_to(there) and results.exists() == copied
    assert not copied or weights(opened(results)).is_relative_to(results)  # the original stays as it was


def test_a_file_that_was_moved_alone_still_finds_its_artifacts(
    results: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    there = taken(results, tmp_path_factory.mktemp("alone") / "results")
    assert weights(opened(there)).is_relative_to(results)


def test_a_place_of_another_s_choice_is_left_alone(results: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    store = opened(results)
    places = {"own": "s3://bucket/artifacts/own", "mine": f"file://{results}/store/mine"}
    for name, place in places.items():
        store.client.create_experiment(name, artifact_location=place)
    moved = opened(taken(results, tmp_path_factory.mktemp("moved") / "results", "artifacts"))
    assert {e.name: e.artifact_location for e in moved.client.search_experiments() if e.name in places} == places
