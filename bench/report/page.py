"""report.md: the answer, the figure, the table, and all that a reader needs to judge them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from bench.report import columns, distance, overall, stats, table
from bench.report import html_parts as parts
from bench.report import text as t
from bench.report.notes import notes

TITLES = {
    "difference_kd": "Difference to kd",
    "difference": "Difference to {base}",
    "top1": "Accuracy",
    "matrix": "Every row against every other",
    "cost": "Accuracy and step time",
    "learning": "Learning curves",
    "fidelity": "Fidelity and accuracy",
    "calibration": "Calibration",
    "errors": "Errors of teacher and students",
    "reported": "Published and ours",
}
"""Of the figures."""


def page(
    frame: pd.DataFrame,
    rows: pd.DataFrame,
    sentence: str,
    images: Sequence[str],
    suite: Mapping[str, Any],
    data: Mapping[str, Any],
    missing: int = 0,
    tuning: Sequence[str] = (),
    several: pd.DataFrame | None = None,
    near: pd.DataFrame | None = None,
) -> str:
    """The report of one suite as Markdown.

    rows: `table.build`; images: the figures' names, the main one first; suite, data: as recorded; missing: runs that
    left no record yet; tuning: what is said of it where rows were tuned; several: `overall.build`, where there are
    several pairs; near: `distance.beside`.
    """
    base = str(rows["baseline"].iloc[0])
    compared = rows["difference_n"].fillna(0).gt(0).any()
    main, *others = [f"![{TITLES[name].format(base=base)}](figures/{name}.png)" for name in images]
    parts = [
        f"# {suite['name']}" + (f"\n\n{suite['about']}" if suite.get("about") else ""),
        "\n\n".join(f"**{line}**" for line in sentence.split("\n")),
        main,
        overall.markdown(several, rows).strip() if several is not None else "",
        table.markdown(rows).strip(),
        _baseline(base) if compared else f"The table has no differences: no finished run can be compared with {base}.",
        "## What the columns mean\n\n" + "\n".join(f"- **{name}**: {what}" for name, what in columns.meanings(rows)),
        "## How to read it\n\n" + "\n".join(f"- {line}" for line in notes(frame, rows)),
        *tuning,
        "\n\n".join(["## Figures", *others]) if others else "",
        _published(near, suite["protocol"], data, list(rows["pair"].unique())),
        f"## Protocol\n\n{_settings(suite['protocol'])}",
        f"## Data\n\n{_settings(data)}",
        "## Teacher\n\n" + "\n".join(teachers(frame)),
        "## Methods\n\n" + "\n".join(recipes(frame)),
        "## Environment\n\n" + "\n".join(environment(frame)),
        "## Unfinished runs\n\n" + "\n".join(left_out(frame, missing, suite.get("left_out") or ())),
        "## Runs\n\n" + "\n".join(_runs(frame)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _published(
    near: pd.DataFrame | None, protocol: Mapping[str, Any], data: Mapping[str, Any], pairs: list[str]
) -> str:
    """What others report of these rows, each number with its choice of epoch and its source."""
    if near is None or near.empty:
        return ""
    head = ["method", "pair", "published (%)", "choice of epoch", "ours (%)", "− published", "protocol", "source"]
    cells = parts.published(near)
    keys = ("label", "pair", "reported", "selection", "ours", "distance", "protocol", "source")
    lines = t.table_of(head, [[cell[key] or "not known" for key in keys] for cell in cells], right=3)
    return f"## What others published\n\n{distance.remark(protocol, data, pairs)}\n\n{lines}"


def _runs(frame: pd.DataFrame) -> list[str]:
    """The fingerprints of every row, by which its runs are repeated."""
    out = ["`kdbench rerun FINGERPRINT` repeats a run and says whether its numbers agree.", ""]
    many = frame["pair"].nunique() > 1
    for (pair, label), runs in frame.groupby(["pair", "label"], sort=False):
        each = ", ".join(f"seed {row.seed} `{row.fingerprint}`" for row in runs.itertuples())
        out.append(f"- {label}{f' on {pair}' if many else ''}: {each}")
    return out


def teachers(frame: pd.DataFrame) -> list[str]:
    """Test accuracy of the teacher of each pair."""
    name, out = "test/teacher_top1", []
    for pair, runs in stats.usable(frame).groupby("pair", sort=False):
        known = runs[name].dropna() if name in runs else pd.Series(dtype=float)
        level = f"{known.mean():.2f} % top-1 on test" if len(known) else "accuracy not recorded"
        out.append(f"- {str(pair).partition('->')[0]} of {pair}: {level}; the same for all rows and seeds")
    return out


def recipes(frame: pd.DataFrame) -> list[str]:
    """The hyper-parameters of each row."""
    out = []
    for label, runs in frame.groupby("label", sort=False):
        named = [f"recipe {name}" for name in _values(runs, "recipe")]
        values = [f"`{text}`" for text in _values(runs, "hp") if text != "{}"]
        out.append(f"- {label}: {'; '.join([*named, *values]) or 'no settings'}")
    return out


def environment(frame: pd.DataFrame) -> list[str]:
    """Where the numbers were made; more than one value means that machines or versions were mixed."""
    out = [f"- commit: {commits(frame)}"]
    for name in ("kdbench", "torch", "device", "cuda", "cudnn", "driver", "cpu", "cpu_capability", "threads"):
        values = _values(frame, name)
        out += [f"- {name}: {', '.join(values)}"] if values else []
    if any(len(_values(frame, name)) > 1 for name in ("device", "driver", "cpu", "cpu_capability", "threads")):
        out.append(
            "- Hardware or thread counts differ between runs: a step-time ratio holds only where a seed ran on one."
        )
    return out


def commits(frame: pd.DataFrame) -> str:
    """'0123456789ab', '… with uncommitted changes', several with commas."""
    pairs = frame.reindex(columns=["commit", "dirty"]).astype(object).drop_duplicates().itertuples(index=False)
    known = [(commit[:12], dirty) for commit, dirty in pairs if isinstance(commit, str) and commit]
    texts = [f"{commit}{' with uncommitted changes' if dirty in (True, 'True') else ''}" for commit, dirty in known]
    return ", ".join(texts) or "unknown"


def left_out(frame: pd.DataFrame, missing: int = 0, unfit: Sequence[Sequence[str]] = ()) -> list[str]:
    """The runs that no number here contains, with their reasons. unfit: row, pair and reason of what was never run."""
    out = [
        f"- {r['label']} on {r['pair']}, seed {r['seed']}: {r['status']} ({r['reason'] or 'no reason recorded'})"
        for r in stats.unfinished(frame).to_dict("records")
    ]
    out += [f"- {row} on {pair}: left out ({reason})" for row, pair, reason in unfit]
    return [*out, *([f"- not started: {t.plural(missing, 'run')}"] if missing else [])] or ["None."]


def _baseline(name: str) -> str:
    why = {"vanilla": "", "kd": " (vanilla has no finished run here)"}
    return f"Baseline: {name}{why.get(name, ' (neither vanilla nor kd has a finished run of that name here)')}."


def _values(frame: pd.DataFrame, name: str) -> list[str]:
    return sorted({str(v) for v in frame[name].dropna() if str(v)}) if name in frame else []


def _settings(values: Mapping[str, Any]) -> str:
    return (
        "\n".join(f"- {key}: {v if isinstance(v, str) else json.dumps(v)}" for key, v in values.items())
        or "Not recorded."
    )
