"""From the runs of a suite to its report: pages, tables and figures in its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.table import Table

from bench.report import (
    design,
    distance,
    gain,
    html,
    latex,
    markdown,
    overall,
    plots,
    published,
    sections,
    stats,
    svg,
    table,
    tuning,
)
from bench.report.answer import answer
from bench.report.blocks import Page
from bench.report.files import SUFFIXES, of_figures, put
from bench.report.layout import rendered
from bench.report.provenance import commits
from bench.report.source import from_folder, from_store
from tracking.query import StoreRuns
from tracking.record import Record


@dataclass(frozen=True)
class Report:
    """What was written, and what the terminal shows of it."""

    answer: str  # one sentence per pair
    tables: list[Table]  # one per pair
    report: Path
    html: Path
    csv: Path
    figure: Path  # the PNG
    pdf: Path | None  # beside it, where PDFs were asked for
    frame: pd.DataFrame  # one row per run, in the suite's order
    rows: pd.DataFrame  # `table.build`


def write(
    results: Path,
    suite: str,
    *,
    records: Sequence[Record] | None = None,
    found: StoreRuns | None = None,
    pdf: bool = False,
    last_call: bool = False,
    methods: Sequence[str] = (),
) -> Report:
    """The report of what the calls of `suite` left, written into results/<suite>/.

    last_call and methods narrow it, as for `source.from_folder`. `records` stand in for those of the folder. With
    `found`, the report is of all runs of the suite that a tracking store holds, needs no results, and is written into
    results/<suite>/mlflow/. pdf: each figure also as a PDF, which takes twice a PNG's time. Raises `UserError` where
    there is nothing that can be reported honestly.
    """
    folder = results / suite / ("mlflow" if found else "")
    source = (
        from_store(found, suite)
        if found
        else from_folder(results, suite, records, last_call=last_call, methods=methods)
    )
    runs, protocol = source.runs, source.suite["protocol"]
    recipes = {name: about.get("recipes", {}) for name, about in source.methods.items()}
    published_rows = distance.beside(runs, published.read(results, recipes), protocol, source.data)
    baseline = stats.choose_baseline(runs)
    rows = table.build(runs, baseline, published_rows)
    rows = rows.assign(call=table.calls(runs, rows, source.earlier))
    across_pairs = overall.build(runs, rows) if runs["pair"].nunique() > 1 else None
    decided, compared = source.decisions, stats.choose_reference(runs, baseline)
    sentence = design.answer(source.suite, decided) if decided else answer(runs, compared)
    drawn = plots.drawn(runs, source.records, baseline, f"Commit {commits(runs)}.", published_rows)
    tuning_sections = tuning.sections(results, suite) if runs["tuned"].any() and not found else []
    page = sections.report(
        source,
        rows,
        sentence,
        {name: plot.caption for name, plot in drawn.items()},
        across_pairs=across_pairs,
        published=published_rows,
        tuning=[*gain.sections(gain.gain(runs)), *tuning_sections],
    )
    suffixes = SUFFIXES if pdf else SUFFIXES[:1]
    files = {f"figures/{name}.{s}": rendered(plot.figure, s) for name, plot in drawn.items() for s in suffixes}
    pictures = {name: files[f"figures/{name}.png"] for name in drawn}
    pictures |= _on_disk(folder, page, pictures)
    files |= {"table.csv": table.csv(rows).encode(), "table.tex": latex.tables(rows, suite, across_pairs).encode()}
    files |= {"overall.csv": table.csv(across_pairs).encode()} if across_pairs is not None else {}
    files |= {
        "report.md": markdown.page(page).encode(),
        "report.html": html.page(page, pictures | _drawings(drawn), source.views).encode(),
    }
    put(folder, files, stale=[*of_figures(plots.NAMES), "overall.csv"])
    main = folder / "figures" / f"{next(iter(drawn))}.png"
    paths = folder / "report.md", folder / "report.html", folder / "table.csv", main
    return Report(sentence, table.rich(rows), *paths, main.with_suffix(".pdf") if pdf else None, runs, rows)


def _drawings(drawn: Mapping[str, plots.Plot]) -> dict[str, bytes]:
    """SVGs for the page, of the figures that are small enough; the others stay PNGs."""
    shown = {name: rendered(plot.figure, "svg") for name, plot in drawn.items()}
    return {name: picture for name, picture in shown.items() if len(picture) <= svg.LARGEST}


def _on_disk(folder: Path, page: Page, pictures: dict[str, bytes]) -> dict[str, bytes]:
    """The page's figures that another report has drawn, as they lie in the suite's folder."""
    names = sorted({figure.name for figure in page.figures} - pictures.keys())
    return {name: (folder / "figures" / f"{name}.png").read_bytes() for name in names}
