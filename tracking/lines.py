"""The lines of a record: JSON with a checksum each, written whole or not at all, verified when read."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

SCHEMA = 2
"""From 2 on, the CRC of a line goes on from that of the line before it, that of the first epoch from the run's id: a
line that is missing, doubled, out of place or another run's is found like a flipped bit."""


class RecordError(ValueError):
    """One line: which record is damaged or refused, and why."""


class Damage(RecordError):
    """A record whose lines are whole only up to some place."""

    def __init__(self, problem: str, whole_lines: list[dict[str, Any]]) -> None:
        super().__init__(f"{problem}; run its suite again: what was lost is done anew")
        self.problem, self.whole_lines = problem, whole_lines


class Lines(NamedTuple):
    """What a record held at one instant. Each line is a dict that still has its `kind` and `crc`."""

    header: dict[str, Any]
    epochs: list[dict[str, Any]]
    end: dict[str, Any] | None
    whole_bytes: int  # bytes of the file that are whole lines

    @property
    def environment(self) -> dict[str, Any]:
        """Where the run was last (re)started."""
        resumed = self.header.get("resumed") or [self.header]
        return dict(resumed[-1]["environment"])


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that at any instant either the old or the new one is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def parse(data: bytes, path: Path) -> Lines:
    """The lines of a record, verified; bytes after the last newline are a torn line and passed over."""
    lines = _lines(data, path)
    if not lines:
        raise Damage(f"{path}: has no header", [])
    end = lines.pop() if lines[-1]["kind"] == "end" else None
    return Lines(lines[0], lines[1:], end, data.rfind(b"\n") + 1)


def parse_more(lines: Lines, data: bytes, path: Path) -> Lines:
    """`lines` and what was appended to them: a long record need not be read again for every epoch."""
    new = _lines(data, path, [lines.header, *lines.epochs])
    end = new.pop() if new and new[-1]["kind"] == "end" else None
    return Lines(lines.header, [*lines.epochs, *new], end, lines.whole_bytes + len(data))


def _lines(data: bytes, path: Path, before: list[dict[str, Any]] | None = None) -> list[dict[str, Any]]:
    *texts, _ = data.split(b"\n")
    lines = list(before or [])
    first = len(lines)
    for number, text in enumerate(texts, first + 1):
        line, is_whole = decode(text, previous_crc(lines))
        if number == 1 and isinstance(line.get("schema"), int) and line["schema"] > SCHEMA:
            raise RecordError(
                f"{path}: written by a newer version (schema {line['schema']}, this one reads up to {SCHEMA})"
            )
        kinds = ("run",) if number == 1 else ("epoch", "end")
        if not is_whole or line.get("kind") not in kinds or (lines and lines[-1]["kind"] == "end"):
            raise Damage(f"{path}: line {number} is damaged", lines)
        lines.append(line)
    return lines[first:]


def previous_crc(lines: Sequence[Mapping[str, Any]]) -> int:
    """What the CRC of the line after these goes on from."""
    if not lines or lines[0].get("schema", 1) < 2:
        return 0
    return int(lines[-1]["crc"]) if len(lines) > 1 else zlib.crc32(str(lines[0].get("id")).encode())


def encode_lines(bodies: Iterable[Mapping[str, Any]], before: Iterable[Mapping[str, Any]] = ()) -> str:
    """The text of new lines of a record, header first unless it stands among the lines `before`."""
    lines, texts = list(before), []
    for body in bodies:
        texts.append(encode(body, previous_crc(lines)))
        lines.append({**body, "crc": crc_of(texts[-1])})
    return "".join(texts)


def decode(text: bytes, before: int = 0) -> tuple[dict[str, Any], bool]:
    """The line, and whether its CRC is right."""
    try:
        line = dict(json.loads(text))
    except (ValueError, TypeError, RecursionError):
        return {}, False
    body, _, _ = text.rpartition(b',"crc":')
    return line, zlib.crc32(body + b"}", before) == line.get("crc")  # of the bytes, since many texts read as one number


def encode(body: Mapping[str, Any], before: int = 0) -> str:
    """One line with its newline, `crc` last. before: the CRC that its own goes on from."""
    text = canonical(as_plain_json(body))
    return f'{text[:-1]},"crc":{zlib.crc32(text.encode(), before)}}}\n'


def crc_of(encoded: str) -> int:
    return int(encoded[encoded.rindex(":") + 1 : -2])


def canonical(body: Any) -> str:
    return json.dumps(body, sort_keys=True, separators=(",", ":"))


def as_plain_json(body: Any) -> Any:
    """As JSON gives it back: tuples are lists, keys are strings, numpy scalars are numbers."""
    return json.loads(json.dumps(body, default=lambda value: value.item() if hasattr(value, "item") else str(value)))


def without_crc(line: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if key != "crc"}


def epoch_line(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "kind": "epoch",
        "epoch": int(row["epoch"]),
        "time": float(row["time"]),
        "metrics": as_floats(row["metrics"]),
    }


def as_floats(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {str(name): float(value) for name, value in metrics.items()}


def sha256(path: Path, *, durable: bool = False) -> str | None:
    try:
        with path.open("rb") as file:
            if durable:
                os.fsync(file.fileno())
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
