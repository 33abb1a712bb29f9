"""What tuning.md, report.md and the terminal say of tuning, as text. rows: `trials.budget`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from bench.report import page as pages
from bench.report import text as t
from bench.report.trials import TRIALS, TUNED, Study

FIGURES = {
    "tuning": "![Best of the first k trials](figures/tuning.png)",
    "tuning-cost": "![Accuracy against step time](figures/tuning-cost.png)",
}
ORDER = ("rule", "objective", "sampler", "pruner", "batch")
RULES = {
    "best_trial": "best_trial, the most accurate complete trial",
    "confirmed": "confirmed, the best mean of the best trials, trained again with further seeds (not counted here)",
}
TERMINAL = ("method", "trials", "student_steps", "recipe", "best", "gain")
NOTES = """\
- **trials**: those told, pruned and failed ones counted; each costs the **student-steps** and **seconds** that it took.
- **recipe**: the published values, trial 0 of every study. **best**: the most accurate complete trial; a rule that
  looks at more than accuracy may choose another. **gain**: best over recipe, percentage points.
- All accuracies are top-1 of the last epoch on the validation split; the test split stays closed to tuning.
- The best of several trials is partly the luckiest: its value is optimistic, the more so the more trials there were.
  Whether tuning helped, the test split says once the suite has run with the chosen values."""


def page(
    where: Path,
    rows: pd.DataFrame,
    told: pd.DataFrame,
    known: Sequence[Study],
    environment: pd.DataFrame,
    drawn: Sequence[str],
) -> str:
    """tuning.md of the suite whose folder is `where`. told: `trials.read`; known: `trials.studies`; drawn: figures."""
    values = f"The chosen values lie in [tuned/{where.name}](../tuned/{quote(where.name)}), a file per pair and method"
    use = f"{values}; `make bench SUITE={where.name} TUNED=1` runs the suite with them."
    chosen = [study for study in known if study.chosen]
    parts = [
        f"# Tuning of {where.name}",
        f"On {t.joined([str(pair) for pair in rows['pair'].unique()])}, validation split alone.",
        _bold(answer(rows)),
        *(FIGURES[name] for name in drawn[:1]),
        markdown(rows),
        use if chosen else "No values have been chosen yet.",
        f"## How to read it\n\n{NOTES}",
        *(FIGURES[name] for name in drawn[1:]),
        "## How the values were chosen\n\n" + "\n".join(_settings(known) or ["Not recorded."]),
        "## Search spaces and values\n\n" + (_spaces(known) or "Not recorded."),
        "## Files\n\n" + "\n".join(_files(where, told, known)),
        "## Environment\n\n" + "\n".join(pages.environment(environment)),
        "## Unfinished\n\n" + "\n".join(_unfinished(told, known) or ["None."]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def section(rows: pd.DataFrame, drawn: Sequence[str]) -> str:
    """The part of report.md: budgets, and where the rest stands."""
    more = (
        "Accuracies are of the validation split, and the best of several trials is partly the luckiest. "
        "[tuning.md](tuning.md) has the search spaces, the chosen values and how they were chosen."
    )
    parts = ["## Tuning", _bold(answer(rows)), markdown(rows), more, *(FIGURES[name] for name in drawn)]
    return "\n\n".join(parts)


def answer(rows: pd.DataFrame) -> str:
    """Whether all methods of a pair had the same trials and student-steps; one sentence, or a line per pair."""
    lines = {str(pair): _compared(part) for pair, part in rows.groupby("pair", sort=False)}
    if len(set(lines.values())) == 1:
        return next(iter(lines.values()))
    return "\n".join(f"{pair}: {line}" for pair, line in lines.items())


def budgets(part: pd.DataFrame) -> str:
    """How the budgets of one pair compare: "equal", "equal in trials" alone, "unequal", or "one method"."""
    if len(part) == 1:
        return "one method"
    if part["trials"].nunique() > 1:
        return "unequal"
    return "equal in trials" if part["student_steps"].nunique() > 1 else "equal"


def _compared(part: pd.DataFrame) -> str:
    trials, steps, told = _span(part, "trials"), _span(part, "student_steps"), budgets(part)
    had, n = f"{trials} trials and {steps} student-steps", len(part)
    if told == "one method":
        return f"{part['method'].iloc[0]} had {had}; with one method there are no budgets to compare."
    if told == "equal":
        return f"Equal budgets: each of the {n} methods had {had}."
    if told == "equal in trials":
        ended = int(part["pruned"].sum() + part["failed"].sum())
        why = f"; {t.plural(ended, 'trial')} ended early" if ended else ""
        return f"Equal in trials, unequal in training: {trials} trials for each of the {n} methods, {steps} steps{why}."
    return f"Unequal budgets, so that gains do not compare: {had}."


def _span(part: pd.DataFrame, name: str) -> str:
    """'24', or '12 (kd) to 24 (dkd)'."""
    low, high = part.loc[part[name].idxmin()], part.loc[part[name].idxmax()]
    ends = [t.counted(row[name]) for row in (low, high)]
    return ends[0] if low[name] == high[name] else f"{ends[0]} ({low['method']}) to {ends[1]} ({high['method']})"


def _cells(rows: pd.DataFrame) -> dict[str, tuple[str, list[str]]]:
    """The table as text: key -> (heading, one cell per row). Counts of what never happened are left out."""
    plain: dict[str, tuple[str, Callable[[float], str]]] = {
        **{key: (key, t.counted) for key in ("trials", "pruned", "failed") if key == "trials" or rows[key].any()},
        "student_steps": ("student-steps", t.counted),
        "seconds": ("seconds", t.counted),
        "recipe": ("recipe (%)", lambda v: t.number(v, 2)),
        "best": ("best (%)", lambda v: t.number(v, 2)),
        "gain": ("gain", lambda v: t.signed(v, 2)),
    }
    numbers = {key: (heading, [text(float(v)) for v in rows[key]]) for key, (heading, text) in plain.items()}
    return {"method": ("method", [str(name) for name in rows["method"]]), **numbers}


def markdown(rows: pd.DataFrame) -> str:
    """One table per pair, best method first."""
    parts = []
    for pair, part in rows.groupby("pair", sort=False):
        cells = _cells(part)
        lines = zip(*(column for _, column in cells.values()), strict=True)
        title = f"**{pair}**\n\n" if rows["pair"].nunique() > 1 else ""
        parts.append(title + t.table_of([heading for heading, _ in cells.values()], lines, right=len(cells) - 1))
    return "\n\n".join(parts)


def rich(rows: pd.DataFrame) -> Table:
    """The table for the terminal: a block per pair, best method first."""
    cells, many = _cells(rows), rows["pair"].nunique() > 1
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, caption_justify="left")
    made.caption = Text("top-1 on the validation split; recipe: trial 0")
    for key in TERMINAL:
        made.add_column(cells[key][0], justify="left" if key == "method" else "right", no_wrap=True)
    for i, pair in enumerate(rows["pair"]):
        if many and (i == 0 or pair != rows["pair"].iloc[i - 1]):
            made.add_section()
            made.add_row(Text(str(pair), style="bold"))
        made.add_row(*(Text(cells[key][1][i]) for key in TERMINAL))
    return made


def _settings(known: Sequence[Study]) -> list[str]:
    """Rule, sampler and so on, once where all studies share them, else with those that have each."""
    said = [{**dict.fromkeys(ORDER), **study.tune, "training seed": study.seed} for study in known]
    said = [{"search seed" if key == "seed" else key: value for key, value in one.items()} for one in said]
    out = []
    for key in dict.fromkeys(key for settings in said for key in settings if key != "trials"):
        by_value: dict[str, list[str]] = {}
        for study, settings in zip(known, said, strict=True):
            text = _plain(settings.get(key))
            by_value.setdefault(RULES.get(text, text) if key == "rule" else text, []).append(study.method)
        one = len(by_value) == 1
        texts = [text if one else f"{text} ({', '.join(dict.fromkeys(who))})" for text, who in by_value.items()]
        out.append(f"- {key}: {'; '.join(texts)}")
    return out


def _spaces(known: Sequence[Study]) -> str:
    """Every tuned hyper-parameter with its range, the recipe's value and the chosen one; a table per pair."""
    parts = []
    pairs = list(dict.fromkeys(study.pair for study in known))
    for pair in pairs:
        lines = [
            (study.method, f"`{knob}`", space, _plain(study.recipe.get(knob)), _plain(study.chosen.get(knob)))
            for study in known
            if study.pair == pair
            for knob, space in study.space.items()
        ]
        title = f"**{pair}**\n\n" if len(pairs) > 1 else ""
        parts.append(title + t.table_of(("method", "hyper-parameter", "range", "recipe", "chosen"), lines, right=2))
    return "\n\n".join(parts)


