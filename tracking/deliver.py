"""One delivery: what MLflow has of a run, compared with its record, and the difference sent.

`mlflow.json` beside the record caches where the run is and how much of it has arrived. It is a cache only: without
it the server is asked, and what is sent a second time is stored once, because the record's own times go along.
"""

from __future__ import annotations

import json
import socket
import zlib
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from tracking import payload
from tracking.datasets import datasets
from tracking.lines import Lines, RecordError, write_atomically
from tracking.locks import boot_id, process_may_live
from tracking.record import Record

if TYPE_CHECKING:
    from mlflow import MlflowClient

CACHE = "mlflow.json"
BATCH = 1000  # what one request may carry


class Delivery:
    """A single use: `Delivery(...).make()`. `parent` is the id of the run that this one belongs below."""

    def __init__(
        self,
        client: MlflowClient,
        store: str,
        experiment_id: str,
        record: Record,
        kind: str,
        parent: str = "",
        description: payload.RunDescription | None = None,
    ) -> None:
        self.client, self.store, self.experiment_id, self.record = client, store, experiment_id, record
        self.parent = parent
        self.lines = record.read()
        self.kind = str(self.lines.header["spec"].get("kind", kind))
        self.status, self.reason = _status(self.lines)
        self.description = description or payload.run_description(self.lines, self.kind)
        self.texts_checksum = self.description.checksum()

    def send(self) -> bool:
        """Send what is missing; True if anything was sent."""
        cache = self._cached()
        run = self._find(cache)
        state = _record_state(self.lines, self.status)
        sent_before = cache.get("state"), cache.get("parent", ""), cache.get("texts", 0)
        is_unchanged = sent_before == (state, self.parent, self.texts_checksum)
        if run is not None and is_unchanged and run.info.status == self.status:
            return False
        if run is None:
            cache, run = {}, self._create()
        run_id = run.info.run_id
        self._describe(run)
        if run.info.status != "RUNNING" and self.status == "RUNNING":
            self.client.update_run(run_id, status="RUNNING")  # a run that was killed goes on
        self._send_points(run_id, payload.epoch_points(self.lines, cache.get("epochs", 0)))
        if self.status != "RUNNING":
            self._finish(run_id, run.data.metrics)
        if not cache or self.status != "RUNNING":
            self._delete_duplicates(run_id)
        self._write_cache(run_id, state)
        return True

    def _cached(self) -> dict[str, Any]:
        """The cache, if it is of this store and of this record."""
        try:
            cache = json.loads((self.record.folder / CACHE).read_text())
            same = (cache["store"], cache["experiment_id"], cache["record"]) == self._key()
            return cache if same and isinstance(cache["epochs"], int) else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def _key(self) -> tuple[str, str, str]:
        return self.store, self.experiment_id, self.lines.header["id"]

    def _find(self, cache: dict[str, Any]) -> Any | None:
        """The run in MLflow, or None. One that holds epochs which the record no longer has is deleted: MLflow cannot
        take a metric back."""
        run = self._get(cache["run_id"]) if cache else None
        if run is None:
            cache.clear()
            found = self._ids_of_runs()
            return self._get(found[0]) if found else None
        if cache["epochs"] > len(self.lines.epochs) or cache["prefix"] != _epochs_checksum(self.lines, cache["epochs"]):
            self.client.delete_run(run.info.run_id)
            return None
        return run

    def _ids_of_runs(self) -> list[str]:
        """Ids of the runs in MLflow that were made for this record."""
        record, fingerprint = self.lines.header["id"], self.lines.header["fingerprint"]
        query = f"tags.`kd.fingerprint` = '{fingerprint}' and tags.`kd.record` = '{record}'"
        return [run.info.run_id for run in self.client.search_runs([self.experiment_id], query)]

    def _delete_duplicates(self, run_id: str) -> None:
        """Delete the twins of a run: a server that made one may have failed to say so, and been asked again."""
        for duplicate in self._ids_of_runs():
            if duplicate != run_id:
                self.client.delete_run(duplicate)

    def _get(self, run_id: str) -> Any | None:
        from mlflow.exceptions import MlflowException

        try:
            run = self.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        return run if run.info.lifecycle_stage == "active" else None

    def _create(self) -> Any:
        tags = {"mlflow.user": "kdbench", "mlflow.source.name": "kdbench", "mlflow.source.type": "LOCAL"}
        start = payload.milliseconds(self.lines.header["time"])
        return self.client.create_run(self.experiment_id, start, self.description.tags | tags, self.description.name)

    def _describe(self, run: Any) -> None:
        """Params and data that are not there yet (they cannot be changed), and tags that have changed."""
        from mlflow.entities import Param, RunTag

        params = {k: v for k, v in self.description.params.items() if k not in run.data.params}
        tags = self.description.tags | {"kd.end_reason": self.reason}
        tags |= {"mlflow.parentRunId": self.parent} if self.parent else {}
        tags = {k: v for k, v in tags.items() if run.data.tags.get(k) != v}
        if params or tags:
            new = [Param(k, v) for k, v in params.items()], [RunTag(k, v) for k, v in tags.items()]
            self.client.log_batch(run.info.run_id, params=new[0], tags=new[1])
        if not (run.inputs and run.inputs.dataset_inputs) and self.lines.header["spec"].get("dataset"):
            self.client.log_inputs(run.info.run_id, datasets=datasets(self.lines))

    def _send_points(self, run_id: str, points: list[payload.Point]) -> None:
        from mlflow.entities import Metric

        metrics = [Metric(*point) for point in points]
        for start in range(0, len(metrics), BATCH):
            self.client.log_batch(run_id, metrics=metrics[start : start + BATCH])

    def _finish(self, run_id: str, metrics_there: Mapping[str, float]) -> None:
        """What comes with the end; the status last, so that FINISHED means complete."""
        self.client.log_dict(run_id, self.lines.header["spec"], "spec.json")
        self.client.log_artifact(run_id, str(self.record.path))
        for name, text in self.description.texts.items():
            self.client.log_text(run_id, text, name)
        for name in self.record.files():
            folder = "student" if name.startswith("student") else str(PurePosixPath(name).parent)
            self.client.log_artifact(run_id, str(self.record.folder / name), None if folder == "." else folder)
        self._send_points(run_id, payload.final_points(self.lines, metrics_there))
        last = self.lines.end or (self.lines.epochs or [self.lines.header])[-1]
        self.client.set_terminated(run_id, self.status, payload.milliseconds(last["time"]))

    def _write_cache(self, run_id: str, state: str) -> None:
        count = len(self.lines.epochs)
        cache: dict[str, Any] = dict(zip(("store", "experiment_id", "record"), self._key(), strict=True))
        cache |= {"run_id": run_id, "parent": self.parent, "texts": self.texts_checksum}
        cache |= {"epochs": count, "prefix": _epochs_checksum(self.lines, count), "state": state}
        write_atomically(
            self.record.folder / CACHE, json.dumps(cache | {"done": self.lines.end is not None}, indent=1) + "\n"
        )


