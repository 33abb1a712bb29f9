"""The two sides of a comparison out of MLflow: two runs by their ids, or two rows of a suite that a server holds."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import UserError
from bench.report import stats, stats_examples
from bench.report.compare_sides import Sides, differing, known, made_on, settings
from tracking import location, payload, query
from tracking.frame import table
from tracking.store import Store

if TYPE_CHECKING:
    from mlflow import MlflowClient


def of_runs(a: str, b: str, uri: str | None, results: Path, scratch: Path) -> Sides:
    """Two runs. scratch: an empty folder for their predictions. Whatever their seeds, they are one pair of runs."""
    store = _store(uri, results)
    rows: list[dict[str, Any]] = []
    specs: list[dict[str, Any]] = []
    files: dict[str, Path] = {}
    for side, run_id in zip("ab", (a, b), strict=True):
        with store.translate_errors():
            run = store.client.get_run(run_id)
            row = payload.row_of(run.data.tags, run.data.metrics) | {"time": run.info.start_time / 1000}
            left = _artifacts(store.client, run_id, scratch / side)
        if row.get(stats.TOP1) is None:
            what = f"{row['label'] or run.info.run_name}, {row['status'] or run.info.status.lower()}"
            raise UserError(f"MLflow run {run_id} ({what}) has no {stats.TOP1}, so there is nothing to compare")
        spec = left / "spec.json"
        specs.append(json.loads(spec.read_text("utf-8")) if spec.is_file() else {})
        files |= {side: left / stats_examples.FILE}
        rows.append(row | {"fingerprint": side})
    names = [f"{row['label']}/s{row['seed']}" for row in rows]
    if names[0] == names[1]:
        names = [f"{name} ({run_id[:8]})" for name, run_id in zip(names, (a, b), strict=True)]
    frame = table(rows).sort_values("fingerprint", ignore_index=True).assign(label=names, row="")
    about = [{key: row[key] for key in ("suite", "dataset", "pair", "seed")} for row in rows]
    differ = [*differing(about[0], about[1]), *settings(specs[0], specs[1]), *made_on(frame[:1], frame[1:])]
    pair = " | ".join(dict.fromkeys(frame["pair"].map(str)))
    frame = frame.assign(pair=pair, seed=frame["seed"].iloc[0])
    return Sides("runs", names[0], names[1], f"{a} | {b}", frame, files, differ)


def of_suite(a: str, b: str, suite: str, uri: str, results: Path) -> Sides:
    """Two rows of a suite, by label."""
    store = _store(uri, results)
    frame, at = query.runs(store.uri, suite, results=results), location.mask_secrets(store.uri)
    if frame.empty:
        raise UserError(f"no runs of suite '{suite}' at {at}")
    known(a, b, frame, suite, [])
    rows = frame[frame["label"].isin([a, b])].assign(row="").reset_index(drop=True)
    return Sides("rows", a, b, f"{suite} at {at}", rows, {})


def _artifacts(client: MlflowClient, run_id: str, to: Path) -> Path:
    """The folder with what the run left of its spec and predictions."""
    to.mkdir()
    for artifact in client.list_artifacts(run_id):
        if artifact.path in ("spec.json", stats_examples.FILE):
            client.download_artifacts(run_id, artifact.path, str(to))
    return to


def _store(uri: str | None, results: Path) -> Any:
    """The tracking store. A SQLite file that is not there is refused, since MLflow would make it."""
    uri = location.check_uri(uri or location.default_uri(results))
    if (file := location.sqlite_file(uri)) is not None and not file.is_file():
        raise UserError(f"no MLflow store at {uri}; name one with --from, or the results with --results")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    return Store(uri, results)
