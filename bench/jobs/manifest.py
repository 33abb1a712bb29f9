"""suite.json: which runs the calls of a suite asked for, and the checksums of the files that they came from."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import catalogue, models
from bench import data as datasets
from bench.data.cache import checksum
from bench.errors import UserError
from bench.suite.decide import Decision
from bench.suite.suite import Suite
from tracking.lines import Damage, write_atomically
from tracking.record import Record
from tracking.seal import CHECKSUM_PLACEHOLDER, add_checksum, verify_checksum

MANIFEST = "suite.json"
COMPARABLE = ("protocol", "data", "teacher", "pairs")  # what runs of several calls must share to stand in one report


def source_checksums(suite: Suite, suite_folder: Path) -> dict[str, str]:
    """SHA-256 of the files that the suite's data and teachers come from. Raises `UserError` where one has changed since
    the suite was last run: no other run could be compared with those that are here."""
    files = datasets.source_files(suite.data)
    for source in (source for pair in suite.pairs for source in pair.sources):
        if source.teacher_file:
            first, *others = models.files(source.checkpoint)
            files |= {source.teacher_file: first} | {str(path): path for path in others}
        if source.class_map:
            files[source.class_map] = Path(os.path.expandvars(source.class_map)).expanduser()
    for pair in (pair for pair in suite.pairs if pair.student_file):
        files |= {str(path): path for path in models.files(pair.student_checkpoint)}
    now = {name: checksum(path) for name, path in files.items() if path.is_file()}
    before = dict(_read(suite_folder).get("files", {}))
    if changed := [name for name in now if before.get(name, now[name]) != now[name]]:
        raise UserError(
            f"{changed[0]} is not the file that this suite was run with (its SHA-256 differs): put that one back, or"
            f" move {suite_folder / MANIFEST} away if the change is meant"
        )
    return before | now


def seems_finished(suite: Suite, suite_folder: Path) -> bool:
    """Did the last call of the suite ask for as many runs, and are they all there? A first guess, nothing more."""
    with suppress(OSError, ValueError, TypeError, KeyError, AttributeError, Damage):
        manifest = json.loads(verify_checksum((suite_folder / MANIFEST).read_text(encoding="utf-8")))
        n_rows = len(suite.pairs) * len(suite.methods) - len(manifest.get("left_out", ()))
        n_runs = n_rows * (suite.until.least if suite.until else len(suite.seeds))
        records = [Record(suite_folder / "runs" / fingerprint) for fingerprint in manifest["fingerprints"]]
        return len(records) >= n_runs and all(record.status == "finished" for record in records)
    return False


def _read(suite_folder: Path) -> dict[str, Any]:
    """What the call before wrote; nothing where there is none, or a damaged one, which this call writes anew."""
    try:
        found = json.loads(verify_checksum((suite_folder / MANIFEST).read_text(encoding="utf-8")))
        return {**found, "suite": dict(found["suite"]), "files": dict(found.get("files", {}))}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def write_manifest(
    suite_folder: Path,
    suite: Suite,
    fingerprints: list[str],
    checksums: dict[str, str],
    decisions: Sequence[Decision] = (),
    unfit: Sequence[tuple[str, str, str]] = (),
) -> None:
    """Which runs the last call of this suite asked for, and which earlier calls with the same protocol, data and
    teachers ("others", newest call first): what a report of it covers. Readable without torch.

    unfit: row, pair and reason of what was left out, because the method does not take the pair.
    """
    now, citations = suite.model_dump(mode="json"), catalogue.method_citations(spec.method for spec in suite.methods)
    before = _read(suite_folder)
    others: list[str] = []
    if all(before.get("suite", {}).get(key) == now[key] for key in COMPARABLE):
        known = [*before.get("fingerprints", []), *before.get("others", [])]
        others = [name for name in dict.fromkeys(known) if name not in set(fingerprints)]
        citations = {**(before.get("methods") or {}), **citations}
    text = json.dumps(
        {
            "seal": CHECKSUM_PLACEHOLDER,
            "suite": now,
            "fingerprints": fingerprints,
            "others": others,
            "methods": citations,
            "files": checksums,
            **({"decisions": [asdict(decided) for decided in decisions]} if suite.until else {}),
            **({"left_out": unfit} if unfit else {}),
        },
        indent=1,
    )
    write_atomically(suite_folder / MANIFEST, add_checksum(text))
