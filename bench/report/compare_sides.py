"""The two sides of a comparison: two rows of a suite, two suites' results or two MLflow runs, as one table of runs."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from bench.errors import UserError, unknown
from bench.report import source, stats, stats_examples
from bench.suite.plain import changes
from tracking import payload, query
from tracking.frame import table
from tracking.location import default_uri
from tracking.record import FILE, Record
from tracking.store import Store, open_existing

RUN_ID = re.compile(r"[0-9a-f]{32}")
MADE_ON = ("commit", "hardware", "torch", "threads")


@dataclass(frozen=True)
class Sides:
    """The runs of both sides. frame: one row per run as `tracking.frame` makes them, `label` being the side's name and
    `row` the method's where a side has many; what one side alone has is left out, and named in `notes`."""

    kind: str  # "rows", "suites" or "runs"
    a: str
    b: str
    title: str
    frame: pd.DataFrame
    files: dict[str, Path]  # predictions by the frame's fingerprint
    differ: list[str] = field(default_factory=list)  # 'protocol.epochs 40 | 10': of the sides' settings
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Side:
    """Runs, and what is known of them. specs, files (of predictions): by fingerprint."""

    frame: pd.DataFrame
    specs: Mapping[str, Mapping[str, Any]]
    files: Mapping[str, Path]


def sides(a: str, b: str, results: Path, suite: str | None, uri: str | None, scratch: Path) -> Sides:
    """What a and b name. scratch: an empty folder for what a server sends. Raises `UserError` where they name nothing,
    or not two of a kind."""
    if a == b:
        raise UserError(f"'{a}' stands on both sides; name two methods, two suites' results or two MLflow run ids")
    ids = [bool(RUN_ID.fullmatch(name)) for name in (a, b)]
    if all(ids):
        return _of_runs((a, b), uri, results, scratch)
    if any(ids):
        raise UserError(f"'{a if ids[0] else b}' is an MLflow run id and '{b if ids[0] else a}' is none; name two")
    if uri is not None:
        if suite is None:
            raise UserError("--from compares two run ids, or two methods of a suite there: add --suite")
        stored = query.suite(uri, suite, results=results)
        frame = source.from_store(stored, suite).runs
        return Sides("rows", a, b, f"{suite} at {stored.where}", _two_rows(a, b, frame, suite), {})
    if suite is not None:
        folder = _folder(suite, results) or results / Path(suite).stem
    else:
        one, two = (_folder(name, results) for name in (a, b))
        if one and one == two:
            raise UserError(f"{a} and {b} are the same folder")
        if one and two:
            return _of_suites(one, two)
        if one or two:
            raise UserError(f"'{a if one else b}' is a suite's results and '{b if one else a}' is not; name two suites")
        folder = _last_called(results)
    side = _local(folder)
    others = sorted(path.parent.name for path in folder.parent.glob("*/suite.json") if path.parent != folder)
    frame = _two_rows(a, b, side.frame, folder.name, others)
    return Sides("rows", a, b, folder.name, frame, _whole(side.files, frame["fingerprint"]))


def _folder(name: str, results: Path) -> Path | None:
    """The folder of a suite's results, by path or by its name in `results`; None where there is none."""
    return next((p.absolute() for p in (results / name, Path(name)) if (p / "suite.json").is_file()), None)


def _last_called(results: Path) -> Path:
    """Of the suites of `results` that have runs."""
    called = [path for path in results.glob("*/suite.json") if any(path.parent.glob(f"runs/*/{FILE}"))]
    if not called:
        raise UserError(f"no suite's results in {results}; run `kdbench run`, or name the folder with --results")
    return max(called, key=lambda path: path.stat().st_mtime).parent


def _local(folder: Path, mark: str = "") -> Side:
    """What the last call of a suite asked for. mark: before every fingerprint, for one run may stand on both sides."""
    runs = source.from_folder(folder.parent, folder.name)
    frame = runs.runs.assign(row=runs.runs["label"], fingerprint=mark + runs.runs["fingerprint"])
    specs = {mark + record.header["fingerprint"]: record.header["spec"] for record in runs.records}
    files = {mark + record.header["fingerprint"]: record.folder / stats_examples.FILE for record in runs.records}
    return Side(frame, specs, files)


def _whole(files: Mapping[str, Path], runs: Iterable[str]) -> dict[str, Path]:
    """The predictions of these runs. Raises `RecordError` where they are not what the run left."""
    for run in runs:
        Record(files[run].parent).file(files[run].name)
    return {run: files[run] for run in runs}


def _two_rows(a: str, b: str, frame: pd.DataFrame, suite: str, others: Sequence[str] = ()) -> pd.DataFrame:
    """The runs of two labels. others: suites that might have been meant."""
    for name in (a, b):
        if name not in set(frame["label"]):
            elsewhere = f"; other suites' results (--suite): {', '.join(others)}" if others else ""
            raise UserError(f"{unknown(f'row of {suite}', name, frame['label'].unique())}{elsewhere}")
    return frame[frame["label"].isin([a, b])].assign(row="").reset_index(drop=True)


