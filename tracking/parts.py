"""A folder as a few files of bounded size, for what carries files between machines. The standard library alone."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

PART_BYTES = 60_000_000


def write_parts(folder: Path, to: Path, name: str, size: int = PART_BYTES) -> list[Path]:
    """Write a folder's content as `to`/`name`-000, -001, … of at most `size` bytes, and `name`.json, their list."""
    for old in to.glob(f"{name}-[0-9]*"):
        old.unlink()
    whole, parts = to / f"{name}.tar", list[Path]()
    with tarfile.open(whole, "w") as tar:
        tar.add(folder, arcname=".")
    with whole.open("rb") as source:
        while block := source.read(size):
            parts.append(to / f"{name}-{len(parts):03d}")
            parts[-1].write_bytes(block)
    whole.unlink()
    (to / f"{name}.json").write_text(json.dumps({part.name: part.stat().st_size for part in parts}))
    return parts


def missing_parts(folder: Path, name: str) -> list[str]:
    """Names of the parts that are not there, or not whole."""
    sizes: dict[str, int] = json.loads((folder / f"{name}.json").read_text())
    found = {path.name: path.stat().st_size for path in folder.glob(f"{name}-[0-9]*")}
    return [part for part, size in sizes.items() if found.get(part) != size]


def join_parts(folder: Path, name: str, to: Path) -> None:
    """Put the content of the folder that `write_parts` was given into `to`."""
    whole = to.with_name(f"{to.name}.tar")
    to.mkdir(parents=True, exist_ok=True)
    with whole.open("wb") as target:
        for part in json.loads((folder / f"{name}.json").read_text()):
            with (folder / part).open("rb") as source:
                shutil.copyfileobj(source, target)
    with tarfile.open(whole) as tar:
        tar.extractall(to, filter="data")
    whole.unlink()