def last_delivery(record: Record) -> dict[str, Any]:
    """What the last delivery left: store, run_id, epochs, done. Empty if there was none."""
    try:
        return dict(json.loads((record.folder / CACHE).read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def is_delivered(record: Record, store: str | None = None) -> bool:
    """Whether the last delivery took the whole record, as it is now, to its end; nobody is asked.

    store: the URI, masked, of the one store that counts; any does if none is named.
    """
    cache = last_delivery(record)
    if store is not None and cache.get("store") != store:
        return False
    try:
        lines = record.read()
    except RecordError:
        return False
    return bool(cache.get("done")) and cache.get("state") == _record_state(lines, _status(lines)[0])


def _status(lines: Lines) -> tuple[str, str]:
    """MLflow's status, and the reason. A run without an end whose process on this machine is gone was killed."""
    if lines.end:
        return payload.MLFLOW_STATUS[lines.end["status"]], lines.end["reason"]
    where = lines.environment
    here = where.get("host") == socket.gethostname()
    if here and not (where.get("boot_id") in (None, boot_id()) and process_may_live(where.get("pid"))):
        return "KILLED", f"process {where.get('pid')} is gone"
    return "RUNNING", ""


def _record_state(lines: Lines, status: str) -> str:
    crcs = [
        lines.header["crc"],
        _epochs_checksum(lines, len(lines.epochs)),
        lines.end["crc"] if lines.end else 0,
        status,
    ]
    return "-".join(map(str, crcs))


def _epochs_checksum(lines: Lines, count: int) -> int:
    """A checksum of the first `count` epochs."""
    return zlib.crc32(json.dumps([line["crc"] for line in lines.epochs[:count]]).encode())
