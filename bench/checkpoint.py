"""State on disk that survives a kill at any instant: checksummed, replaced atomically, its predecessor kept."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import torch


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
    """The newest whole state, or None. A damaged file is passed over for its predecessor."""
    for candidate in (path, _previous(path)):
        try:
            checksum, _, payload = candidate.read_bytes().partition(b"\n")
        except FileNotFoundError:
            continue
        if hashlib.sha256(payload).hexdigest().encode() == checksum:
            state: dict[str, Any] = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
            return state
    return None


def remove(path: Path) -> None:
    """Forget the checkpoint: its run has ended."""
    for file in (path, _previous(path), path.with_suffix(".partial")):
        file.unlink(missing_ok=True)


def _previous(path: Path) -> Path:
    return path.with_suffix(".prev")
