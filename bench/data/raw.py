"""What a source gives, and how a path in a suite is read."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.errors import UserError


@dataclass(frozen=True)
class Arrays:
    """Images and labels of one official split. x: [N, C, H, W] uint8; y: [N] int64."""

    x: np.ndarray
    y: np.ndarray


@dataclass(frozen=True)
class Raw:
    """A data set before it is split. `test` is called when the test images are first wanted."""

    name: str
    classes: tuple[str, ...]
    train: Arrays
    test: Callable[[], Arrays] | None  # None: no official test split, it is what train and validation leave


def resolve(text: str) -> Path:
    """The absolute path that `text` names: variables and ~ expanded, relative to the current folder."""
    expanded = os.path.expandvars(text)
    if left := re.search(r"\$\{?(\w+)", expanded):
        raise UserError(f"path '{text}': the environment variable {left[1]} is not set; set it or write the path out")
    return Path(expanded).expanduser().absolute()
