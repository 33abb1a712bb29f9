"""Results that another machine made join those of this one."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

from tracking.parts import join_parts, missing_parts
from tracking.record import FILE, Record, RecordError, scan
from tracking.seal import verify_checksum

PARTS = "result"  # as tools/gpu_job.py names them


class BroughtIn(NamedTuple):
    """What `bring_in` did."""

    taken: list[str]  # suite/fingerprint
    unchanged: list[str]
    refused: list[tuple[str, str]]  # and why
    suites: list[str]


def bring_in(source: Path, results: Path) -> BroughtIn:
    """Copy what is finished and intact in `source` into `results`: a results folder, or one in parts.

    A run that is here and intact stays, and is refused where its numbers differ. Checkpoints are not taken: what is not
    finished goes on where it was begun. Raises `RecordError` where there is nothing to take, or a part is missing.
    """
    if not (source / f"{PARTS}.json").exists():
        return _copy(source, results)
    if missing := missing_parts(source, PARTS):
        raise RecordError(f"{source}: {', '.join(missing)} is missing or cut short; carry it here and type this again")
    with tempfile.TemporaryDirectory(dir=results, prefix=".import-") as folder:
        join_parts(source, PARTS, Path(folder) / "results")
        return _copy(Path(folder) / "results", results)


def _copy(source: Path, results: Path) -> BroughtIn:
    manifests = sorted(source.glob("*/suite.json"))
    if not manifests:
        raise RecordError(
            f"{source}: no results of a suite; name a folder that holds <suite>/suite.json and <suite>/runs"
        )
    done = BroughtIn([], [], [], [path.parent.name for path in manifests])
    for manifest in manifests:
        mine = results / manifest.parent.name
        if reason := _manifests_differ(manifest, mine / manifest.name):
            done.refused.append((mine.name, reason))
            continue
        for record in scan(manifest.parent):
            _copy_run(record, mine / "runs" / record.folder.name, done)
        if not (mine / manifest.name).exists():
            mine.mkdir(exist_ok=True)
            shutil.copyfile(manifest, mine / manifest.name)
    for teacher in sorted(source.glob("teachers/*")):
        if not (results / "teachers" / teacher.name).exists():
            shutil.copytree(teacher, results / "teachers" / teacher.name)
    return done


def _copy_run(record: Record, to: Path, done: BroughtIn) -> None:
    name, here = f"{to.parent.parent.name}/{to.name}", Record(to)
    try:
        whole = record.is_intact() and record.status == "finished"
        problem = "" if whole else f"it is {record.status}, or a file of it is missing or damaged"
        if not problem and here.is_intact():
            same = (here.final or {}).get("metrics") == (record.final or {}).get("metrics")
            if same:
                done.unchanged.append(name)
                return
            problem = "it is here with other numbers; `kdbench rerun` says which of them repeat"
    except RecordError as error:
        problem = str(error)
    if problem:
        done.refused.append((name, problem))
        return
    with tempfile.TemporaryDirectory(dir=_made(to.parent), prefix=".import-") as folder:
        copy = Path(folder) / to.name
        copy.mkdir()
        for file in (*record.files(), FILE):  # the record last: without it there is no run
            _made((copy / file).parent)
            shutil.copyfile(record.folder / file, copy / file)
        shutil.rmtree(to, ignore_errors=True)
        copy.rename(to)
    done.taken.append(name)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _manifests_differ(other: Path, mine: Path) -> str:
    """Why two lists of runs are not of one suite; empty where they are, or where there is but one."""
    if not mine.exists():
        return ""
    try:
        suites = [json.loads(verify_checksum(path.read_text(encoding="utf-8")))["suite"] for path in (other, mine)]
    except (OSError, ValueError, KeyError) as error:
        return f"its suite.json cannot be read ({error})"
    differing = [key for key in ("data", "protocol") if suites[0].get(key) != suites[1].get(key)]
    return f"its {' and '.join(differing)} differ from those of the suite that is here" if differing else ""
