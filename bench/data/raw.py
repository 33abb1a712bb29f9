"""What a source gives, and how a path in a suite is read."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from bench.errors import UserError

VALIDATION = ("val", "valid", "validation")  # what a source may call its own validation split
T = TypeVar("T")


@dataclass(frozen=True)
class SplitArrays:
    """Images and labels of one official split. x: [N, C, H, W] uint8; y: [N] int64."""

    x: np.ndarray
    y: np.ndarray

    def take(self, index: np.ndarray) -> SplitArrays:
        return SplitArrays(self.x[index], self.y[index])


@dataclass(frozen=True)
class SourceData:
    """A data set before it is split. `test` is called when the test images are first wanted."""

    name: str
    classes: tuple[str, ...]
    train: SplitArrays
    test: Callable[[], SplitArrays] | None  # None: no official test split, it is what train and validation leave
    validation: SplitArrays | None = None  # None: it is carved from train

    def n_carved(self, requested: int | None) -> int:
        """How many train images the validation split takes."""
        if self.validation is not None:
            return 0
        if requested is None:
            raise UserError(
                f"data.validation is not given, and {self.name} has no validation split of its own; say how many of its"
                f" {len(self.train.y)} train images are taken for it"
            )
        return requested


def held_out_splits(splits: Mapping[str, T]) -> tuple[T | None, T | None]:
    """The validation and the test split of a source by their names; one that holds validation alone is tested on it."""
    validation = next((splits[name] for name in VALIDATION if name in splits), None)
    return (validation, splits["test"]) if "test" in splits else (None, validation)


def resolve_path(text: str) -> Path:
    """The absolute path that `text` names: variables and ~ expanded, relative to the current folder."""
    expanded = os.path.expandvars(text)
    if unset := re.search(r"\$\{?(\w+)", expanded):
        raise UserError(f"path '{text}': the environment variable {unset[1]} is not set; set it or write the path out")
    return Path(expanded).expanduser().absolute()