def _of_suites(one: Path, two: Path) -> Sides:
    """Rows of the same pair and label."""
    ends = [["/".join(folder.parts[-depth:]) for folder in (one, two)] for depth in range(1, len(one.parts) + 1)]
    names = next(pair for pair in ends if pair[0] != pair[1])
    both = [_local(one, "a:"), _local(two, "b:")]
    for side in both:
        _whole(side.files, side.specs)
    return _side_by_side("suites", names, " | ".join(names), both, [])


def _of_runs(ids: Sequence[str], uri: str | None, results: Path, scratch: Path) -> Sides:
    """Two runs of a tracking server. Whatever their seeds, they are one pair of runs."""
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    store = open_existing(uri or default_uri(results), results)
    both = [_tracked(store, run_id, scratch / run_id) for run_id in ids]
    rows = [side.frame.iloc[0] for side in both]
    names = [f"{row['label']}/s{row['seed']}" for row in rows]
    if names[0] == names[1]:
        names = [f"{name} ({run_id[:8]})" for name, run_id in zip(names, ids, strict=True)]
    about = [{key: row[key] for key in ("suite", "dataset", "seed")} for row in rows]
    both = [replace(side, frame=side.frame.assign(seed=0, row="")) for side in both]
    return _side_by_side("runs", names, " | ".join(ids), both, _differing(about[0], about[1]))


def _tracked(store: Store, run_id: str, folder: Path) -> Side:
    """A run of a tracking server; its spec and predictions are brought into `folder`, which is made."""
    folder.mkdir()
    with store.translate_errors():
        run = store.client.get_run(run_id)
        for artifact in store.client.list_artifacts(run_id):
            if artifact.path in ("spec.json", stats_examples.FILE):
                store.client.download_artifacts(run_id, artifact.path, str(folder))
    row = payload.row_of(run.data.tags, run.data.metrics, run.data.params)
    row |= {"time": run.info.start_time / 1000, "fingerprint": run_id}
    if row.get(stats.TOP1) is None:
        what = f"{row['label'] or run.info.run_name}, {row['status'] or run.info.status.lower()}"
        raise UserError(f"MLflow run {run_id} ({what}) has no {stats.TOP1}, so there is nothing to compare")
    spec = folder / "spec.json"
    specs = {run_id: json.loads(spec.read_text("utf-8")) if spec.is_file() else {}}
    return Side(table([row]), specs, {run_id: folder / stats_examples.FILE})


def _side_by_side(kind: str, names: Sequence[str], title: str, both: list[Side], differ: list[str]) -> Sides:
    """Rows of the same pair and label; sides of one pair each are compared even if it is not the same."""
    frames = [side.frame.assign(label=name) for name, side in zip(names, both, strict=True)]
    pairs = [list(frame["pair"].unique()) for frame in frames]
    if pairs[0] != pairs[1] and len(pairs[0]) == len(pairs[1]) == 1:
        name = f"{pairs[0][0]} | {pairs[1][0]}"
        frames, differ = [frame.assign(pair=name) for frame in frames], [*differ, f"pair {name}"]
    one, two = (
        {(run.pair, run.row): side.specs[run.fingerprint] for run in frame.itertuples()}
        for frame, side in zip(frames, both, strict=True)
    )
    common = [key for key in one if key in two]
    if not common:
        has = " | ".join(_listed([f"{row} on {pair}" for pair, row in own]) for own in (one, two))
        raise UserError(f"{names[0]} and {names[1]} have no row of the same pair and label: {has}")
    made_on = [{key: ", ".join(_short(v) for v in frame[key].dropna().unique()) for key in MADE_ON} for frame in frames]
    differ += _differing(made_on[0], made_on[1])
    for key in common:
        knobs = _differing(one[key].get("hp") or {}, two[key].get("hp") or {}, f"{key[1]}.") if key[1] else []
        differ += [text for text in (*_settings(one[key], two[key]), *knobs) if text not in differ]
    alone = [[row for pair, row in own if (pair, row) not in common] for own in (one, two)]
    notes = [f"{name} alone has {_listed(rows)}." for name, rows in zip(names, alone, strict=True) if rows]
    frame = pd.concat(frames, ignore_index=True)
    frame = frame[[key in common for key in zip(frame["pair"], frame["row"], strict=True)]].reset_index(drop=True)
    files = {run: path for side in both for run, path in side.files.items()}
    return Sides(kind, names[0], names[1], title, frame, files, differ, notes)


def _settings(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """What differs in protocol, data and teacher between the specs of two runs."""
    # the hash of the teacher's weights; where an older record lacks it, the fingerprint of its training
    mark = next((name for name in ("teacher_hash", "teacher_fingerprint") if a.get(name) and b.get(name)), "")
    one, two = ({"protocol": it.get("protocol"), "data": it.get("data"), "teacher": it.get(mark)} for it in (a, b))
    return _differing(one, two)


def _differing(a: Mapping[str, Any], b: Mapping[str, Any], within: str = "") -> list[str]:
    """'epochs 40 | 10', 'data.pad 1 | none'."""
    return [f"{within}{key} {_short(old)} | {_short(new)}" for key, (old, new) in changes(a, b).items()]


def _listed(names: list[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _short(value: Any) -> str:
    text = "none" if value is None else value if isinstance(value, str) else json.dumps(value, default=str)
    return text[:12] if re.fullmatch(r"[0-9a-f]{16,}", text) else text
