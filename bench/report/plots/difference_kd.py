"""The main figure once more, with plain KD as what all others are compared with."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from bench.report import figures, stats

KD = "kd"


def data(runs: pd.DataFrame) -> pd.DataFrame:
    """`figures.difference_data` to kd; empty where no run of kd has finished, or no seed is shared with it."""
    kept = stats.usable(runs)
    if KD not in set(kept["label"]):
        return pd.DataFrame(columns=["pair", "label", "seed", "value", "n", "mean", "low", "high"])
    return figures.difference_data(runs, KD)


def figure(data: pd.DataFrame, commit: str = "") -> Figure:
    """A row per method, a dot per seed, mean and 95 % t interval, zero line. Raises `ValueError` without data."""
    return figures.difference_figure(data, KD, commit)