def _files(where: Path, told: pd.DataFrame, known: Sequence[Study]) -> list[str]:
    """Links to each study's chosen values, trials and figures."""
    out, many = [], told["pair"].nunique() > 1
    for study in known:
        paths = [study.folder / TUNED, study.folder / TRIALS, *sorted((study.folder / "figures").glob("*.png"))]
        links = [
            f"[{path.stem if path.suffix == '.png' else path.name}]({quote(path.relative_to(where).as_posix())})"
            for path in paths
            if path.exists()
        ]
        out.append(f"- {study.method}{f' on {study.pair}' if many else ''}: {', '.join(links) or 'none yet'}")
    return out or ["Every study's trials are in `tuning/<study>/trials.csv`."]


def _unfinished(told: pd.DataFrame, known: Sequence[Study]) -> list[str]:
    """Studies that have not ended well, and the trials that failed, with their reasons."""
    out = [
        f"- {study.method} on {study.pair}: {study.status}, {t.plural(study.recorded, 'trial')} on record"
        for study in known
        if study.status != "finished"
    ]
    failed = told[told["state"] == "failed"]
    for (pair, method, reason), part in failed.groupby(["pair", "method", "reason"], sort=False):
        numbers = t.joined([str(number) for number in part["trial"]])
        word = "trial" if len(part) == 1 else "trials"
        out.append(f"- {method} on {pair}, {word} {numbers}: failed ({reason or 'no reason recorded'})")
    return out


def _plain(value: Any) -> str:
    if value is None:
        return t.NONE
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _bold(text: str) -> str:
    return "\n\n".join(f"**{line}**" for line in text.split("\n"))
