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
from bench.report import markdown, table, trials, tuning_page
from bench.report.blocks import Section
from bench.report.files import of_figures, put
from bench.report.layout import caption_of, rendered
from bench.report.plots import best_of_k, trial_cost
from bench.report.provenance import commits


@dataclass(frozen=True)
class TuningReport:
    """What was written, and what the terminal shows of it."""

    answer: str  # whether all methods had the same budget
    tables: list[Table]  # one per pair
    report: Path
    csv: Path  # `rows`, unrounded; every trial is in its study's trials.csv
    figure: Path | None  # best of k; None where no trial is complete
    cost: Path | None  # accuracy against step time; None where fewer than two complete trials have a step time
    trials: pd.DataFrame  # `trials.read`
    rows: pd.DataFrame  # `trials.budget`


def write(results: Path, suite: str, environment: Mapping[str, Any]) -> TuningReport:
    """The report of all studies of `suite`, written into results/<suite>/, each file whole or not there.

    environment: of this call, for studies without a record. Raises `UserError` where no trial is on record.
    """
    folder, read, studies = results / suite, trials.read(results, suite), trials.studies(results, suite)
    if read.empty:
        raise UserError(f"no trials of '{suite}' in {results}; run `kdbench tune {suite}`")
    rows = trials.budget(read, studies)
    environments = pd.DataFrame([dict(study.environment) for study in studies] or [dict(environment)])
    figures = _figures(read, trials.chosen(read, studies), f"Commit {commits(environments)}.")
    files = {f"figures/{name}.png": rendered(figure) for name, figure in figures.items()}
    captions = {name: str(figure.get_label()) for name, figure in figures.items()}
    files["tuning.csv"] = table.csv(rows).encode()
    page = tuning_page.page(folder, rows, read, studies, environments, captions)
    files["tuning.md"] = markdown.page(page).encode()
    put(folder, files, stale=of_figures(tuning_page.FIGURES))
    png = {name: folder / "figures" / f"{name}.png" for name in figures}
    paths = (folder / "tuning.md", folder / "tuning.csv", png.get("tuning"), png.get("tuning-cost"))
    return TuningReport(tuning_page.answer(rows), tuning_page.rich(rows), *paths, read, rows)


def _figures(read: pd.DataFrame, chosen: pd.DataFrame, commit: str) -> dict[str, Figure]:
    """Those that the trials suffice for, by name."""
    reached, points, out = trials.best_of_k(read), trials.pareto(read), {}
    if reached["best"].notna().any():
        out["tuning"] = best_of_k.figure(reached, trials.recipes(read), chosen, commit)
    if len(points) > 1:
        out["tuning-cost"] = trial_cost.figure(points, chosen, commit)
    return out


def sections(results: Path, suite: str) -> list[Section]:
    """What a suite's report says of tuning; none where no trial is on record."""
    read = trials.read(results, suite)
    png = results / suite / "figures" / "tuning.png"
    figures = {"tuning": caption_of(png)} if png.exists() else {}
    rows = trials.budget(read, trials.studies(results, suite)) if len(read) else read
    return [tuning_page.section(rows, figures)] if len(read) else []
