"""Decoded images kept on disk between runs: written atomically, checked when read, made anew when damaged."""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np

from bench.errors import UserError, notice

VERSION = 1
"""Raise when decoding changes: every key changes with it."""


def cache_folder() -> Path:
    """KDBENCH_CACHE, or ~/.cache/kdbench."""
    return Path(os.environ.get("KDBENCH_CACHE") or "~/.cache/kdbench").expanduser()


def content_key(files: Iterable[Path], *parts: object) -> str:
    """A name for what is decoded from the bytes of these files, in this order, with these settings."""
    digest = hashlib.sha256(repr((VERSION, parts)).encode())
    for path in files:
        digest.update(bytes.fromhex(checksum(path)))
    return digest.hexdigest()[:32]


def checksum(path: Path) -> str:
    """SHA-256 of a file, read once as long as it stays as it is."""
    try:
        stat = path.stat()
        return _checksum_of(path, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None


@lru_cache(maxsize=4096)
def _checksum_of(path: Path, *state: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_or_build(key: str, build: Callable[[], np.ndarray]) -> np.ndarray:
    """The uint8 array kept under `key`, or else what `build` returns, kept for the next time."""
    path = cache_folder() / f"{key}.npy"
    array_on_disk = _read(path)
    if array_on_disk is not None:
        return array_on_disk
    array = np.ascontiguousarray(build())
    try:
        _write(path, array)
    except OSError as error:
        warnings.warn(f"decoded images are not kept: {path.parent}: {error.strerror or error}", stacklevel=2)
    return array


def _digest(array: np.ndarray) -> bytes:
    return hashlib.sha256(array.reshape(-1).data).digest()


def _read(path: Path) -> np.ndarray | None:
    """The array of a file that is whole, else None. The checksum follows the array: one file holds all or nothing."""
    try:
        with path.open("rb") as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
            if array.dtype == np.uint8 and array.ndim == 4 and file.read() == _digest(np.ascontiguousarray(array)):
                return array
    except FileNotFoundError:
        return None
    except Exception:  # numpy raises whatever its parsers do
        pass
    notice(f"{path}: damaged; the images are decoded anew")
    return None


def _write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.stem[:8]}-", delete=False) as file:
        partial = Path(file.name)
        try:
            np.lib.format.write_array(file, array, allow_pickle=False)
            file.write(_digest(array))
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    partial.replace(path)
