"""Where studies are kept: opened, checked against what they were made for, never MLflow's own database."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import RandomSampler
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import StudyDirection

from bench.errors import UserError
from bench.tuned import differences
from tracking.lines import plain
from tracking.location import default_uri, mask, sqlite_file
from tracking.locks import locked

MADE_FOR = "made_for"  # the study's attribute that says what its trials depend on


def connect(url: str | None, results: Path) -> BaseStorage:
    """Optuna's storage: results/optuna.db, or the URL of a database. One process at a time makes its tables."""
    url = url or f"sqlite:///{results.absolute() / 'optuna.db'}"
    if "://" not in url:
        raise UserError(
            f"storage '{mask(url)}' is no URL; write sqlite:////folder/optuna.db or postgresql://user@host/db"
        )
    if _is_mlflow(url, results):
        raise UserError(f"storage {mask(url)} is MLflow's database; studies need one of their own, e.g. optuna.db")
    try:
        with locked(results / "optuna.lock"):
            return RDBStorage(url)
    except Exception as error:  # SQLAlchemy's, its driver's, or Optuna's
        reason = next(iter(str(getattr(error, "orig", None) or error).splitlines()), type(error).__name__)
        if isinstance(error, ImportError):
            reason = "its driver is missing; for PostgreSQL: pip install 'kdbench[postgres]'"
        raise UserError(f"storage {mask(url)} cannot be opened ({mask(reason)})") from None


def _is_mlflow(url: str, results: Path) -> bool:
    if url == default_uri(results):
        return True
    file = sqlite_file(url)
    if file is None or not file.is_file():
        return False
    with contextlib.closing(sqlite3.connect(file)) as connection, contextlib.suppress(sqlite3.DatabaseError):
        tables = {name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")}
        return {"experiments", "runs"} <= tables
    return False


def study_of(
    storage: BaseStorage, name: str, directions: list[StudyDirection], made_for: Mapping[str, Any]
) -> optuna.Study:
    """The study of that name, new or as it was left. Refuses one whose trials were made for something else."""
    study = optuna.create_study(
        storage=storage, study_name=name, directions=directions, load_if_exists=True, sampler=RandomSampler()
    )
    before = study.user_attrs.get(MADE_FOR)
    if before is None and not study.get_trials(deepcopy=False):
        study.set_user_attr(MADE_FOR, plain(made_for))
    elif before != plain(made_for):
        told = differences(before or {}, plain(made_for))
        raise UserError(f"study '{name}' was made with {told}; give another one a name of its own: --name NAME")
    return study
