"""report.html: the whole report in one file that opens from disk, with its figures inside it and nothing fetched."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from bench.report import columns, distance, markup
from bench.report import html_parts as parts
from bench.report import overall as overalls
from bench.report import page as pages
from bench.report import text as t
from bench.report.picture import Embedded, Picture, embedded, picture

__all__ = ["Picture", "page", "picture"]

KEYED = re.compile(r"[a-z]+: ")  # a line of the environment that names one thing
MANY = 12  # runs; a longer list is folded


def page(
    frame: pd.DataFrame,
    rows: pd.DataFrame,
    sentence: str,
    figures: Mapping[str, Picture],
    suite: Mapping[str, Any],
    data: Mapping[str, Any],
    *,
    missing: int = 0,
    overall: pd.DataFrame | None = None,
    published: pd.DataFrame | None = None,
    sections: Sequence[str] = (),
    methods: Mapping[str, Mapping[str, Any]] | None = None,
    links: Mapping[str, str] | None = None,
    views: Mapping[str, str] | None = None,
) -> str:
    """The report of one suite as HTML.

    frame, rows, sentence, suite, data, missing: as for `page.page`; figures: name -> `picture`, the main one first;
    overall: `overall.build`, where there are several pairs; published: `distance.beside`; sections: Markdown of tuning,
    whose images are figures by name; methods: name -> title, authors, venue, year, url, code, deviations, any of which
    may be missing; links: fingerprint -> address of the run in MLflow; views: words -> address of a view of all runs.
    Raises `ValueError` for a picture that is no PNG.
    """
    base = str(rows["baseline"].iloc[0])
    drawn = {name: embedded(name, _title(name, base), found) for name, found in figures.items()}
    inside = {name for text in sections for name in markup.images(text)}
    tables = _tables(rows)
    made = parts.plain(pages.environment(frame))
    rest: list[Embedded] = [figure for name, figure in drawn.items() if name not in inside]
    context: dict[str, Any] = {
        "name": suite["name"],
        "about": suite.get("about") or "",
        "answers": [_opened(line) for line in sentence.split("\n")],
        "facts": _facts(frame, rows),
        "views": views or {},
        "main": rest[0] if rest else None,
        "figures": rest[1:],
        "overall": overalls.grid(overall, rows) if overall is not None else None,
        "tables": tables,
        "captions": list(dict.fromkeys(line for table in tables for line in table["grid"].captions)),
        "many_pairs": rows["pair"].nunique() > 1,
        "compared": bool(rows["difference_n"].fillna(0).gt(0).any()),
        "base": base,
        "meanings": columns.meanings(rows),
        "notes": [markup.arrow(line) for line in pages.notes(frame, rows)],
        "sections": [markup.section(text, drawn) for text in sections],
        "published": parts.published(published),
        "why": distance.remark(suite["protocol"], data, rows["pair"].unique()),
        "protocol": parts.settings(suite["protocol"]),
        "data": parts.settings(data),
        "teachers": [markup.arrow(line) for line in parts.plain(pages.teachers(frame))],
        "budgets": parts.budgets(frame, rows),
        "methods": parts.methods(frame, methods or {}),
        "environment": dict(line.split(": ", 1) for line in made if KEYED.match(line)),
        "remarks": [line for line in made if not KEYED.match(line)],
        "left_out": [
            markup.arrow(line) for line in parts.plain(pages.left_out(frame, missing, suite.get("left_out") or ()))
        ],
        "runs": parts.runs(frame, rows, links or {}),
        "folded": len(frame) > MANY,
        "linked": bool(links),
        "command": f"kdbench run {suite['name']}",
    }
    return markup.environment().get_template("report.html.j2").render(context)


def _opened(sentence: str) -> str:
    """With a capital, unless it begins with the name of a row or a pair."""
    return sentence[:1].upper() + sentence[1:] if re.match(r"(no|one) ", sentence) else sentence


def _title(name: str, base: str) -> str:
    return pages.TITLES.get(name, name.replace("_", " ").replace("-", " ").capitalize()).format(base=base)


def _tables(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """One per pair: its grid, and where the runs of each row are listed."""
    return [
        {"grid": columns.grid(part), "anchors": [f"row-{i}" for i in part.index]}
        for _, part in rows.groupby("pair", sort=False)
    ]


def _facts(frame: pd.DataFrame, rows: pd.DataFrame) -> list[str]:
    """What the first screen says of where the numbers come from."""
    low, high = int(rows["n"].min()), int(rows["n"].max())
    seeds = t.plural(high, "seed") if low == high else f"{low} to {high} seeds"
    hardware = sorted({str(v) for v in frame["hardware"].dropna()}) if "hardware" in frame else []
    pairs = [markup.arrow(pair) for pair in rows["pair"].unique()]
    known = [pairs[0] if len(pairs) == 1 else f"{len(pairs)} pairs", f"{seeds} per row", *hardware]
    return [*known, f"commit {pages.commits(frame)}"]
