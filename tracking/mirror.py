"""Mirroring records to MLflow beside the training: one worker thread; training neither waits for it nor fails by it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from threading import Condition, Thread
from typing import NamedTuple

from tracking import summary
from tracking.deliver import is_delivered
from tracking.lines import RecordError
from tracking.location import TrackingError, check_uri, mask_secrets
from tracking.record import FILE, Record
from tracking.store import Store

RECORD_GLOBS = ("runs/*", "tuning/*", "tuning/*/trials/*", "summary")
"""Of a suite's records: a study comes before its trials, and the report after the runs whose ids it names."""


def is_offline() -> bool:
    """Is KDBENCH_OFFLINE set, so that no store is contacted?"""
    return os.environ.get("KDBENCH_OFFLINE", "") not in ("", "0")


class Mirror:
    """What the harness holds: `offer` after an epoch, `finish` after a run, `close` before leaving.

    After a failure the store is left alone for `retry_s`, then tried again, and once more at the end; what is not
    delivered stays in `pending()`, and `sync` brings it later. Nothing here raises. With `KDBENCH_OFFLINE=1` no store
    is ever contacted.
    """

    def __init__(self, store_factory: Callable[[], Store], *, retry_s: float = 60.0) -> None:
        self._store_factory, self.retry_s = store_factory, retry_s
        self.time_spent = 0.0  # seconds the worker was busy, with the import of mlflow
        self.time_waited = 0.0  # seconds the caller was held up
        self._waiting: dict[Path, Record] = {}  # in order; a record that waits is not queued twice
        self._undelivered_reasons: dict[Path, tuple[Record, str]] = {}
        self._last_offer: dict[Path, float] = {}
        self._store: Store | None = None
        self._record_in_delivery: Record | None = None
        self._last_failure = ""  # the store's last failure, while it lasts
        self._blocked_until = 0.0
        self._closing = False
        self._wake = Condition()
        self._worker: Thread | None = None
        self.offline = is_offline()
        if not self.offline:
            self._worker = Thread(target=self._work, name="mlflow-mirror", daemon=True)
            self._worker.start()

    def offer(self, record: Record, every_s: float = 30.0) -> None:
        """Deliver the record's news unless that was done less than `every_s` seconds ago."""
        now = time.monotonic()
        if now - self._last_offer.get(record.folder, -every_s) >= every_s:
            self._last_offer[record.folder] = now
            self.finish(record)

    def finish(self, record: Record) -> None:
        """Deliver the record, now that it has ended."""
        start = time.monotonic()
        with self._wake:
            if self._worker is None or self._closing:
                self._undelivered_reasons[record.folder] = (
                    record,
                    "offline" if self.offline else "the mirror is closed",
                )
            else:
                self._waiting.pop(record.folder, None)
                self._waiting[record.folder] = record
            self._wake.notify()
        self.time_waited += time.monotonic() - start

    def pending(self) -> list[tuple[Record, str]]:
        """Records that MLflow does not hold, each with the last reason."""
        with self._wake:
            going = [*self._waiting.values(), *([self._record_in_delivery] if self._record_in_delivery else [])]
            queued = {record.folder: (record, self._last_failure or "waiting") for record in going}
            return list((queued | self._undelivered_reasons).values())

    def wait(self, timeout: float = 60.0) -> None:
        """Until nothing waits to be delivered, or the store is not to be had, or `timeout` seconds have passed."""
        end = time.monotonic() + timeout
        with self._wake:
            while (
                (self._waiting or self._record_in_delivery)
                and not self._last_failure
                and (seconds_left := end - time.monotonic()) > 0
            ):
                self._wake.wait(seconds_left)

    def close(self, timeout: float = 60.0) -> None:
        """Deliver what waits, then stop. What is left after `timeout` seconds stays pending."""
        start = time.monotonic()
        with self._wake:
            self._closing, self._blocked_until = True, 0.0
            self._wake.notify()
        if self._worker is not None:
            self._worker.join(timeout)
        self.time_waited += time.monotonic() - start

    def __enter__(self) -> Mirror:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _work(self) -> None:
        self._timed(self._make_first_contact)  # the slow first contact happens while training starts
        with self._wake:
            self._wake.notify_all()  # who waits need not, where the store is not to be had
        while (record := self._next()) is not None:
            failure = self._timed(partial(self._deliver, record))
            with self._wake:
                self._record_in_delivery = None
                if failure is None:
                    self._undelivered_reasons.pop(record.folder, None)
                else:
                    self._undelivered_reasons[record.folder] = (record, failure)
                    if not isinstance(failure, RecordRefused):
                        self._waiting.setdefault(record.folder, record)
                self._wake.notify_all()

    def _next(self) -> Record | None:
        """The next record to deliver, when it is time; None when all is done."""
        with self._wake:
            while True:
                blocked = self._blocked_until - time.monotonic()
                if self._waiting and blocked <= 0:
                    self._record_in_delivery = self._waiting.pop(next(iter(self._waiting)))
                    return self._record_in_delivery
                if self._closing:
                    return None
                self._wake.wait(max(blocked, 0.01) if self._waiting else None)

    def _make_first_contact(self) -> None:
        self._connect().ping()

    def _connect(self) -> Store:
        if self._store is None:
            self._store = self._store_factory()
        return self._store

    def _deliver(self, record: Record) -> None:
        self._connect().deliver(record)

    def _timed(self, act: Callable[[], object]) -> str | None:
        """Do it and count the time; the reason if it failed."""
        start = time.monotonic()
        try:
            act()
        except RecordError as error:
            return RecordRefused(error)
        except Exception as error:  # a mirror must not stop the training
            self._blocked_until = time.monotonic() + self.retry_s
            self._last_failure = str(error)
            return self._last_failure
        finally:
            self.time_spent += time.monotonic() - start
        self._last_failure = ""
        return None


