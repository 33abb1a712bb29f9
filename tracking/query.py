"""Runs out of MLflow, as the same table that `frame` makes of local records."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from tracking import payload
from tracking.frame import table
from tracking.store import Store

if TYPE_CHECKING:
    import pandas as pd


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
    with store.border():
        ids = _experiments(store, experiment)
    query = f"tags.`kd.kind` = '{kind}'" + (f" and tags.`kd.suite` = '{suite}'" if suite else "")
    found = store.search(ids, query) if ids else []
    chosen: dict[str, Any] = {}
    for run in sorted(found, key=lambda run: (run.data.tags.get("kd.status") == "finished", run.info.start_time)):
        chosen[run.data.tags.get("kd.fingerprint", run.info.run_id)] = run
    return table(
        [
            payload.row_of(run.data.tags, run.data.metrics) | {"time": run.info.start_time / 1000}
            for run in chosen.values()
        ]
    )


def _experiments(store: Store, name: str | None) -> list[str]:
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
