"""Runs out of MLflow, as the same table that `frame` makes of local records."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from tracking import payload
from tracking.frame import table
from tracking.lines import RecordError
from tracking.location import mask_secrets
from tracking.record import FILE, Record
from tracking.store import Store, open_existing

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class StoreRuns:
    """The runs of a suite in a store. All dictionaries are by fingerprint."""

    where: str  # the store's URI without secrets
    frame: pd.DataFrame  # one row per run, as `tracking.frame.frame` makes them
    specs: dict[str, dict[str, Any]]  # of each run: protocol, data, pair, seed, teacher_fingerprint
    ids: dict[str, tuple[str, str]]  # experiment and run
    records: list[Record]  # of those runs whose artifacts lie on this machine


def suite(uri: str, name: str, *, results: str | os.PathLike[str] = "results") -> StoreRuns:
    """All that a report is made of, by one search; no artifact is fetched. Empty if the store has no run of the suite.

    Of several runs with one fingerprint (a suite run again elsewhere) the newest finished one is taken. Raises
    `TrackingError` for a store that does not answer or, a SQLite file, is not there.
    """
    store = open_existing(uri, results)
    with store.translate_errors():
        chosen = _search(store, name, None, "run")
        return StoreRuns(
            mask_secrets(store.uri),
            _table(chosen.values()),
            _specs(chosen),
            {fingerprint: (run.info.experiment_id, run.info.run_id) for fingerprint, run in chosen.items()},
            [record for run in chosen.values() if (record := _local_record(run)) is not None],
        )


def runs(
    uri: str,
    suite: str | None = None,
    *,
    experiment: str | None = None,
    results: str | os.PathLike[str] = "results",
    kind: str = "run",
) -> pd.DataFrame:
    """One row per run of a suite (or experiment), from any machine that logged to this store.

    Of several runs with one fingerprint (a suite run again elsewhere) the newest finished one is taken.
    """
    store = Store(uri, results)
    with store.translate_errors():
        return _table(_search(store, suite, experiment, kind).values())


def _search(store: Store, suite: str | None, experiment: str | None, kind: str) -> dict[str, Any]:
    """Runs by fingerprint."""
    ids = _experiment_ids(store, experiment)
    query = f"tags.`kd.kind` = '{kind}'" + (f" and tags.`kd.suite` = '{suite}'" if suite else "")
    found = store.search(ids, query) if ids else []
    chosen: dict[str, Any] = {}
    for run in sorted(found, key=lambda run: (run.data.tags.get("kd.status") == "finished", run.info.start_time)):
        chosen[run.data.tags.get("kd.fingerprint", run.info.run_id)] = run
    return chosen


def _table(found: Iterable[Any]) -> pd.DataFrame:
    return table(
        [
            payload.row_of(run.data.tags, run.data.metrics, run.data.params) | {"time": run.info.start_time / 1000}
            for run in found
        ]
    )


def _specs(chosen: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Of each run; where a run says only a part of its protocol, that part of everybody's."""
    specs = {fingerprint: _spec(run) for fingerprint, run in chosen.items()}
    if not all(payload.has_whole_protocol(run.data.tags, run.data.params) for run in chosen.values()):
        for spec in specs.values():
            spec["protocol"] = {key: v for key, v in spec["protocol"].items() if key in payload.PROTOCOL}
    return specs


def _spec(run: Any) -> dict[str, Any]:
    inputs = run.inputs.dataset_inputs if run.inputs else []
    spec = payload.settings_of(run.data.tags, run.data.params, inputs[0].dataset.profile if inputs else "")
    return spec | {name: run.data.tags.get(f"kd.{name}") for name in ("pair", "seed", "teacher_fingerprint")}


def _local_record(run: Any) -> Record | None:
    """The record among the run's artifacts, where they lie on this machine's disk; else None: 200 runs' records take
    a server many seconds to send."""
    parts = urlsplit(run.info.artifact_uri)
    record = Record(Path(unquote(parts.path)))
    if parts.scheme not in ("", "file") or not (record.folder / FILE).is_file():
        return None
    try:
        return record if record.header["id"] == run.data.tags.get("kd.record") else None
    except RecordError:
        return None


def _experiment_ids(store: Store, name: str | None) -> list[str]:
    if name is not None:
        found = store.client.get_experiment_by_name(name)
        return [found.experiment_id] if found else []
    ids, token = [], None
    while True:
        page = store.client.search_experiments(max_results=1000, page_token=token)
        ids += [experiment.experiment_id for experiment in page]
        token = page.token
        if not token:
            return ids
