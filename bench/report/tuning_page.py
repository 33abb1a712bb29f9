"""What tuning.md, report.md and the terminal say of tuning. rows: `trials.budget`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pandas as pd
from rich.table import Table

from bench.report import table
from bench.report import text as t
from bench.report.blocks import Block, Column, Figure, Grid, Items, Page, Section, Text
from bench.report.provenance import environment
from bench.report.trials import TRIALS, TUNED, Study

FIGURES = {"tuning": "Best of the first k trials", "tuning-cost": "Accuracy against step time"}
ORDER = ("rule", "objective", "sampler", "pruner", "batch")
RULES = {
    "best_trial": "best_trial, the most accurate complete trial",
    "confirmed": "confirmed, the best mean of the best trials, trained again with further seeds",
}
TERMINAL = (
    "method",
    "trials",
    "student_steps",
    "recipe",
    "best",
    "gain",
    "chosen_trial",
    "chosen_confirmed",
    "confirmed_gain",
)
NOTES = """\
- **trials**: those on record, pruned and failed ones counted; each costs the **student-steps** and **seconds** it took.
- **recipe**: the published values, trial 0 of every study. **best**: the most accurate complete trial{gain}.
{confirmed}- All accuracies are top-1 of the last epoch on the validation split; the test split stays closed to tuning.
- The best of several trials is partly the luckiest: its value is optimistic, more so with more trials{so}.
  Whether tuning helped, the test split says once the suite has run with the chosen values."""
AGAIN = ", and so is the best of those trained again"
GAIN = """; a rule that
  looks at more than accuracy may choose another. **gain**: best over recipe, percentage points, of a single run each"""
CONFIRMED = """\
- **chosen trial**: that of the best mean over {n}, with which the best trials were trained again; it need not be the
  most accurate single run. **recipe again**, **chosen again**: their means over those seeds; a dash where the recipe
  was not trained again. **gain**: chosen over recipe, percentage points, with its single 95 % t interval where the
  runs by seed are on record. Their **steps again** come on top of the search's.
"""
CHOICE = (
    "The search ranks trials by a single run each; the best ones were trained again with {n}, and the "
    "one with the best mean was chosen, which need not be the best single run."
)


def page(
    folder: Path,
    rows: pd.DataFrame,
    trials: pd.DataFrame,
    studies: Sequence[Study],
    environments: pd.DataFrame,
    figures: Mapping[str, str],
) -> Page:
    """tuning.md of a suite's folder.

    trials: `trials.read`; studies: `trials.studies`; environments: one row per study; figures: captions, by
    name.
    """
    place = f"tuned/{folder.name}"
    linked = f"[{place}](../{quote(place)})" if (folder.parent / place).is_dir() else f"`{place}`"
    values = f"The chosen values lie in {linked}, a file per pair and method"
    use = f"{values}; `make bench SUITE={folder.name} TUNED=1` runs the suite with them."
    chosen = any(study.chosen for study in studies)
    shown = [Figure(name, FIGURES[name], caption) for name, caption in figures.items()]
    sections = [
        Section("", [*grids(rows), *_choice(rows), Text(use if chosen else "No values have been chosen yet.")]),
        Section("How to read it", [Text(_notes(rows)), *shown[1:]]),
        Section("How the values were chosen", [_items(_settings(studies), "Not recorded.")]),
        Section("Search spaces and values", _spaces(studies) or [Text("Not recorded.")]),
        Section("Files", [_items(_files(folder, studies), "Every study's trials are in `tuning/<study>/trials.csv`.")]),
        Section("Environment", environment(environments)),
        Section("Unfinished", [_items(_unfinished(trials, studies), "None.")]),
    ]
    about = f"On {t.joined([str(pair) for pair in rows['pair'].unique()])}, validation split alone."
    return Page(f"Tuning of {folder.name}", about, answer(rows).split("\n"), next(iter(shown), None), sections)


def section(rows: pd.DataFrame, figures: Mapping[str, str]) -> Section:
    """The part of a suite's report: budgets, and where the rest stands. figures: as for `page`."""
    more = (
        "Accuracies are of the validation split, and the best of several trials is partly the luckiest. "
        "[tuning.md](tuning.md) has the search spaces, the chosen values and how they were chosen."
    )
    answers = [Text(line, "strong") for line in answer(rows).split("\n")]
    shown = [Figure(name, FIGURES[name], caption) for name, caption in figures.items()]
    return Section(
        "Tuning", [*answers, *grids(rows), *_choice(rows), Text(more, links=True), *shown], "tuning", link="Tuning"
    )


