"""MLflow as the shared store: connecting, experiments, and making a run there hold what its record holds.

One access path per store: a SQLite file directly, on one machine; a server over HTTP for many. Everything goes through
a synchronous `MlflowClient` in few large calls; nothing fluent, so it may run in a thread.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tracking import moved, payload, summary, views
from tracking.deliver import Delivery, last_delivery
from tracking.lines import RecordError
from tracking.location import (
    TrackingError,
    check_uri,
    default_uri,
    experiment_name,
    experiment_of,
    mask_secrets,
    quiet_loggers,
    set_mlflow_defaults,
    sqlite_file,
    tracking_error,
    tuning_name,
)
from tracking.locks import boot_id, file_lock, process_may_live
from tracking.record import Record
from tracking.views import SHARED_VIEW, VIEW, ui_link

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["SHARED_VIEW", "VIEW", "Store", "TrackingError", "default_uri", "mask_secrets", "open_existing", "ui_link"]

PAGE = 200  # runs in one answer: a thousand take a server so long that a client's patience ends


class Store:
    """An MLflow tracking store. Nothing is contacted, and mlflow not imported, before the first method is called."""

    def __init__(self, uri: str, results: str | os.PathLike[str]) -> None:
        self.uri = check_uri(uri)
        self.results = Path(results).resolve()
        self._client: MlflowClient | None = None
        self._experiments: dict[str, str] = {}

    @property
    def client(self) -> MlflowClient:
        """The MLflow client; the first use imports mlflow (3 s) and makes a new SQLite file's tables (3 s)."""
        if self._client is None:
            with self.translate_errors():
                set_mlflow_defaults()
                import mlflow  # noqa: F401  # which sets its own level of logging

                quiet_loggers()
                if (file := sqlite_file(self.uri)) is not None:
                    initialise_sqlite(file)
                self._client = _connect(self.uri)
        return self._client

    def ping(self) -> None:
        """Return if the store answers, else raise `TrackingError`."""
        with self.translate_errors():
            self.client.search_experiments(max_results=1)

    def experiment(self, name: str) -> str:
        """The id of an experiment, made if need be, with its note and a view that averages over seeds."""
        if name not in self._experiments:
            with self.translate_errors():
                found = self.client.get_experiment_by_name(name)
                if found is not None and found.lifecycle_stage != "active":
                    raise TrackingError(
                        f"MLflow at {mask_secrets(self.uri)}: experiment '{name}' was deleted there;"
                        " restore or rename it"
                    )
                self._experiments[name] = found.experiment_id if found else self._create(name)
        return self._experiments[name]

    def experiments(self) -> dict[str, str]:
        """Ids of this project's experiments by name, those of tuning among them."""
        with self.translate_errors():
            found = self.client.search_experiments(filter_string="name LIKE 'kd%/%'")
        ours = experiment_name(""), tuning_name("")
        return {experiment.name: experiment.experiment_id for experiment in found if experiment.name.startswith(ours)}

    def deliver(self, record: Record, *, experiment: str | None = None, kind: str = "run") -> bool:
        """Make MLflow hold what the record holds, in the experiment that its spec names if no other is given; False if
        it already did. Twice is once. A trial's study is delivered before it."""
        with self.translate_errors():
            spec, store = record.header["spec"], mask_secrets(self.uri)
            name = experiment or experiment_of(spec)
            parent = self._study_run(record, name)
            with file_lock(record.folder):
                words = summary.run_description(record, store) if spec.get("kind") == "suite" else None
                is_news = Delivery(self.client, store, self.experiment(name), record, kind, parent, words).send()
            if is_news and spec.get("kind") in ("study", "trial"):
                self._mark_chosen(record if spec["kind"] == "study" else Record(record.folder.parent.parent), name)
            return is_news

    def end_orphaned_runs(self, experiment: str) -> list[str]:
        """End, as KILLED, runs of this host whose process is gone; their ids."""
        with self.translate_errors():
            running = f"attributes.status = 'RUNNING' and tags.`kd.host` = '{socket.gethostname()}'"
            dead = [
                run for run in self.search([self.experiment(experiment)], running) if not _process_lives(run.data.tags)
            ]
            for run in dead:
                reason = f"process {run.data.tags.get('kd.pid')} is gone"
                self.client.set_tag(run.info.run_id, "kd.end_reason", reason)
                self.client.set_terminated(run.info.run_id, "KILLED")
            return [run.info.run_id for run in dead]

    def search(self, experiments: list[str], query: str) -> list[Any]:
        """All runs that match, page by page."""
        found: list[Any] = []
        token = None
        with self.translate_errors():
            while True:
                page = self.client.search_runs(experiments, query, max_results=PAGE, page_token=token)
                found += page
                token = page.token
                if not token:
                    return found

    @contextmanager
    def translate_errors(self) -> Iterator[None]:
        """Whatever goes wrong in MLflow, its database or the network comes out as one line."""
        try:
            yield
        except (TrackingError, RecordError):
            raise
        except Exception as error:  # mlflow raises its own, SQLAlchemy's, alembic's and requests' errors
            raise tracking_error(self.uri, error) from None

    def _study_run(self, record: Record, experiment: str) -> str:
        """The id of the run that a trial belongs below; empty for other records, and where the study is not known."""
        spec = record.header["spec"]
        if spec.get("kind") != "trial":
            return ""
        study, fingerprint = Record(record.folder.parent.parent), spec["study_fingerprint"]
        if study.status != "absent" and study.header["fingerprint"] == fingerprint:
            self.deliver(study, experiment=experiment)
            return str(last_delivery(study)["run_id"])
        query = f"tags.`kd.kind` = 'study' and tags.`kd.fingerprint` = '{fingerprint}'"  # made on another machine
        return next((run.info.run_id for run in self.search([self.experiment(experiment)], query)), "")

    def _mark_chosen(self, study: Record, experiment: str) -> None:
        """Give the trial that a study on this machine has chosen its tag, and the study the trial's name."""
        trial = chosen_trial(study)
        run_id = last_delivery(study).get("run_id")
        if trial is None or run_id is None:
            return
        query = f"tags.`mlflow.parentRunId` = '{run_id}' and tags.`kd.stage` = 'search'"
        for run in self.search([self.experiment(experiment)], query):
            is_chosen, is_marked = run.data.tags.get("kd.trial") == str(trial), payload.CHOSEN in run.data.tags
            if is_chosen and not is_marked:
                self.client.set_tag(run.info.run_id, payload.CHOSEN, "chosen by its study")
                self.client.set_tag(run_id, payload.CHOSEN, run.info.run_name)
            elif is_marked and not is_chosen:
                self.client.delete_tag(run.info.run_id, payload.CHOSEN)

    def _create(self, name: str) -> str:
        home = file.parent if (file := sqlite_file(self.uri)) else self.results  # MLflow's own choice is ./mlruns
        served = self.uri.startswith("http")
        place = None if served else moved.artifact_folder(home, name).as_uri()
        try:
            return str(self.client.create_experiment(name, artifact_location=place, tags=views.experiment_tags(name)))
        except Exception:
            found = self.client.get_experiment_by_name(name)  # another process was faster
            if found is None:
                raise
            return str(found.experiment_id)


