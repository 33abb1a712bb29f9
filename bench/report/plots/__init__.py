"""The figures of a report: each a module with `data` (what is drawn) and `figure` (how)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from bench.report import stats
from tracking.record import Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = (
    "difference_kd",
    "difference",
    "top1",
    "gain",
    "matrix",
    "cost",
    "learning",
    "fidelity",
    "calibration",
    "errors",
    "reported",
)
"""All figures that there may be, in the order of a report: the first that there is, is its main one."""


@dataclass(frozen=True)
class Plot:
    """A figure at final size, what it says below it, and what it shows."""

    figure: Figure
    caption: str
    data: pd.DataFrame


def drawn(
    runs: pd.DataFrame, records: Sequence[Record], baseline: str, commit: str, near: pd.DataFrame
) -> dict[str, Plot]:
    """The figures of one suite by name, in the order of `NAMES`; one that has nothing to show is not there.

    runs: `tracking.frame.frame`; records: of these runs, with their folders; commit: a sentence that ends every
    caption; near: `distance.beside`. Raises `ValueError` where no run is finished or the baseline has no finished run,
    `UserError` for files that cannot be read.
    """
    from bench.report import figures
    from bench.report.plots import calibration, cost, dumbbell, errors, fidelity, learning, matrix, reported
    from bench.report.plots.predictions import read
    from bench.report.plots.ranking import order

    ranks, said = order(runs, baseline), read(runs, records)
    reference = stats.choose_reference(runs, baseline)
    found = {
        "difference_kd": pd.DataFrame() if reference == baseline else figures.difference_data(runs, reference),
        "difference": figures.difference_data(runs, baseline),
        "gain": dumbbell.data(runs),
        "matrix": matrix.data(runs),
        "cost": cost.data(runs, baseline),
        "learning": learning.data(runs, records, ranks),
        "fidelity": fidelity.data(runs, said, ranks),
        "calibration": calibration.data(runs, said, ranks),
        "errors": errors.data(runs, said, ranks),
        "reported": reported.data(near, ranks),
    }
    if found["difference_kd"].empty and found["difference"].empty:
        found["top1"] = figures.level_data(runs)
    plain = {"top1": figures.level_figure, "gain": dumbbell.figure, "matrix": matrix.figure, "errors": errors.figure}
    plain |= {"reported": reported.figure}
    based = {"difference_kd": figures.difference_figure, "difference": figures.difference_figure, "cost": cost.figure}
    based |= {"learning": learning.figure, "fidelity": fidelity.figure, "calibration": calibration.figure}
    out = {}
    for name in NAMES:
        if not (shown := found.get(name, pd.DataFrame())).empty:
            to = reference if name == "difference_kd" else baseline
            figure = plain[name](shown, commit) if name in plain else based[name](shown, to, commit)
            out[name] = Plot(figure, str(figure.get_label()), shown)
    return out
