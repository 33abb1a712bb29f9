"""The report of tuning: tuning.md, tuning.csv and two figures in the suite's folder, and its part of report.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from rich.table import Table

from bench.errors import UserError
from bench.report import page as pages
from bench.report import tuning_page
from bench.report.files import SUFFIXES, put
from bench.report.layout import rendered
from bench.report.plots import best_of_k as curves
from bench.report.plots import trial_cost
from bench.report.trials import Study, best_of_k, budget, pareto, read, recipes, studies

__all__ = ["Study", "TuningReport", "best_of_k", "budget", "pareto", "read", "recipes", "section", "studies", "write"]


@dataclass(frozen=True)
class TuningReport:
    """What was written, and what the terminal shows of it."""

    answer: str  # whether all methods had the same budget
    table: Table
    report: Path
    csv: Path  # `rows`, unrounded; every trial is in its study's trials.csv
    figure: Path | None  # best of k; None where no trial is complete
    cost: Path | None  # accuracy against step time; None where fewer than two complete trials have a step time
    trials: pd.DataFrame  # `read`
    rows: pd.DataFrame  # `budget`


def write(results: Path, suite: str, made: Mapping[str, Any]) -> TuningReport:
    """The report of all studies of `suite`, written into results/<suite>/, each file whole or not there.

    made: the environment of this call, for studies without a record. Raises `UserError` where no trial has been told.
    """
    where, told, known = results / suite, read(results, suite), studies(results, suite)
    if told.empty:
        raise UserError(f"no trials of '{suite}' in {results}; run `kdbench tune {suite}`")
    rows = budget(told, known)
    environment = pd.DataFrame([dict(study.environment) for study in known] or [dict(made)])
    drawn = _figures(told, f"Commit {pages.commits(environment)}.")
    files = {f"figures/{name}.png": rendered(figure) for name, figure in drawn.items()}
    files["tuning.csv"] = rows.to_csv(index=False, lineterminator="\n").encode()
    files["tuning.md"] = tuning_page.page(where, rows, told, known, environment, list(drawn)).encode()
    both = [f"figures/{name}.{suffix}" for name in tuning_page.FIGURES for suffix in SUFFIXES]
    put(where, files, stale=[name for name in both if name not in files])
    png = {name: where / "figures" / f"{name}.png" for name in drawn}
    paths = (where / "tuning.md", where / "tuning.csv", png.get("tuning"), png.get("tuning-cost"))
    return TuningReport(tuning_page.answer(rows), tuning_page.rich(rows), *paths, told, rows)


def _figures(told: pd.DataFrame, commit: str) -> dict[str, Figure]:
    """Those that the trials suffice for, by name."""
    reached, points, drawn = best_of_k(told), pareto(told), {}
    if reached["best"].notna().any():
        drawn["tuning"] = curves.figure(reached, recipes(told), commit)
    if len(points) > 1:
        drawn["tuning-cost"] = trial_cost.figure(points, commit)
    return drawn


def section(results: Path, suite: str) -> str:
    """What report.md says of tuning, as Markdown that ends without a newline; empty where no trial has been told."""
    told = read(results, suite)
    drawn = [name for name in ("tuning",) if (results / suite / "figures" / f"{name}.png").exists()]
    return tuning_page.section(budget(told), drawn) if len(told) else ""
