"""A suite's report as a record of its own, so that it reaches MLflow the way a run does: mirrored, or synced later.

`<results>/<suite>/summary/` holds a copy of the report and its record. A report with another content is another
record, and in MLflow another run of the experiment `kd-report`: params cannot be changed there, nor artifacts taken
back, and what a report once said stays to be read.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import shutil
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracking import payload
from tracking.deliver import last_delivery
from tracking.lines import Lines, RecordError, as_plain_json, canonical
from tracking.locks import boot_id, file_lock
from tracking.record import Record
from tracking.views import run_link, ui_link

if TYPE_CHECKING:
    import pandas as pd

FOLDER = "summary"
FILES = ("report.md", "report.html", "table.*", "figures/*")
IDENTITY = (".md", ".csv", ".tex")  # what a report says; pictures of the same numbers may differ in their bytes
LISTED_COLUMNS = ("pair", "label", "seed", "fingerprint", "status")
MAX_NOTE = 7000  # characters; a tag takes 8000

Ids = dict[str, tuple[str, str]]
"""Experiment and run in MLflow by fingerprint; empty strings where not known."""


def write_record(folder: Path, answer: str, runs: pd.DataFrame) -> Record:
    """The record of the report in `folder` (results/<suite>/), written if it says anything new. Contacts nobody.

    answer: the sentence that the report opens with; runs: one row per run of it, as `tracking.frame` makes them.
    Raises `RecordError` where there is no report, or it cannot be copied.
    """
    names = sorted(
        p.relative_to(folder).as_posix() for text in FILES for p in folder.glob(text) if _is_complete_file(p)
    )
    if "report.md" not in names:
        raise RecordError(f"{folder}: no report.md to keep")
    spec = _spec(folder.name, answer, runs)
    try:
        fingerprint = _fingerprint(folder, names, spec)
        with file_lock(folder):
            if not _is_up_to_date(folder / FOLDER, fingerprint):
                _write(folder, names, fingerprint, spec, _environment(runs))
    except OSError as error:
        raise RecordError(f"{folder / FOLDER}: {error.strerror}") from None
    return Record(folder / FOLDER)


def run_description(record: Record, store: str) -> payload.RunDescription:
    """What MLflow is told of a report. store: the URI, masked; runs that it is not known to hold have no id."""
    lines = record.read()
    suite, runs = lines.header["spec"]["suite"], lines.header["spec"]["runs"]
    ids = {row["fingerprint"]: _run_ids(record.folder.parent, row["fingerprint"], store) for row in runs}
    tags = {"kd.kind": "suite", "kd.suite": suite, "kd.fingerprint": lines.header["fingerprint"]}
    tags |= {"kd.record": lines.header["id"], "kd.schema": str(lines.header["schema"])}
    tags |= {"kd.git_sha": _commit(lines), "kd.host": str(lines.environment.get("host"))}
    tags |= {"mlflow.note.content": _note(lines, ids)}
    params = {"suite": suite, "runs": str(len(runs)), "commit": _commit(lines)}
    return payload.RunDescription(tags, params, suite, {"runs.csv": _table(runs, ids)})


def is_outdated(record: Record) -> bool:
    """Whether a report that has been delivered could now name runs that were not in MLflow then; nobody is asked."""
    cache = last_delivery(record)
    if record.folder.name != FOLDER or "store" not in cache:
        return False
    return bool(run_description(record, cache["store"]).checksum() != cache.get("texts"))


def _is_complete_file(path: Path) -> bool:
    return path.is_file() and not path.name.endswith(".partial")


def _spec(suite: str, answer: str, runs: pd.DataFrame) -> dict[str, Any]:
    listed = [{name: row.get(name) for name in LISTED_COLUMNS} for row in runs.to_dict("records")]
    return dict(as_plain_json({"kind": "suite", "suite": suite, "answer": answer, "runs": listed}))


def _environment(runs: pd.DataFrame) -> dict[str, Any]:
    commits = sorted({str(commit) for commit in runs["commit"].dropna()}) if "commit" in runs else []
    here: dict[str, Any] = {"host": socket.gethostname(), "pid": os.getpid(), "boot_id": boot_id()}
    return here | {"commit": ", ".join(commits) or "unknown"}


def _fingerprint(folder: Path, names: list[str], spec: dict[str, Any]) -> str:
    digest = hashlib.sha256(canonical(spec).encode())
    for name in names:
        said = (folder / name).read_bytes() if name.endswith(IDENTITY) else b""
        digest.update(name.encode() + b"\0" + hashlib.sha256(said).digest())
    return digest.hexdigest()[:16]


def _is_up_to_date(folder: Path, fingerprint: str) -> bool:
    try:
        old = Record(folder)
        return old.status == "finished" and old.header["fingerprint"] == fingerprint and old.is_intact()
    except RecordError:
        return False  # damaged: it is made again, since all that it says is at hand


def _write(folder: Path, names: list[str], fingerprint: str, spec: dict[str, Any], environment: dict[str, Any]) -> None:
    """Beside the old one first: a kill leaves one of the two, or none, but never half of one."""
    new, old = folder / f"{FOLDER}.partial", folder / FOLDER
    if new.exists():
        shutil.rmtree(new)
    for name in names:
        (new / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / name, new / name)
    record = Record(new)
    record.begin(fingerprint, spec, environment)
    record.end("finished", "", {}, names)
    if old.exists():
        with file_lock(old):  # its delivery may be under way
            shutil.rmtree(old)
    new.rename(old)


def _run_ids(folder: Path, fingerprint: str, store: str) -> tuple[str, str]:
    cache = last_delivery(Record(folder / "runs" / fingerprint))
    return (cache["experiment_id"], cache["run_id"]) if cache.get("store") == store else ("", "")


def _commit(lines: Lines) -> str:
    return str(lines.environment.get("commit", "unknown"))


def _note(lines: Lines, ids: Ids) -> str:
    """The answer, and as many of the runs as fit, with a link to each."""
    spec = lines.header["spec"]
    runs, several = spec["runs"], len({row["pair"] for row in spec["runs"]}) > 1
    experiment = next((experiment for experiment, _ in ids.values() if experiment), "")
    charts = f" · [charts]({ui_link('', experiment).lstrip('/')})" if experiment else ""
    head = "\n".join(f"**{line}**  " for line in str(spec["answer"]).split("\n"))
    head += f"\n\n{len(runs)} runs of suite `{spec['suite']}`, commit `{_commit(lines)}`{charts}\n\n"
    rows = [_list_item(row, *ids[row["fingerprint"]], several=several) for row in runs]
    n_shown, characters_left = 0, MAX_NOTE - len(head)
    while n_shown < len(rows) and (characters_left := characters_left - len(rows[n_shown]) - 1) > 0:
        n_shown += 1
    more = [f"- and {len(rows) - n_shown} more; all are in the artifact `runs.csv`"] if n_shown < len(rows) else []
    return head + "\n".join([*rows[:n_shown], *more])


def _list_item(row: dict[str, Any], experiment: str, run: str, *, several: bool) -> str:
    where = f"[{run}]({run_link('', experiment, run).lstrip('/')})" if run else "not in MLflow yet"
    pair = f", {row['pair']}" if several else ""
    failed = "" if row["status"] == "finished" else f", {row['status']}"
    return f"- {row['label']}, seed {row['seed']}{pair}{failed}: {where}"


def _table(runs: list[dict[str, Any]], ids: Ids) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*LISTED_COLUMNS, "run_id"])
    writer.writerows([*(row[name] for name in LISTED_COLUMNS), ids[row["fingerprint"]][1]] for row in runs)
    return out.getvalue()
