"""A suite's folder in the results: what its last call asked for, and the runs that it left."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bench.errors import UserError
from bench.suite.plain import changes
from tracking.record import FILE, Record
from tracking.seal import opened


def manifest(folder: Path) -> dict[str, Any]:
    """suite.json: `suite` with its name and protocol, and `fingerprints` in the suite's order. `UserError` without."""
    path = folder / "suite.json"
    try:
        content = json.loads(opened(path.read_text(encoding="utf-8")))
        content["fingerprints"], content["suite"]["name"], content["suite"]["protocol"]
    except (FileNotFoundError, NotADirectoryError):
        raise nothing(folder) from None
    except (OSError, ValueError, KeyError, TypeError):
        again = f"run `kdbench run {folder.name}` again"
        raise UserError(f"{path}: not readable as the list of a suite's runs; {again}") from None
    return dict(content)


def records(folder: Path, fingerprints: Sequence[str]) -> list[Record]:
    """Of those runs that have begun."""
    folders = [folder / "runs" / fingerprint for fingerprint in fingerprints]
    return [Record(run) for run in folders if (run / FILE).is_file()]


def nothing(folder: Path) -> UserError:
    return UserError(f"no results for '{folder.name}' in {folder.parent}; run `kdbench run {folder.name}`")


def one_setting(specs: Sequence[Mapping[str, Any]], suite: Mapping[str, Any], mend: str = "") -> None:
    """Refuse to compare students of different protocols, data or (within a pair) teachers. suite: of the manifest."""
    name = suite["name"]
    again = f"and cannot be compared; {mend or f'run `kdbench run {name}` again'}"
    for spec in specs:
        for what, first in (("protocol", suite["protocol"]), ("data", specs[0].get("data"))):
            if changed := changes(first or {}, spec.get(what) or {}):
                raise UserError(f"the runs of '{name}' differ in {what} ({', '.join(sorted(changed))}) {again}")
    for pair in sorted({str(spec.get("pair")) for spec in specs}):
        teachers = {spec.get("teacher_fingerprint") for spec in specs if spec.get("pair") == pair}
        if len(teachers) > 1:
            raise UserError(f"the runs of '{name}' on {pair} have {len(teachers)} different teachers {again}")


def in_order(runs: pd.DataFrame, fingerprints: Sequence[str]) -> pd.DataFrame:
    """As the suite lists them, so that its first method comes first."""
    place = {fingerprint: i for i, fingerprint in enumerate(fingerprints)}
    return runs.iloc[runs["fingerprint"].map(place).argsort(kind="stable")].reset_index(drop=True)
