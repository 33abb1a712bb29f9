"""The runs that a report is made from: those of a results folder, or those of a suite in a tracking store."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from bench.errors import UserError, unknown
from bench.report import design, stats
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
    decisions: Sequence[Mapping[str, Any]] = ()  # of `bench.suite.decide`, where seeds were added until all is decided
    left_out: Sequence[Sequence[str]] = ()  # row, pair and reason of what was never run: its method does not fit
    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # name -> paper, deviations, recipes
    links: Mapping[str, str] = field(default_factory=dict)  # fingerprint -> address of the run in MLflow
    views: Mapping[str, str] = field(default_factory=dict)  # words -> address of a view of all runs
    earlier: Sequence[str] = ()  # fingerprints of runs that the last call did not ask for


def from_folder(
    results: Path,
    suite: str,
    records: Sequence[Record] | None = None,
    *,
    last_call: bool = False,
    methods: Sequence[str] = (),
) -> Source:
    """The runs that the last call of `suite` asked for, and what earlier calls finished of the same protocol, data and
    teachers. `records` stand in for those of the folder; last_call: without the earlier ones; methods: these rows
    alone, by method or label, the whole suite where there is none.

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
    others = [] if last_call else _others(folder, about, records)
    earlier = [record.header["fingerprint"] for record in others]
    records, wanted = [*records, *others], [*wanted, *earlier]
    missing = len(wanted) - len(records)
    if methods:
        records, missing = _narrowed(records, methods, suite), 0
    specs = [record.header["spec"] for record in records]
    runs = _checked(specs, about["suite"], frame(records), wanted, f"run `kdbench run {suite}` again")
    data = specs[0].get("data") or about["suite"].get("data") or {}
    decisions, citations = about.get("decisions") or [], about.get("methods") or {}
    left_out, addresses = about.get("left_out") or (), ui.run_addresses(records)
    return Source(about["suite"], data, runs, records, missing, decisions, left_out, citations, *addresses, earlier)


def _others(folder: Path, about: Mapping[str, Any], records: Sequence[Record]) -> list[Record]:
    """What earlier calls finished that can stand beside these records, newest call first: of the same data, protocol
    and teacher (of a seed, where each has its own), and of rows that have one setting each, which is the newest."""
    specs = [record.header["spec"] for record in records]
    setting = {(spec.get("pair"), spec.get("label")): _setting(spec) for spec in specs}
    own_teacher, own_split = (design.varies(about["suite"], what) for what in ("teacher", "split"))
    shared = ("protocol",) if own_split else ("protocol", "data")
    teachers = {(spec.get("pair"), own_teacher and spec.get("seed")): spec.get("teacher_fingerprint") for spec in specs}
    taken = {(spec.get("pair"), spec.get("label"), spec.get("seed")) for spec in specs}
    out = []
    for name in about.get("others") or []:
        if (
            not (folder / "runs" / name / FILE).exists()
            or (record := Record(folder / "runs" / name)).status != "finished"
        ):
            continue
        spec = record.header["spec"]
        row, run = (spec.get("pair"), spec.get("label")), (spec.get("pair"), spec.get("label"), spec.get("seed"))
        same = all(spec.get(key) == specs[0].get(key) for key in shared)
        place = spec.get("pair"), own_teacher and spec.get("seed")
        teacher = teachers.setdefault(place, spec.get("teacher_fingerprint"))
        fits = same and teacher == spec.get("teacher_fingerprint") and run not in taken
        if fits and setting.setdefault(row, _setting(spec)) == _setting(spec):
            out.append(record)
            taken.add(run)
    return out


def _setting(spec: Mapping[str, Any]) -> list[Any]:
    """What the runs of one row share."""
    return [spec.get(key) for key in ("method", "recipe", "hp", "tuned", "version")]


def _narrowed(records: Sequence[Record], methods: Sequence[str], suite: str) -> list[Record]:
    """The runs of these rows. Raises `UserError` for a name that no row has."""
    names = [{str(record.header["spec"].get(key)) for key in ("method", "label")} for record in records]
    known = sorted(set().union(*names))
    for name in methods:
        if name not in known:
            raise unknown(f"row of {suite}", name, known)
    return [record for record, own in zip(records, names, strict=True) if own & set(methods)]


def from_store(found: StoreRuns, suite: str) -> Source:
    """All runs of the suite that a tracking store holds; it keeps no list of them. Raises `UserError` as above."""
    if found.frame.empty:
        raise UserError(f"no runs of '{suite}' in MLflow at {found.where}")
    newest = found.specs[found.frame.loc[found.frame["time"].idxmax(), "fingerprint"]]
    n, absent = len(found.frame), ABSENT * (len(found.records) != len(found.frame))
    words = f"Made from the {n} runs of this suite that MLflow at `{found.where}` holds, whoever made them.{absent}"
    specs, wanted = list(found.specs.values()), list(found.frame["fingerprint"])
    about = {"name": suite, "about": words, "protocol": newest["protocol"], **design.inferred(specs)}
    runs = _checked(specs, about, found.frame, wanted, MIXED)
    records = [record for record in found.records if record.header["fingerprint"] in wanted]
    return Source(
        about, specs[0].get("data") or newest["data"], runs, records, 0, (), (), {}, *ui.run_addresses_of_store(found)
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

    Raises `UserError` for students that cannot be compared, and where no run has finished.
    """
    name = suite["name"]
    design.check_comparable(specs, suite, what_to_do)
    place = {fingerprint: i for i, fingerprint in enumerate(order)}
    runs = runs.iloc[runs["fingerprint"].map(place).argsort(kind="stable")].reset_index(drop=True)
    unfinished = stats.unfinished(runs)
    if len(unfinished) == len(runs):
        counts = ", ".join(f"{n} {status}" for status, n in Counter(unfinished["status"]).items())
        reason = next((f"; first reason: {reason}" for reason in unfinished["reason"] if reason), "")
        raise UserError(f"no finished run of '{name}' to report ({counts}{reason}); run `kdbench run {name}`")
    return runs