def open_existing(uri: str, results: str | os.PathLike[str]) -> Store:
    """A store to read from. A SQLite file that is not there is refused: MLflow would make an empty one."""
    store = Store(uri, results)
    if (file := sqlite_file(store.uri)) is not None and not file.is_file():
        raise TrackingError(f"no MLflow store at {store.uri} yet; `kdbench run` makes one")
    return store


def chosen_trial(study: Record) -> int | None:
    """The number of the trial that a finished study chose; None where it has not, or its file does not say."""
    if study.status != "finished":
        return None
    try:
        number = yaml.safe_load((study.folder / "tuned.yaml").read_text("utf-8"))["trial"]
    except (OSError, ValueError, yaml.YAMLError, TypeError, KeyError):
        return None
    return number if isinstance(number, int) else None


def initialise_sqlite(file: Path) -> None:
    """Make the tables of a new SQLite store and put it into WAL mode, once, whoever comes first. One that was moved
    with its artifacts finds them.

    MLflow's own start destroys a fresh file that several processes open at once. The tables are made in a file beside
    it that is then renamed, so that a kill leaves nothing half made.
    """
    from mlflow import MlflowClient

    file.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(file.with_name(f"{file.name}.lock")):
        if not file.exists() or not file.stat().st_size:
            partial = file.with_name(f"{file.name}.partial")
            partial.unlink(missing_ok=True)
            MlflowClient(tracking_uri=f"sqlite:///{partial}").search_experiments(max_results=1)
            partial.replace(file)
            with suppress(sqlite3.OperationalError):  # busy: the journal mode is a matter of speed only
                connection = sqlite3.connect(file)
                connection.execute("PRAGMA journal_mode=WAL")
                connection.close()
        MlflowClient(tracking_uri=f"sqlite:///{file}").search_experiments(max_results=1)
        moved.update_artifact_paths(file)


def _connect(uri: str) -> MlflowClient:
    """The client. Where another machine makes a database's tables at this moment, MLflow fails and is asked again."""
    from mlflow import MlflowClient
    from sqlalchemy.exc import IntegrityError, ProgrammingError

    pauses = iter((0.5, 1.0, 2.0, 4.0))
    while True:
        try:
            return MlflowClient(tracking_uri=uri, registry_uri=uri)
        except (IntegrityError, ProgrammingError):
            if (pause := next(pauses, None)) is None:
                raise
            time.sleep(pause)


def _process_lives(tags: dict[str, str]) -> bool:
    same_boot = tags.get("kd.boot_id") in (None, boot_id())
    return same_boot and process_may_live(tags.get("kd.pid"))
