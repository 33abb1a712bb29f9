"""What a checkpoint's files hold, read by their content and not by their ending, and nothing in them run."""

from __future__ import annotations

import argparse
import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.errors import UserError

IN_FOLDERS = (
    *("model.safetensors", "model.safetensors.index.json"),
    *("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
"""What a folder of Hugging Face calls its checkpoint, in the order that its own library looks."""
TAKES = "it takes what torch.save or safetensors wrote"
LARGEST_INDEX = 2**24  # bytes
SCALAR: Any = np.float64(0).__reduce__()[0]  # what numpy makes its numbers by
HARMLESS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    argparse.Namespace,
    np.dtype,
    *(getattr(np.dtypes, name) for name in np.dtypes.__all__),
    (SCALAR, "numpy.core.multiarray.scalar"),  # as numpy 1 named it
    (SCALAR, "numpy._core.multiarray.scalar"),
]
"""Plain values that training scripts keep beside their tensors: making one runs nothing."""


def files(path: Path) -> list[Path]:
    """Every file of a checkpoint: itself, or an index and its shards. Raises `UserError` where one is missing."""
    if path.is_dir():
        path = next((path / name for name in IN_FOLDERS if (path / name).is_file()), path)
    if not path.is_file():
        raise UserError(f"no file '{path}'; give a checkpoint ({TAKES}), or a folder with {' or '.join(IN_FOLDERS)}")
    if _head(path)[:1] != b"{":
        return [path]
    return [path, *(path.parent / name for name in dict.fromkeys(_index(path).values()))]


def read(path: Path) -> object:
    """What the checkpoint holds: of shards, all their tensors. Raises `UserError` where it cannot be read."""
    first, *shards = files(path)
    if not shards:
        return _content(first)
    weight_map, state = _index(first), dict[str, Tensor]()
    for shard in shards:
        content = _content(shard)
        for name in (name for name, file in weight_map.items() if file == shard.name):
            if not isinstance(content, dict) or name not in content:
                raise UserError(f"'{shard}' lacks '{name}', which {first.name} puts there; fetch that shard again")
            state[name] = content[name]
    return state


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(64)
    except OSError as error:
        raise UserError(f"'{path}': {(error.strerror or 'not readable').lower()}") from None


def _index(path: Path) -> dict[str, str]:
    """The shard of each tensor. A shard is a file beside its index: no name leads elsewhere."""
    try:
        if path.stat().st_size > LARGEST_INDEX:
            raise ValueError("larger than any index")
        named = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        if not named or not all(Path(file).name == file for file in named.values()):
            raise ValueError("its weight_map names no files beside it")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"'{path}' is no index of safetensors shards ({_line(error)}); {TAKES}") from None
    for file in named.values():
        if not (path.parent / file).is_file():
            raise UserError(f"no file '{path.parent / file}', which {path.name} names; put all shards beside it")
    return {str(name): file for name, file in named.items()}


def _content(path: Path) -> object:
    head = _head(path)
    if head[:1] == b"{":
        raise UserError(f"'{path}' is a text, and a shard is a file of tensors; fetch it again")
    if head.startswith(b"version https://git-lfs"):
        raise UserError(f"'{path}' is a pointer of Git LFS, not the file itself; fetch it with 'git lfs pull'")
    safetensors = head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**27
    return _safetensors(path) if safetensors or path.suffix == ".safetensors" else _torch(path)


def _safetensors(path: Path) -> object:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"'{path}' cannot be read, perhaps truncated: {_line(error)}") from None


def _torch(path: Path) -> object:
    try:
        with torch.serialization.safe_globals(HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever its zip, pickle and storage readers do
        found = re.search(r"unsupported (?:global:?|class)(?: GLOBAL)? (\S+)", str(error), re.IGNORECASE)
        if isinstance(error, pickle.UnpicklingError) and found:
            raise UserError(
                f"'{path}' holds '{found[1]}' besides tensors, which could run code; save a state dict:"
                " torch.save(network.state_dict(), FILE)"
            ) from None
        known = _head(path)[:2] in (b"PK", b"\x80\x02")
        raise UserError(
            f"'{path}' cannot be read, perhaps truncated: {_line(error)}" + ("" if known else f"; {TAKES}")
        ) from None


def _line(error: Exception) -> str:
    """The first words of an error, on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 120 else text[:117] + "..."
