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
from bench.report import server, stats, stats_examples, suite_folder
from bench.suite.plain import changes
from tracking import payload, query
from tracking.frame import frame as frame_of
from tracking.frame import table
from tracking.location import default_uri
from tracking.record import FILE, Record
from tracking.store import Store, existing

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
class Source:
    """Runs, and what is known of them. specs, files (of predictions): by fingerprint."""

    suite: Mapping[str, Any]  # of the manifest: name, protocol
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
        source = Source(server.manifest(stored, suite)["suite"], stored.frame, stored.specs, {})
        return replace(_of_rows(a, b, source, server.MIXED), title=f"{suite} at {stored.where}")
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
    others = sorted(path.parent.name for path in folder.parent.glob("*/suite.json") if path.parent != folder)
    elsewhere = f"; other suites' results (--suite): {', '.join(others)}" if others else ""
    return _of_rows(a, b, _local(folder), elsewhere=elsewhere)


def _folder(name: str, results: Path) -> Path | None:
    """The folder of a suite's results, by path or by its name in `results`; None where there is none."""
    return next((p.absolute() for p in (results / name, Path(name)) if (p / "suite.json").is_file()), None)


def _last_called(results: Path) -> Path:
    """Of the suites of `results` that have runs."""
    called = [path for path in results.glob("*/suite.json") if any(path.parent.glob(f"runs/*/{FILE}"))]
    if not called:
        raise UserError(f"no suite's results in {results}; run `kdbench run`, or name the folder with --results")
    return max(called, key=lambda path: path.stat().st_mtime).parent


def _local(folder: Path, side: str = "") -> Source:
    """What the last call of a suite asked for. side: before every fingerprint, for one run may stand on both sides."""
    manifest = suite_folder.manifest(folder)
    wanted = manifest["fingerprints"]
    records = suite_folder.records(folder, wanted)
    if not records:
        raise suite_folder.nothing(folder)
    frame = suite_folder.in_order(frame_of(records), wanted)
    frame = frame.assign(row=frame["label"], fingerprint=side + frame["fingerprint"])
    specs = {side + record.header["fingerprint"]: record.header["spec"] for record in records}
    files = {side + record.header["fingerprint"]: record.folder / stats_examples.FILE for record in records}
    return Source(manifest["suite"], frame, specs, files)


def _whole(source: Source, runs: Iterable[str]) -> dict[str, Path]:
    """Where the predictions of these runs are. Raises `RecordError` where they are not what the run left."""
    files = {run: source.files[run] for run in runs if run in source.files}
    for path in files.values():
        Record(path.parent).file(path.name)
    return files


def _of_rows(a: str, b: str, source: Source, mend: str = "", elsewhere: str = "") -> Sides:
    """Two rows of one suite, by label."""
    suite = str(source.suite["name"])
    for name in (a, b):
        if name not in set(source.frame["label"]):
            raise UserError(f"{unknown(f'row of {suite}', name, source.frame['label'].unique())}{elsewhere}")
    frame = source.frame[source.frame["label"].isin([a, b])].assign(row="").reset_index(drop=True)
    suite_folder.one_setting([source.specs[run] for run in frame["fingerprint"]], source.suite, mend)
    return Sides("rows", a, b, suite, frame, _whole(source, frame["fingerprint"]))


def _of_suites(one: Path, two: Path) -> Sides:
    """Rows of the same pair and label."""
    ends = [["/".join(folder.parts[-depth:]) for folder in (one, two)] for depth in range(1, len(one.parts) + 1)]
    names = next(pair for pair in ends if pair[0] != pair[1])
    sources = [_local(one, "a:"), _local(two, "b:")]
    for source in sources:
        _whole(source, source.specs)
    return _side_by_side("suites", names, " | ".join(names), sources, [])


def _of_runs(ids: Sequence[str], uri: str | None, results: Path, scratch: Path) -> Sides:
    """Two runs of a tracking server. Whatever their seeds, they are one pair of runs."""
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    store = existing(uri or default_uri(results), results)
    sources = [_tracked(store, run_id, scratch / run_id) for run_id in ids]
    rows = [source.frame.iloc[0] for source in sources]
    names = [f"{row['label']}/s{row['seed']}" for row in rows]
    if names[0] == names[1]:
        names = [f"{name} ({run_id[:8]})" for name, run_id in zip(names, ids, strict=True)]
    about = [{key: row[key] for key in ("suite", "dataset", "seed")} for row in rows]
    sources = [replace(source, frame=source.frame.assign(seed=0, row="")) for source in sources]
    return _side_by_side("runs", names, " | ".join(ids), sources, _differing(about[0], about[1]))


def _tracked(store: Store, run_id: str, folder: Path) -> Source:
    """A run of a tracking server; its spec and predictions are brought into `folder`, which is made."""
    folder.mkdir()
    with store.border():
        run = store.client.get_run(run_id)
        for artifact in store.client.list_artifacts(run_id):
            if artifact.path in ("spec.json", stats_examples.FILE):
                store.client.download_artifacts(run_id, artifact.path, str(folder))
    row = payload.row_of(run.data.tags, run.data.metrics) | {"time": run.info.start_time / 1000, "fingerprint": run_id}
    if row.get(stats.TOP1) is None:
        what = f"{row['label'] or run.info.run_name}, {row['status'] or run.info.status.lower()}"
        raise UserError(f"MLflow run {run_id} ({what}) has no {stats.TOP1}, so there is nothing to compare")
    spec = folder / "spec.json"
    specs = {run_id: json.loads(spec.read_text("utf-8")) if spec.is_file() else {}}
    return Source({}, table([row]), specs, {run_id: folder / stats_examples.FILE})


def _side_by_side(kind: str, names: Sequence[str], title: str, sources: list[Source], differ: list[str]) -> Sides:
    """Rows of the same pair and label; sources of one pair each are compared even if it is not the same."""
    frames = [source.frame.assign(label=name) for name, source in zip(names, sources, strict=True)]
    pairs = [list(frame["pair"].unique()) for frame in frames]
    if pairs[0] != pairs[1] and len(pairs[0]) == len(pairs[1]) == 1:
        both = f"{pairs[0][0]} | {pairs[1][0]}"
        frames, differ = [frame.assign(pair=both) for frame in frames], [*differ, f"pair {both}"]
    one, two = (
        {(run.pair, run.row): source.specs[run.fingerprint] for run in frame.itertuples()}
        for frame, source in zip(frames, sources, strict=True)
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
    files = {run: path for source in sources for run, path in source.files.items()}
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
