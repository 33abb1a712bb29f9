"""The two sides of a comparison out of local records: two rows of a suite, or two suites' results."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from bench.errors import UserError, unknown
from bench.report import stats_examples
from tracking.frame import frame as frame_of
from tracking.record import FILE, Record
from tracking.seal import verify_checksum

MADE_ON = ("commit", "hardware", "torch", "threads")
Spec = dict[str, Any]


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
class Results:
    """What a suite's folder holds of its last call. frame: in the suite's order; specs: by fingerprint."""

    folder: Path
    frame: pd.DataFrame
    specs: dict[str, Spec]


def read(folder: Path) -> Results:
    """The runs that the last call of a suite asked for. Raises `UserError` where there are none to read."""
    again = f"run `kdbench run {folder.name}`"
    try:
        manifest = json.loads(verify_checksum((folder / "suite.json").read_text("utf-8")))
        wanted = [str(name) for name in manifest["fingerprints"]]
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"no results for '{folder.name}' in {folder.parent}; {again}") from None
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{folder / 'suite.json'}: not readable as the list of a suite's runs; {again} again") from None
    records = [Record(folder / "runs" / name) for name in wanted if (folder / "runs" / name / FILE).is_file()]
    if not records:
        raise UserError(f"{folder} has no records of its runs; {again}")
    frame, place = frame_of(records), {name: i for i, name in enumerate(wanted)}
    order = frame["fingerprint"].map(place).argsort(kind="stable")
    specs = {record.header["fingerprint"]: record.header["spec"] for record in records}
    return Results(folder, frame.iloc[order].reset_index(drop=True), specs)


def suite_folder(name: str, results: Path) -> Path | None:
    """The folder of a suite's results, by path or by its name in `results`; None where there is none."""
    return next((p.absolute() for p in (results / name, Path(name)) if (p / "suite.json").is_file()), None)


def chosen(suite: str | None, results: Path) -> Results:
    """The suite that is named, else of those of `results` that have runs the one that was called last."""
    if suite is not None:
        return read(suite_folder(suite, results) or results / Path(suite).stem)
    found = [path for path in results.glob("*/suite.json") if any(path.parent.glob(f"runs/*/{FILE}"))]
    found.sort(key=lambda path: path.stat().st_mtime)
    if not found:
        raise UserError(f"no suite's results in {results}; run `kdbench run`, or name the folder with --results")
    return read(found[-1].parent)


def of_rows(a: str, b: str, found: Results) -> Sides:
    """Two rows of one suite, by label."""
    others = sorted(p.parent.name for p in found.folder.parent.glob("*/suite.json") if p.parent != found.folder)
    known(a, b, found.frame, found.folder.name, others)
    frame = found.frame[found.frame["label"].isin([a, b])].assign(row="").reset_index(drop=True)
    first: dict[str, Spec] = {}
    for spec in (found.specs[name] for name in frame["fingerprint"]):
        if away := settings(first.setdefault(spec["pair"], spec), spec):
            raise UserError(
                f"the runs of '{found.folder.name}' on {spec['pair']} are of two settings ({away[0]}) and cannot be "
                f"compared; run `kdbench run {found.folder.name}` again"
            )
    return Sides("rows", a, b, found.folder.name, frame, _files(found, frame["fingerprint"]))


