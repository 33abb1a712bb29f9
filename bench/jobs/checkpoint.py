"""State on disk that survives a kill at any instant: checksummed, replaced atomically, its predecessor kept."""

from __future__ import annotations

import hashlib
import io
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from bench.errors import notice


def save(path: Path, state: dict[str, Any]) -> None:
    """Replace the checkpoint by `state`; until the last instant the old one is whole, and it stays as `.prev`."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getbuffer()
    partial = path.with_suffix(".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    with partial.open("wb") as file:
        file.write(hashlib.sha256(payload).hexdigest().encode() + b"\n")
        file.write(payload)
        file.flush()
        os.fsync(file.fileno())
    if path.exists():
        path.replace(_previous(path))
    partial.replace(path)


def load(path: Path) -> dict[str, Any] | None:
    """The newest whole state, or None. A damaged file is named, and passed over for its predecessor."""
    for candidate in (path, _previous(path)):
        try:
            checksum, _, payload = candidate.read_bytes().partition(b"\n")
        except FileNotFoundError:
            continue
        if hashlib.sha256(payload).hexdigest().encode() == checksum:
            with suppress(
                Exception
            ):  # a checksum that is right is no proof of who wrote it: nothing but tensors is read
                state = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
                if isinstance(state, dict):
                    return state
        notice(f"{candidate}: damaged; this run goes on from the checkpoint before it, or anew")
    return None


def remove(path: Path) -> None:
    """Forget the checkpoint: its run has ended."""
    for file in (path, _previous(path), path.with_suffix(".partial")):
        file.unlink(missing_ok=True)


def _previous(path: Path) -> Path:
    return path.with_suffix(".prev")
