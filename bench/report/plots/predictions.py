"""What finished students said of every test image, from predictions.npz beside their records."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.errors import UserError
from bench.report import stats
from tracking.record import Record

FILE = "predictions.npz"
NEEDED = ("label", "guess", "confidence")
TEACHER = "teacher_guess"

Said = Mapping[str, NDArray[Any]]
"""By name, all [N]: label, guess, confidence (of the guess, in [0, 1]), and teacher_guess where there was a teacher."""


def read(runs: pd.DataFrame, records: Sequence[Record]) -> dict[str, Said]:
    """By fingerprint, of the finished runs that have them. Raises `RecordError` where they are not what the run left,
    `UserError` where they cannot be read."""
    known = set(stats.usable(runs)["fingerprint"])
    mine = {record.header["fingerprint"]: record for record in records if record.header["fingerprint"] in known}
    return {name: _read(path) for name, record in mine.items() if (path := record.file(FILE))}


def _read(path: Path) -> Said:
    try:
        with np.load(path, allow_pickle=False) as file:
            said = {name: file[name] for name in (*NEEDED, TEACHER) if name in file}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path}: not readable as predictions ({error}); move its folder away and run it again"
        ) from None
    if missing := [name for name in NEEDED if name not in said]:
        raise UserError(f"{path}: has no '{missing[0]}'; move its folder away and run it again")
    if len({array.shape for array in said.values()}) > 1 or said["label"].ndim != 1 or not len(said["label"]):
        raise UserError(f"{path}: its arrays differ in length; move its folder away and run it again")
    return said


def told(runs: pd.DataFrame, said: Mapping[str, Said]) -> list[tuple[str, str, Said]]:
    """Pair, label and predictions of each run that has them, in the frame's order."""
    kept = runs[runs["fingerprint"].isin(list(said))]
    return [(str(row.pair), str(row.label), said[str(row.fingerprint)]) for row in kept.itertuples()]
