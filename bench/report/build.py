"""From the records of a suite to its report: pages, tables and figures in its folder, each whole or not there."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table

from bench.errors import UserError
from bench.report import (
    distance,
    gain,
    html,
    latex,
    markup,
    overall,
    page,
    plots,
    published,
    server,
    stats,
    table,
    tuning,
)
from bench.report.answer import answer
from bench.report.figures import all_rendered
from bench.report.files import SUFFIXES, put
from tracking import ui as uis
from tracking.frame import frame as frame_of
from tracking.query import Found
from tracking.record import FILE, Record
from tracking.seal import opened


@dataclass(frozen=True)
class Report:
    """What was written, and what the terminal shows of it."""

    answer: str  # one sentence per pair
    tables: list[Table]  # one per pair
    report: Path
    html: Path
    csv: Path
    figure: Path  # the PNG; the PDF lies beside it
    pdf: Path
    frame: pd.DataFrame  # one row per run, in the suite's order
    rows: pd.DataFrame  # `table.build`


def write(results: Path, suite: str, *, records: Sequence[Record] | None = None, found: Found | None = None) -> Report:
    """The report of what the last call of `suite` asked for, written into results/<suite>/.

    `records` stand in for those of the folder. With `found`, the report is of all runs of the suite that a tracking
    store holds, needs no results, and is written into results/<suite>/mlflow/. Raises `UserError` where there is
    nothing that can be reported honestly.
    """
    where = results / suite / ("mlflow" if found else "")
    manifest = _manifest(where, suite) if found is None else server.manifest(found, suite)
    wanted: list[str] = manifest["fingerprints"]
    if found is not None:
        records = found.records
    elif records is None:
        folders = [where / "runs" / fingerprint for fingerprint in wanted]
        records = [Record(folder) for folder in folders if (folder / FILE).exists()]
    records = [record for record in records if record.header["fingerprint"] in wanted]
    specs = [record.header["spec"] for record in records] if found is None else list(found.specs.values())
    if not specs:
        raise _nothing(results, suite)
    _one_protocol(specs, manifest["suite"], suite, "" if found is None else server.MIXED)
    runs = _in_order(frame_of(records) if found is None else found.frame, wanted)
    _something_finished(runs, suite)
    data = specs[0].get("data") or manifest["suite"].get("data") or {}
    cited = manifest.get("methods") or {}
    recipes = {name: about.get("recipes", {}) for name, about in cited.items()}
    near = distance.beside(runs, published.read(results, recipes), manifest["suite"]["protocol"], data)
    base = stats.choose_baseline(runs)
    rows, sentence = table.build(runs, base, near), answer(runs, stats.choose_reference(runs, base))
    several = overall.build(runs, rows) if runs["pair"].nunique() > 1 else None
    told = [gain.section(gain.gain(runs))] if runs["tuned"].any() else []
    told += [tuning.section(results, suite)] if told and found is None else []
    made = plots.drawn(runs, records, base, f"Commit {page.commits(runs)}.", near)
    missing = len(wanted) - len(specs)
    drawn = all_rendered({name: plot.figure for name, plot in made.items()})
    files = {f"figures/{name}": content for name, content in drawn.items()}
    files |= {"table.csv": table.csv(rows).encode(), "table.tex": latex.tables(rows, suite, several).encode()}
    if several is not None:
        files["overall.csv"] = overall.csv(several).encode()
    about = manifest["suite"] | {"left_out": manifest.get("left_out") or []}
    files["report.md"] = page.page(runs, rows, sentence, list(made), about, data, missing, told, several, near).encode()
    pictures = {name: html.picture(plot.figure, files[f"figures/{name}.png"]) for name, plot in made.items()}
    links, views = uis.known(records) if found is None else uis.known_of(found)
    files["report.html"] = html.page(
        runs,
        rows,
        sentence,
        pictures | _of_tuning(where, told),
        about,
        data,
        missing=missing,
        overall=several,
        published=near,
        sections=told,
        methods=cited,
        links=links,
        views=views,
    ).encode()
    both = [*(f"figures/{name}.{suffix}" for name in plots.NAMES for suffix in SUFFIXES), "overall.csv"]
    put(where, files, stale=[name for name in both if name not in files])
    main = where / "figures" / f"{next(iter(made))}.png"
    paths = where / "report.md", where / "report.html", where / "table.csv", main, main.with_suffix(".pdf")
    return Report(sentence, table.rich(rows), *paths, runs, rows)


def _of_tuning(where: Path, told: Sequence[str]) -> dict[str, html.Picture]:
    """The figures that the words on tuning show, as they lie in the suite's folder."""
    names = {name for text in told for name in markup.images(text)}
    return {name: html.Picture((where / "figures" / f"{name}.png").read_bytes()) for name in sorted(names)}


def _manifest(where: Path, suite: str) -> dict[str, Any]:
    path = where / "suite.json"
    try:
        found = json.loads(opened(path.read_text(encoding="utf-8")))
        found["fingerprints"], found["suite"]["name"], found["suite"]["protocol"]
    except (FileNotFoundError, NotADirectoryError):
        raise _nothing(where.parent, suite) from None
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{path}: not readable as the list of a suite's runs; run `kdbench run {suite}` again"
        ) from None
    return dict(found)


def _nothing(results: Path, suite: str) -> UserError:
    return UserError(f"no results for '{suite}' in {results}; run `kdbench run {suite}`")


def _one_protocol(specs: list[dict[str, Any]], suite: dict[str, Any], name: str, mend: str = "") -> None:
    """Refuse to compare students of different protocols, data or (within a pair) teachers."""
    again = f"and cannot be compared; {mend or f'run `kdbench run {name}` again'}"
    for spec in specs:
        for what, first in (("protocol", suite["protocol"]), ("data", specs[0].get("data"))):
            if keys := _changed(first, spec.get(what)):
                raise UserError(f"the runs of '{name}' differ in {what} ({', '.join(keys)}) {again}")
    for pair in sorted({str(spec.get("pair")) for spec in specs}):
        teachers = {spec.get("teacher_fingerprint") for spec in specs if spec.get("pair") == pair}
        if len(teachers) > 1:
            raise UserError(f"the runs of '{name}' on {pair} have {len(teachers)} different teachers {again}")


def _changed(a: Any, b: Any) -> list[str]:
    """Keys whose values differ, as JSON sees them."""
    one, two = json.loads(json.dumps(a or {}, default=str)), json.loads(json.dumps(b or {}, default=str))
    return sorted(key for key in {*one, *two} if one.get(key) != two.get(key))


def _in_order(runs: pd.DataFrame, wanted: list[str]) -> pd.DataFrame:
    """As the suite lists them, so that its first method comes first."""
    place = {fingerprint: i for i, fingerprint in enumerate(wanted)}
    return runs.iloc[runs["fingerprint"].map(place).argsort(kind="stable")].reset_index(drop=True)


def _something_finished(runs: pd.DataFrame, suite: str) -> None:
    out = stats.unfinished(runs)
    if len(out) < len(runs):
        return
    counts = ", ".join(f"{n} {status}" for status, n in Counter(out["status"]).items())
    reasons = [str(reason) for reason in out["reason"] if reason]
    first = f"; first reason: {reasons[0]}" if reasons else ""
    raise UserError(f"no finished run of '{suite}' to report ({counts}{first}); run `kdbench run {suite}`")
