"""The durable local record of a run: the truth that MLflow and every report are made from.

One folder per run, `<results>/<suite>/runs/<fingerprint>/`, holds `record.jsonl` and the files that the run leaves. A
tuning study is a record, too, in `<results>/<suite>/tuning/<study>/` (its "epochs" are its trials), and so is every
trial of it, in `trials/<fingerprint>/` below; `spec["kind"]` says which is which.
Line one is the header, then one line per epoch, last the end. Every line carries a CRC of its canonical JSON that goes
on from the line before it, so a flipped bit and a missing line are found. NaN and infinities are kept as Python's
`json` writes them (`NaN`, `Infinity`). A kill while a line is written leaves a line without its newline: it is passed
over on reading and cut off before the next writing.
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tracking.lines import (
    SCHEMA,
    Damage,
    Lines,
    RecordError,
    as_floats,
    as_plain_json,
    canonical,
    encode_lines,
    epoch_line,
    parse,
    parse_more,
    sha256,
    without_crc,
    write_atomically,
)

FILE = "record.jsonl"
STATUSES = ("finished", "pruned", "diverged", "failed", "interrupted")


class Record:
    """One run's record. Cheap to make; reads the file when asked, and again only when it has changed."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.path = self.folder / FILE
        self._cache: tuple[tuple[int, int, int], Lines] | None = None
        self._environment: dict[str, Any] | None = None  # as `begin` was told

    def begin(self, fingerprint: str, spec: Mapping[str, Any], environment: Mapping[str, Any]) -> None:
        """Create the record, or take up the one that is here: a finished and intact one stays as it is, any other loses
        its end and is open again, with this environment noted as `resumed`."""
        self._environment = dict(environment)
        if not self.path.exists():
            identity = {"kind": "run", "schema": SCHEMA, "fingerprint": fingerprint, "id": uuid.uuid4().hex}
            content = {"time": time.time(), "spec": dict(spec), "environment": dict(environment)}
            self._replace([identity | content])
            return
        lines = self.read()
        if lines.header["fingerprint"] != fingerprint:
            raise RecordError(f"{self.path}: holds run {lines.header['fingerprint']}, not {fingerprint}")
        if self.status == "finished" and self.is_intact():
            return
        new = as_plain_json(self._resumed_header(lines) | {"spec": dict(spec)})
        if lines.end or canonical(new) != canonical(without_crc(lines.header)):
            self._replace([new, *map(without_crc, lines.epochs)])

    def write_epochs(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Make the record hold exactly these epochs: append what is missing, or rewrite (an end then goes, too)."""
        lines = self.read()
        wanted_lines, lines_on_disk = [epoch_line(row) for row in rows], lines.epochs
        is_prefix = len(lines_on_disk) <= len(wanted_lines) and all(map(_same_line, lines_on_disk, wanted_lines))
        if is_prefix and len(lines_on_disk) == len(wanted_lines):
            return
        if is_prefix and lines.end is None:
            self._append(wanted_lines[len(lines_on_disk) :])
        else:
            self._replace([self._resumed_header(lines), *wanted_lines])

    def end(self, status: str, reason: str, metrics: Mapping[str, float], files: Iterable[str]) -> None:
        """Close the run with its final metrics and the SHA-256 of each named file of the folder. Durable on return."""
        if status not in STATUSES:
            raise RecordError(f"{self.path}: no status '{status}'; there are {', '.join(STATUSES)}")
        sums = {name: sha256(self.folder / name, durable=True) for name in files}
        if missing := [name for name, digest in sums.items() if digest is None]:
            raise RecordError(f"{self.path}: cannot end, {self.folder / missing[0]} is missing")
        body = {
            "kind": "end",
            "status": status,
            "reason": reason,
            "time": time.time(),
            "metrics": as_floats(metrics),
            "files": sums,
        }
        lines = self.read()
        if lines.end is None:
            self._append([body], durable=True)
        else:
            self._replace([*map(without_crc, (lines.header, *lines.epochs)), body])

    @property
    def header(self) -> dict[str, Any]:
        return without_crc(self.read().header)

    @property
    def environment(self) -> dict[str, Any]:
        return self.read().environment

    @property
    def epochs(self) -> list[dict[str, Any]]:
        """Rows as `write_epochs` takes them: epoch, time, metrics."""
        return [{key: line[key] for key in ("epoch", "time", "metrics")} for line in self.read().epochs]

    @property
    def final(self) -> dict[str, Any] | None:
        end = self.read().end
        return without_crc(end) if end else None

    @property
    def status(self) -> str:
        """Before `begin` "absent", before `end` "running", then what `end` was told."""
        if not self.path.exists():
            return "absent"
        end = self.read().end
        return str(end["status"]) if end else "running"

    def files(self) -> dict[str, str]:
        """SHA-256 by name of what the run left; empty before its end."""
        end = self.read().end if self.path.exists() else None
        return dict(end["files"]) if end else {}

    def is_intact(self) -> bool:
        """True if the run has ended and every file is here with its checksum."""
        return self.status not in ("absent", "running") and not self.damaged_files()

    def damaged_files(self) -> list[Path]:
        """What the run left that is gone or no longer what it was."""
        return [self.folder / name for name, digest in self.files().items() if sha256(self.folder / name) != digest]

    def file(self, name: str) -> Path | None:
        """Where that file of the run is; None if it is not there. Raises `RecordError` if it is not what was left."""
        path = self.folder / name
        if not path.exists():
            return None
        if sha256(path) != self.files().get(name, sha256(path)):
            raise RecordError(f"{path}: damaged; run its suite again, and what it holds is made anew")
        return path

    def repair(self) -> str:
        """Take a damaged record back to the lines before the damage, or away; the damaged one stays as
        `record.damaged`. Says what was wrong and what became of it; nothing where nothing was."""
        try:
            if self.path.exists():
                self.read()
            return ""
        except Damage as damage:
            damaged_copy = self.path.with_suffix(".damaged")
            whole_lines = [without_crc(line) for line in damage.whole_lines if line["kind"] != "end"]
            shutil.copyfile(self.path, damaged_copy)
            if whole_lines:
                self._replace(whole_lines)
            else:
                self.path.unlink()
            return f"{damage.problem} (kept as {damaged_copy.name}): this run goes on from what is whole"

    def read(self) -> Lines:
        """All lines, verified. Raises `RecordError` for damage anywhere but in a torn last line."""
        try:
            stat = self.path.stat()
            key = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
            if self._cache and self._cache[0] == key:
                return self._cache[1]
            data = self.path.read_bytes()
        except OSError as error:
            raise RecordError(f"{self.path}: {error.strerror}") from None
        lines = parse(data, self.path)
        self._cache = (key, lines)
        return lines

    def _resumed_header(self, lines: Lines) -> dict[str, Any]:
        """The header of a record that goes on, with where it goes on if that is elsewhere."""
        header = without_crc(lines.header)
        if self._environment is not None and as_plain_json(self._environment) != lines.environment:
            header["resumed"] = [*header.get("resumed", []), {"time": time.time(), "environment": self._environment}]
        return header

    def _append(self, new: list[dict[str, Any]], *, durable: bool = False) -> None:
        lines = self.read()
        data = encode_lines(new, [lines.header, *lines.epochs]).encode()
        try:
            with self.path.open("r+b") as file:
                file.truncate(lines.whole_bytes)
                file.seek(lines.whole_bytes)
                file.write(data)
                file.flush()
                if durable:  # epochs need no fsync: after a power cut the checkpoint brings them back
                    os.fsync(file.fileno())
                stat = os.fstat(file.fileno())
        except OSError as error:
            raise RecordError(f"{self.path}: {error.strerror}") from None
        self._cache = ((stat.st_ino, stat.st_size, stat.st_mtime_ns), parse_more(lines, data, self.path))

    def _replace(self, lines: list[dict[str, Any]]) -> None:
        try:
            write_atomically(self.path, encode_lines(lines))
        except OSError as error:
            raise RecordError(f"{self.path}: {error.strerror}") from None

    def __repr__(self) -> str:
        return f"Record({str(self.folder)!r})"


def _same_line(line: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether a line of the record says what a new one would. NaN is never equal, so the texts decide then."""
    return without_crc(line) == dict(new) or canonical(without_crc(line)) == canonical(as_plain_json(new))


def scan(folder: str | os.PathLike[str]) -> list[Record]:
    """The records under a suite's results folder, sorted by fingerprint. Nothing is read yet."""
    return [Record(path.parent) for path in sorted(Path(folder).glob(f"runs/*/{FILE}"))]
