"""What report.html shows below its table, as plain data for the template."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from bench.report import stats
from bench.report import text as t


def runs(frame: pd.DataFrame, rows: pd.DataFrame, links: Mapping[str, str]) -> list[dict[str, Any]]:
    """Per row of the tables, in their order, its runs: seed, top-1, status, fingerprint, address."""
    out = []
    for i, (pair, label) in zip(rows.index, rows[["pair", "label"]].itertuples(index=False), strict=True):
        own = frame[(frame["pair"] == pair) & (frame["label"] == label)].sort_values("seed", kind="stable")
        runs = [
            {
                "seed": run["seed"],
                "top1": t.number(_number(run.get(stats.TOP1)), 2) if run["status"] == "finished" else t.NONE,
                "status": run["status"],
                "fingerprint": str(run["fingerprint"]),
                "link": links.get(str(run["fingerprint"])),
            }
            for run in own.to_dict("records")
        ]
        out.append({"id": f"row-{i}", "pair": str(pair), "label": str(label), "runs": runs})
    return out


def budgets(frame: pd.DataFrame, rows: pd.DataFrame) -> list[str]:
    """How long every row trained, and who had its hyper-parameters tuned with how many trials."""
    out = [f"Every run trains {t.joined(_distinct(frame, 'epochs'))} epochs."] if _distinct(frame, "epochs") else []
    if (name := "cost/epochs_before") in frame:
        before = frame.loc[frame[name].fillna(0) > 0].drop_duplicates("label")
        each = [f"{label} {epochs:g}" for label, epochs in before[["label", name]].itertuples(index=False)]
        out += [f"Epochs before the first, on a loss of their own: {t.joined(each)}."] if each else []
    tuned = rows.loc[rows["values"] != "recipe"].drop_duplicates("label")
    each = [
        f"{row.label} ({str(row.values).removeprefix('tuned, ')})" for row in tuned[["label", "values"]].itertuples()
    ]
    others = "; every other row runs its published recipe" if rows["values"].eq("recipe").any() else ""
    return [
        *out,
        f"Tuned: {t.joined(each)}{others}." if each else "Nothing was tuned: every row runs a published recipe.",
    ]


def methods(frame: pd.DataFrame, known: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each method of the suite: its paper, its rows with their settings, and its deviations."""
    out = []
    for name, runs in frame.groupby("method", sort=False):
        about = {key: value for key, value in known.get(str(name), {}).items() if value not in ("-", "", 0)}
        paper = ", ".join(str(about[key]) for key in ("authors", "venue", "year") if key in about)
        shown = {key: about.get(key, "") for key in ("title", "url", "code")}
        shown["code"] = "" if shown["code"].startswith("(") else shown["code"]  # "(none public)"
        rows = [_row(str(label), own) for label, own in runs.groupby("label", sort=False)]
        deviations = list(about.get("deviations") or ())
        out.append({"name": str(name), "paper": paper, **shown, "rows": rows, "deviations": deviations})
    return out


def _row(label: str, runs: pd.DataFrame) -> dict[str, Any]:
    """A row of the table: its recipe, or that it was tuned; and its hyper-parameters, as many settings as there are."""
    tuned = runs["tuned"].eq(True).any() if "tuned" in runs else False
    values = "Tuned values" if tuned else f"Recipe: {t.joined(_distinct(runs, 'recipe')) or 'not recorded'}"
    settings = []
    for text in _distinct(runs, "hp"):
        found = json.loads(text)
        settings += [", ".join(f"{key} = {_setting(value)}" for key, value in found.items())] if found else []
    return {"label": label, "origin": values, "settings": settings}


def _distinct(frame: pd.DataFrame, name: str) -> list[str]:
    return list(dict.fromkeys(str(v) for v in frame[name].dropna())) if name in frame else []


def published(rows: pd.DataFrame | None) -> list[dict[str, str]]:
    """Cells of the table of published numbers. rows: of `distance.beside`."""
    out = []
    for row in [] if rows is None else rows.to_dict("records"):
        gap, half = _number(row["distance"]), _number(row["half"])
        spread = f" ± {t.number(half, 2)}" if math.isfinite(half) else ""
        out.append(
            {
                **{key: str(row[key] or "") for key in ("pair", "label", "selection", "protocol", "source", "note")},
                "reported": t.number(row["reported"], 2),
                "ours": t.number(_number(row["ours"]), 2),
                "distance": t.signed(gap, 2) + spread if math.isfinite(gap) else t.NONE,
            }
        )
    return out


def settings(values: Mapping[str, Any]) -> dict[str, str]:
    return {str(key): _setting(value) for key, value in values.items()}


def _setting(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_setting, value)) or t.NONE
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_setting(own)}" for key, own in value.items()) or t.NONE
    return value if isinstance(value, str) else json.dumps(value, default=str)


def plain(lines: Iterable[str]) -> list[str]:
    """Lines of a Markdown list without their dashes."""
    return [line.removeprefix("- ") for line in lines]


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