def of_suites(one: Results, two: Results) -> Sides:
    """Rows of the same pair and label; suites of one pair each are set side by side even if it is not the same."""
    a, b = _names(one.folder, two.folder)
    frames: list[pd.DataFrame] = []
    specs: list[dict[str, Spec]] = []
    files: dict[str, Path] = {}
    for name, found in ((a, one), (b, two)):
        own = {fingerprint: f"{name}:{fingerprint}" for fingerprint in found.specs}  # one run may stand on both sides
        frame = found.frame.assign(row=found.frame["label"], label=name)
        frames.append(frame.assign(fingerprint=frame["fingerprint"].map(own)))
        specs.append({own[fingerprint]: spec for fingerprint, spec in found.specs.items()})
        files |= {own[fingerprint]: path for fingerprint, path in _files(found, found.specs).items()}
    differ = made_on(*frames)
    pairs = [list(frame["pair"].unique()) for frame in frames]
    if len(pairs[0]) == len(pairs[1]) == 1 and pairs[0] != pairs[1]:
        name = f"{pairs[0][0]} | {pairs[1][0]}"
        frames, differ = [frame.assign(pair=name) for frame in frames], [f"pair {name}", *differ]
    keys = [list(dict.fromkeys(zip(frame["pair"], frame["row"], strict=True))) for frame in frames]
    common = [key for key in keys[0] if key in keys[1]]
    if not common:
        has = " | ".join(_listed([f"{row} on {pair}" for pair, row in own]) for own in keys)
        raise UserError(f"{a} and {b} have no row of the same pair and label: {has}")
    for key in common:
        left, right = (_spec(frame, spec, key) for frame, spec in zip(frames, specs, strict=True))
        told = [*settings(left, right), *differing(left.get("hp") or {}, right.get("hp") or {}, f"{key[1]}.")]
        differ += [text for text in told if text not in differ]
    alone = [[row for pair, row in own if (pair, row) not in common] for own in keys]
    notes = [f"{name} alone has {_listed(rows)}." for name, rows in zip((a, b), alone, strict=True) if rows]
    frame = pd.concat(frames, ignore_index=True)
    kept = [key in common for key in zip(frame["pair"], frame["row"], strict=True)]
    return Sides("suites", a, b, f"{a} | {b}", frame[kept].reset_index(drop=True), files, differ, notes)


def known(a: str, b: str, frame: pd.DataFrame, suite: str, others: list[str]) -> None:
    """Refuse a row that the suite's results do not have."""
    for name in (a, b):
        if name not in set(frame["label"]):
            elsewhere = f"; other suites' results (--suite): {', '.join(others)}" if others else ""
            raise UserError(f"{unknown(f'row of {suite}', name, map(str, frame['label'].unique()))}{elsewhere}")


def settings(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """What differs in protocol, data and teacher between the specs of two runs."""
    both = [{"protocol": spec.get("protocol") or {}, "data": spec.get("data") or {}} for spec in (a, b)]
    # the hash of the teacher's weights; where an older record lacks it, the fingerprint of its training
    name = next((n for n in ("teacher_hash", "teacher_fingerprint") if a.get(n) and b.get(n)), "")
    return [*differing(both[0], both[1]), *differing({"teacher": a.get(name)}, {"teacher": b.get(name)})]


def made_on(a: pd.DataFrame, b: pd.DataFrame) -> list[str]:
    """What differs in code and machine between two sides' runs."""
    both = [{key: ", ".join(_short(v) for v in side[key].dropna().unique()) for key in MADE_ON} for side in (a, b)]
    return differing(both[0], both[1])


def differing(a: Mapping[str, Any], b: Mapping[str, Any], within: str = "") -> list[str]:
    """What differs between two nested mappings, as JSON sees them: 'epochs 40 | 10', 'data.pad 1 | none'."""
    one, two = (json.loads(json.dumps(x, default=str)) for x in (a, b))
    out = []
    for key in dict.fromkeys([*one, *two]):
        left, right = one.get(key), two.get(key)
        if isinstance(left, dict) and isinstance(right, dict):
            out += differing(left, right, f"{within}{key}.")
        elif left != right:
            out.append(f"{within}{key} {_short(left)} | {_short(right)}")
    return out


def _names(one: Path, two: Path) -> tuple[str, str]:
    """What tells two folders apart: their names, with as many of the folders above as that takes."""
    for depth in range(1, min(len(one.parts), len(two.parts))):
        names = ["/".join(folder.parts[-depth:]) for folder in (one, two)]
        if names[0] != names[1]:
            return names[0], names[1]
    return str(one), str(two)


def _listed(names: list[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _files(found: Results, names: Iterable[str]) -> dict[str, Path]:
    """Where the predictions of these runs are. Raises `RecordError` where they are not what the run left."""
    folders = {name: found.folder / "runs" / name for name in names}
    for folder in folders.values():
        Record(folder).file(stats_examples.FILE)
    return {name: folder / stats_examples.FILE for name, folder in folders.items()}


def _spec(frame: pd.DataFrame, specs: Mapping[str, Spec], key: tuple[str, str]) -> Spec:
    """Of a row's first run; the runs of a row differ in their seed alone."""
    mine = (frame["pair"] == key[0]) & (frame["row"] == key[1])
    return specs[frame.loc[mine, "fingerprint"].iloc[0]]


def _short(value: Any) -> str:
    text = "none" if value is None else value if isinstance(value, str) else json.dumps(value, default=str)
    return text[:12] if re.fullmatch(r"[0-9a-f]{16,}", text) else text
