"""The runs that a report is made from: those of a results folder, or those of a suite in a tracking store."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from bench.errors import UserError
from bench.report import stats
from bench.suite.plain import changes
from tracking import ui
from tracking.frame import frame
from tracking.query import StoreRuns
from tracking.record import FILE, Record
from tracking.seal import verify_checksum

MIXED = "delete those of one kind in MLflow, or give the suite another name when its settings change"
ABSENT = " What needs every epoch or every prediction is left out: the runs' artifacts do not lie on this machine."


@dataclass(frozen=True)
class Source:
    """The runs of one suite, and what is on record of them."""

    suite: Mapping[str, Any]  # name, about, protocol
    data: Mapping[str, Any]  # as a run's record has it
    runs: pd.DataFrame  # one row per run, in the suite's order, so that its first method comes first
    records: Sequence[Record] = ()
    missing: int = 0  # runs that left no record yet
    left_out: Sequence[Sequence[str]] = ()  # row, pair and reason of what was never run: its method does not fit
    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # name -> paper, deviations, recipes
    links: Mapping[str, str] = field(default_factory=dict)  # fingerprint -> address of the run in MLflow
    views: Mapping[str, str] = field(default_factory=dict)  # words -> address of a view of all runs


def from_folder(results: Path, suite: str, records: Sequence[Record] | None = None) -> Source:
    """What the last call of `suite` asked for; `records` stand in for those of the folder.

    Raises `UserError` where there is nothing that can be reported honestly.
    """
    folder = results / suite
    about = manifest(folder, suite)
    wanted: list[str] = about["fingerprints"]
    if records is None:
        paths = [folder / "runs" / fingerprint for fingerprint in wanted]
        records = [Record(path) for path in paths if (path / FILE).exists()]
    records = [record for record in records if record.header["fingerprint"] in wanted]
    if not records:
        raise nothing(results, suite)
    specs = [record.header["spec"] for record in records]
    runs = _checked(specs, about["suite"], frame(records), wanted, f"run `kdbench run {suite}` again")
    data = specs[0].get("data") or about["suite"].get("data") or {}
    methods, missing = about.get("methods") or {}, len(wanted) - len(specs)
    left_out = about.get("left_out") or ()
    return Source(about["suite"], data, runs, records, missing, left_out, methods, *ui.run_addresses(records))


def from_store(found: StoreRuns, suite: str) -> Source:
    """All runs of the suite that a tracking store holds; it keeps no list of them. Raises `UserError` as above."""
    if found.frame.empty:
        raise UserError(f"no runs of '{suite}' in MLflow at {found.where}")
    newest = found.specs[found.frame.loc[found.frame["time"].idxmax(), "fingerprint"]]
    n, absent = len(found.frame), ABSENT * (len(found.records) != len(found.frame))
    words = f"Made from the {n} runs of this suite that MLflow at `{found.where}` holds, whoever made them.{absent}"
    about = {"name": suite, "about": words, "protocol": newest["protocol"]}
    specs, wanted = list(found.specs.values()), list(found.frame["fingerprint"])
    runs = _checked(specs, about, found.frame, wanted, MIXED)
    records = [record for record in found.records if record.header["fingerprint"] in wanted]
    return Source(
        about, specs[0].get("data") or newest["data"], runs, records, 0, (), {}, *ui.run_addresses_of_store(found)
    )


def manifest(folder: Path, suite: str) -> dict[str, Any]:
    """suite.json of a suite's folder. Raises `UserError` where there is none, or a damaged one."""
    path = folder / "suite.json"
    try:
        found = json.loads(verify_checksum(path.read_text(encoding="utf-8")))
        found["fingerprints"], found["suite"]["name"], found["suite"]["protocol"]
    except (FileNotFoundError, NotADirectoryError):
        raise nothing(folder.parent, suite) from None
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{path}: not readable as the list of a suite's runs; run `kdbench run {suite}` again"
        ) from None
    return dict(found)


def nothing(results: Path, suite: str) -> UserError:
    return UserError(f"no results for '{suite}' in {results}; run `kdbench run {suite}`")


def _checked(
    specs: Sequence[Mapping[str, Any]], suite: Mapping[str, Any], runs: pd.DataFrame, order: list[str], what_to_do: str
) -> pd.DataFrame:
    """The runs in this order of fingerprints.

    Raises `UserError` for students of different protocols, data or (within a pair) teachers, and where no run has
    finished.
    """
    name, again = suite["name"], f"and cannot be compared; {what_to_do}"
    for spec in specs:
        for what, first in (("protocol", suite["protocol"]), ("data", specs[0].get("data"))):
            if changed := changes(first or {}, spec.get(what) or {}):
                raise UserError(f"the runs of '{name}' differ in {what} ({', '.join(sorted(changed))}) {again}")
    for pair in sorted({str(spec.get("pair")) for spec in specs}):
        teachers = {spec.get("teacher_fingerprint") for spec in specs if spec.get("pair") == pair}
        if len(teachers) > 1:
            raise UserError(f"the runs of '{name}' on {pair} have {len(teachers)} different teachers {again}")
    place = {fingerprint: i for i, fingerprint in enumerate(order)}
    runs = runs.iloc[runs["fingerprint"].map(place).argsort(kind="stable")].reset_index(drop=True)
    unfinished = stats.unfinished(runs)
    if len(unfinished) == len(runs):
        counts = ", ".join(f"{n} {status}" for status, n in Counter(unfinished["status"]).items())
        reason = next((f"; first reason: {reason}" for reason in unfinished["reason"] if reason), "")
        raise UserError(f"no finished run of '{name}' to report ({counts}{reason}); run `kdbench run {name}`")
    return runs