def _further(rows: pd.DataFrame) -> str:
    """With how many seeds trials were trained again; empty where none was."""
    counts = [int(n) for n in rows["confirmed_n"].dropna() if n]
    return t.span(counts, "further seed") if counts else ""


def _choice(rows: pd.DataFrame) -> list[Block]:
    """Why the chosen trial may not be the best one."""
    return [Text(CHOICE.format(n=n))] if (n := _further(rows)) else []


def _notes(rows: pd.DataFrame) -> str:
    n = _further(rows)
    if not n:
        return NOTES.format(confirmed="", gain=GAIN, so="")
    return NOTES.format(confirmed=CONFIRMED.format(n=n), gain="", so=AGAIN)


def _items(lines: Sequence[str], otherwise: str) -> Block:
    return Items(lines) if lines else Text(otherwise)


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
    trials, steps, equality = _span(part, "trials"), _span(part, "student_steps"), budgets(part)
    had, n = f"{trials} trials and {steps} student-steps", len(part)
    if equality == "one method":
        return f"{part['method'].iloc[0]} had {had}; with one method there are no budgets to compare."
    if equality == "equal":
        return f"Equal budgets: each of the {n} methods had {had}."
    if equality == "equal in trials":
        ended = int(part["pruned"].sum() + part["failed"].sum())
        why = f"; {t.plural(ended, 'trial')} ended early" if ended else ""
        return f"Equal in trials, unequal in training: {trials} trials for each of the {n} methods, {steps} steps{why}."
    return f"Unequal budgets, so that gains do not compare: {had}."


def _span(part: pd.DataFrame, name: str) -> str:
    """'24', or '12 (kd) to 24 (dkd)'."""
    low, high = part.loc[part[name].idxmin()], part.loc[part[name].idxmax()]
    ends = [t.counted(row[name]) for row in (low, high)]
    return ends[0] if low[name] == high[name] else f"{ends[0]} ({low['method']}) to {ends[1]} ({high['method']})"


def grids(rows: pd.DataFrame) -> list[Grid]:
    """One table per pair, best method first. Counts of what never happened are left out."""
    again, percent = bool(rows["chosen_confirmed"].notna().any()), partial(t.number, places=2)
    writers: dict[str, tuple[str, Callable[[float], str]]] = {
        **{key: (key, t.counted) for key in ("trials", "pruned", "failed") if key == "trials" or rows[key].any()},
        "student_steps": ("student-steps", t.counted),
        "seconds": ("seconds", t.counted),
        **{which: (f"{which}{', one run' * again} (%)", percent) for which in ("recipe", "best")},
    }
    if again:
        writers["chosen_trial"] = ("chosen trial", lambda v: f"{v:.0f}{' (recipe)' * (v == 0)}" if v == v else t.NONE)
        writers |= {f"{which}_confirmed": (f"{which} again (%)", percent) for which in ("recipe", "chosen")}
    else:
        writers["gain"] = ("gain", lambda v: t.signed(v, 2))
    out = []
    for pair, part in rows.groupby("pair", sort=False):
        columns = {"method": Column("method", part["method"])}
        columns |= {k: Column(head, [write(float(v)) for v in part[k]]) for k, (head, write) in writers.items()}
        if again:
            columns["confirmed_gain"] = Column("gain [95 % CI]", [_gain(row) for _, row in part.iterrows()])
            columns["confirmation_steps"] = Column("steps again", [t.counted(v) for v in part["confirmation_steps"]])
        out.append(Grid(columns, str(pair) if rows["pair"].nunique() > 1 else ""))
    return out


