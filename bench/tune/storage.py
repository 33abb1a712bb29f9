"""Where studies are kept: opened, checked against what they were made for, never MLflow's own database."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import optuna
import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.samplers import RandomSampler
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError, SQLAlchemyError

from bench.errors import UserError
from bench.jobs.tuned import describe_differences
from tracking.lines import as_plain_json
from tracking.location import default_uri, mask_secrets, sqlite_file
from tracking.locks import file_lock

MADE_FOR = "made_for"  # the study's attribute that says what its trials depend on
CHOSEN = "chosen trial"
RETRY_FOR_S, RETRY_EVERY_S = 900.0, 5.0  # with a server that is away: in all, and between two tries
T = TypeVar("T")


def connect(url: str | None, results: Path) -> RDBStorage:
    """Optuna's storage: results/optuna.db, or the URL of a database. One process at a time makes its tables."""
    url = url or f"sqlite:///{results.absolute() / 'optuna.db'}"
    if "://" not in url:
        raise UserError(
            f"storage '{mask_secrets(url)}' is no URL; write sqlite:////folder/optuna.db or postgresql://user@host/db"
        )
    try:
        is_own = url != default_uri(results) and not _is_mlflow(url)
        with file_lock(results / "optuna.lock"):
            if is_own:
                return _open_storage(url)
    except Exception as error:  # SQLAlchemy's, its driver's, or Optuna's
        reason = _reason(error)
        if isinstance(error, ImportError):
            reason = "its driver is missing; for PostgreSQL: pip install 'kdbench[postgres]'"
        raise UserError(f"storage {mask_secrets(url)} cannot be opened ({mask_secrets(reason)})") from None
    raise UserError(f"storage {mask_secrets(url)} is MLflow's database; studies need one of their own, e.g. optuna.db")


def _open_storage(url: str) -> RDBStorage:
    pauses = iter((0.5, 1.0, 2.0, 4.0))
    while True:
        try:
            return RDBStorage(url, engine_kwargs=_options(url))
        except (IntegrityError, ProgrammingError):  # another machine makes the tables at this moment
            if (pause := next(pauses, None)) is None:
                raise
            time.sleep(pause)


def _options(url: str) -> dict[str, Any]:
    """A file is waited for while others write it; a server's connection is tried before each use, since one from before
    its restart is dead."""
    if sqlite_file(url) is not None:
        return {"connect_args": {"timeout": 60}}
    return {"connect_args": {"connect_timeout": 10}, "pool_pre_ping": True}


@contextmanager
def study_lock(database: RDBStorage, study: str) -> Iterator[None]:
    """Nobody else is in such a block for the same study meanwhile, on whatever machine. Freed with the process."""
    if database.engine.dialect.name == "sqlite":
        with file_lock(Path(f"{database.engine.url.database}.lock")):
            yield
        return
    with database.engine.connect() as connection:
        if database.engine.dialect.name == "postgresql":  # any other server has no lock that ends with its connection
            lock = sqlalchemy.text("select pg_advisory_xact_lock(:key)")
            connection.execute(lock, {"key": zlib.crc32(study.encode())})
        yield


def retry_through_outage(database: RDBStorage, run_study: Callable[[], T], log: Callable[[str], object]) -> T:
    """Do what may be done again from its beginning, and do it again for as long as the database is away.

    A file is never away: what goes wrong with it is raised. Raises `UserError` when patience ends.
    """
    end = time.monotonic() + RETRY_FOR_S
    while True:
        try:
            return run_study()
        except (StorageInternalError, DBAPIError) as error:
            if database.engine.dialect.name == "sqlite":
                raise
            url, reason = mask_secrets(str(database.engine.url)), mask_secrets(_reason(error))
            problem = f"the studies' database {url} is away ({reason})"
            if time.monotonic() > end:
                raise UserError(f"{problem}; nothing is lost, the same command goes on") from None
            log(f"{problem}; trying again")
        time.sleep(RETRY_EVERY_S)


def _reason(error: BaseException) -> str:
    cause = error.__cause__ if isinstance(error.__cause__, SQLAlchemyError) else error
    return next(iter(str(getattr(cause, "orig", None) or cause).splitlines()), type(error).__name__)


def _is_mlflow(url: str) -> bool:
    file = sqlite_file(url)
    if file is not None and not file.is_file():
        return False
    engine = sqlalchemy.create_engine(url, **_options(url))
    try:
        return {"experiments", "runs"} <= set(sqlalchemy.inspect(engine).get_table_names())
    finally:
        engine.dispose()


def mark_chosen(study: optuna.Study, trial: int) -> None:
    """Names the chosen trial where optuna-dashboard shows a study, which marks the best single run on its own: a trial
    that has ended takes no attribute."""
    if study.user_attrs.get(CHOSEN) != trial:
        study.set_user_attr(CHOSEN, trial)


def load_study(
    storage: RDBStorage, name: str, directions: list[StudyDirection], made_for: Mapping[str, Any]
) -> optuna.Study:
    """The study of that name, new or as it was left. Refuses one whose trials were made for something else."""
    with study_lock(storage, name):
        study = optuna.create_study(
            storage=storage, study_name=name, directions=directions, load_if_exists=True, sampler=RandomSampler()
        )
        made_before = study.user_attrs.get(MADE_FOR)
        if made_before is None and not study.get_trials(deepcopy=False):
            study.set_user_attr(MADE_FOR, as_plain_json(made_for))
        elif made_before != as_plain_json(made_for):
            difference = describe_differences(made_before or {}, as_plain_json(made_for))
            raise UserError(
                f"study '{name}' was made with {difference}; give another one a name of its own: --name NAME"
            )
        return study