class RecordRefused(str):
    """A reason that lies in the record: trying again would not help."""


class SyncResult(NamedTuple):
    delivered: int
    unchanged: int
    failed: list[tuple[Record, str]]


def sync(
    results: str | os.PathLike[str],
    uri: str,
    suite: str | None = None,
    progress: Callable[[Record], None] | None = None,
) -> SyncResult:
    """Deliver every record under `results` that MLflow does not hold yet. Twice changes nothing.

    Raises `TrackingError` if the store does not answer at the start; if it goes away later, the rest is `failed`.
    """
    store, delivered, unchanged = Store(uri, results), 0, 0
    failed: list[tuple[Record, str]] = []
    store.ping()
    outage = ""
    for record in records(results, suite):
        try:
            if outage:
                raise TrackingError(outage)
            if store.deliver(record):
                delivered += 1
            else:
                unchanged += 1
        except (TrackingError, RecordError) as error:
            failed.append((record, str(error)))
            outage = outage or _outage(store, error)
        if progress:
            progress(record)
    return SyncResult(delivered, unchanged, failed)


def undelivered(results: str | os.PathLike[str], suite: str | None = None, uri: str | None = None) -> list[Record]:
    """Records that the store (any, if none is named) is not known to hold whole, judged by the caches alone."""
    store = None if uri is None else mask_secrets(check_uri(uri))
    return [r for r in records(results, suite) if not is_delivered(r, store) or summary.is_outdated(r)]


def records(results: str | os.PathLike[str], suite: str | None = None) -> Iterable[Record]:
    """All records under a results folder, or those of one suite: runs, tuning studies, their trials, the report."""
    found = (sorted(Path(results).glob(f"{suite or '*'}/{place}/{FILE}")) for place in RECORD_GLOBS)
    return [Record(path.parent) for paths in found for path in paths]


def _outage(store: Store, error: Exception) -> str:
    if isinstance(error, RecordError):
        return ""
    try:
        store.ping()
    except TrackingError as silence:
        return str(silence)
    return ""