def _gain(row: pd.Series[float]) -> str:
    """Of the chosen trial over the recipe, both trained again."""
    if row["chosen_trial"] == 0 or row["confirmed_gain"] != row["confirmed_gain"]:
        return t.NONE
    return t.difference(row["confirmed_gain"], row["confirmed_low"], row["confirmed_high"], int(row["confirmed_n"]), 2)


def rich(rows: pd.DataFrame) -> list[Table]:
    """The tables for the terminal."""
    caption = "top-1 on the validation split; recipe: trial 0"
    return [table.terminal(grid.chosen(TERMINAL), caption) for grid in grids(rows)]


def _settings(studies: Sequence[Study]) -> list[str]:
    """Rule, sampler and so on, once where all studies share them, else with those that have each."""
    settings = [{**dict.fromkeys(ORDER), **study.tune, "training seed": study.seed} for study in studies]
    settings = [{"search seed" if key == "seed" else key: value for key, value in one.items()} for one in settings]
    out = []
    for key in dict.fromkeys(key for one in settings for key in one if key != "trials"):
        by_value: dict[str, list[str]] = {}
        for study, one in zip(studies, settings, strict=True):
            text = t.setting(one.get(key))
            by_value.setdefault(RULES.get(text, text) if key == "rule" else text, []).append(study.method)
        shared = len(by_value) == 1
        texts = [text if shared else f"{text} ({', '.join(dict.fromkeys(who))})" for text, who in by_value.items()]
        out.append(f"{key}: {'; '.join(texts)}")
    return out


def _spaces(studies: Sequence[Study]) -> list[Grid]:
    """Every tuned hyper-parameter with its range, the recipe's value and the chosen one; a table per pair."""
    out = []
    pairs = list(dict.fromkeys(study.pair for study in studies))
    for pair in pairs:
        of = [(study, knob, space) for study in studies if study.pair == pair for knob, space in study.space.items()]
        columns = {
            "method": Column("method", [study.method for study, _, _ in of]),
            "knob": Column("hyper-parameter", [f"`{knob}`" for _, knob, _ in of], is_text=True),
            "range": Column("range", [space for _, _, space in of], is_text=True),
            "recipe": Column("recipe", [t.setting(study.recipe.get(knob)) for study, knob, _ in of]),
            "chosen": Column("chosen", [t.setting(study.chosen.get(knob)) for study, knob, _ in of]),
        }
        out.append(Grid(columns, pair if len(pairs) > 1 else ""))
    return out


def _files(folder: Path, studies: Sequence[Study]) -> list[str]:
    """Links to each study's chosen values, trials and figures."""
    out, many = [], len({study.pair for study in studies}) > 1
    for study in studies:
        paths = [study.folder / TUNED, study.folder / TRIALS, *sorted((study.folder / "figures").glob("*.png"))]
        links = [
            f"[{path.stem if path.suffix == '.png' else path.name}]({quote(path.relative_to(folder).as_posix())})"
            for path in paths
            if path.exists()
        ]
        out.append(f"{study.method}{f' on {study.pair}' * many}: {', '.join(links) or 'none yet'}")
    return out


def _unfinished(trials: pd.DataFrame, studies: Sequence[Study]) -> list[str]:
    """Studies that have not ended well, and the trials that failed, with their reasons."""
    out = [
        f"{study.method} on {study.pair}: {study.status}, {t.plural(study.recorded, 'trial')} on record"
        for study in studies
        if study.status != "finished"
    ]
    failed = trials[trials["state"] == "failed"]
    for (pair, method, reason), part in failed.groupby(["pair", "method", "reason"], sort=False):
        numbers = t.joined([str(number) for number in part["trial"]])
        word = "trial" if len(part) == 1 else "trials"
        out.append(f"{method} on {pair}, {word} {numbers}: failed ({reason or 'no reason recorded'})")
    return out
