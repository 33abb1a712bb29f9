"""What report.md and report.html say of a suite, section by section."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from bench.report import columns, design, distance, overall, stats
from bench.report import text as t
from bench.report.blocks import Block, Column, Figure, Grid, Items, Page, Section, Terms, Text
from bench.report.notes import notes
from bench.report.provenance import commits, distinct, environment
from bench.report.source import Source

TITLES = {
    "difference_kd": "Difference to {reference}",
    "difference": "Difference to {baseline}",
    "top1": "Accuracy",
    "gain": "Tuned against recipe",
    "matrix": "Every row against every other",
    "cost": "Accuracy and cost of training",
    "learning": "Learning curves",
    "fidelity": "Fidelity and accuracy",
    "calibration": "Calibration",
    "errors": "Errors of teacher and students",
    "reported": "Published and ours",
}
"""Of the figures."""

FOLDED = 12  # runs; a longer list is folded
INTRODUCTION = "The settings of each row; then where paper, reference code and this implementation differ."


def report(
    source: Source,
    rows: pd.DataFrame,
    answer: str,
    figures: Mapping[str, str],
    *,
    across_pairs: pd.DataFrame | None = None,
    published: pd.DataFrame | None = None,
    tuning: Sequence[Section] = (),
) -> Page:
    """The report of one suite.

    rows: `table.build`; answer: a line per pair; figures: captions by name, the main one first; across_pairs:
    `overall.build`, where there are several pairs; published: `distance.beside`; tuning: what is said of it where rows
    were tuned.
    """
    runs, suite = source.runs, source.suite
    named = {key: str(rows[key].iloc[0]) for key in ("baseline", "reference")}
    shown = [Figure(name, TITLES.get(name, name).format(**named), text) for name, text in figures.items()]
    main, others = next(iter(shown), None), shown[1:]
    sections = [
        _tables(runs, rows, across_pairs),
        Section("What the columns mean", [Terms(columns.meanings(rows), "meanings")], "columns"),
        Section("How to read it", [Items(notes(runs, rows, suite))], "reading"),
        *tuning,
        *design.sections(suite, source.decisions),
        *[Section("Figures", others, "figures", link="Figures", style="figures")] * bool(others),
        *_published(published, source, rows),
        Section("Protocol", [_settings(suite["protocol"])], "protocol", link="Protocol"),
        Section("Data", [_settings(source.data)], "data"),
        Section("Teacher", [Items(_of_teachers(runs))], "teacher"),
        Section("Budgets", [Items(budgets(runs, rows))], "budgets"),
        Section("Methods", _methods(runs, source.methods), "methods", link="Methods"),
        Section("Environment", environment(runs), "environment", link="Environment"),
        Section("Unfinished runs", [_unfinished(source)], "unfinished"),
        Section("Runs", _runs(source, rows), "runs", link="Runs"),
    ]
    facts = [*_facts(runs, rows), f"intervals {design.briefly(suite)}"]
    return Page(suite["name"], suite.get("about") or "", answer.split("\n"), main, sections, facts)


def _facts(runs: pd.DataFrame, rows: pd.DataFrame) -> list[str]:
    """What the first screen says of where the numbers come from."""
    low, high, pairs = int(rows["n"].min()), int(rows["n"].max()), [str(pair) for pair in rows["pair"].unique()]
    seeds = t.plural(high, "seed") if low == high else f"{low} to {high} seeds"
    what = [pairs[0] if len(pairs) == 1 else f"{len(pairs)} pairs", f"{seeds} per row"]
    return [*what, *distinct(runs, "hardware"), f"commit {commits(runs)}"]


def _tables(runs: pd.DataFrame, rows: pd.DataFrame, across_pairs: pd.DataFrame | None) -> Section:
    """All pairs, where there are several; each pair, its rows linked with their runs; and what marks mean."""
    teachers = _teachers(runs)
    grids = []
    for pair, part in rows.groupby("pair", sort=False):
        grid = columns.grid(part, title=str(pair) if across_pairs is not None else "")
        linked = replace(grid.columns["label"], links=[f"#row-{i}" for i in part.index])
        places = t.decimals(part["top1_half"])
        grids.append(
            _with_teacher(replace(grid, columns={**grid.columns, "label": linked}), teachers[str(pair)], places)
        )
    first: list[Block] = []
    if across_pairs is not None:
        whole = overall.grid(across_pairs, rows)
        first = [whole, Text(whole.captions[0], "caption")]
    captions = dict.fromkeys(caption for grid in grids for caption in grid.captions)
    baseline, n = rows["baseline"].iloc[0], rows["difference_n"].fillna(0)
    why = {"vanilla": "", "kd": " (vanilla has no finished run here)"}
    last = f"Baseline: {baseline}{why.get(baseline, ' (neither vanilla nor kd has a finished run of that name here)')}."
    none = f"The table has no differences: no finished run can be compared with {baseline}."
    texts = [*captions, last if n.gt(0).any() else none]
    return Section("", [*first, *grids, *(Text(text, "caption") for text in texts)], "table", link="Table")


def _published(published: pd.DataFrame | None, source: Source, rows: pd.DataFrame) -> list[Section]:
    """What others report of these rows, each number with its choice of epoch and its source."""
    if published is None or published.empty:
        return []
    gaps = published[["distance", "half"]].astype(float).itertuples(index=False)
    sources = zip(published["source"], published["note"].fillna(""), strict=True)
    pairs = rows["pair"].unique()
    cells = {
        "label": Column("method", published["label"]),
        **({"pair": Column("pair", published["pair"], is_text=True)} if len(pairs) > 1 else {}),
        "reported": Column("published (%)", [t.number(top1, 2) for top1 in published["reported"]]),
        "selection": Column("choice of epoch", published["selection"], is_text=True),
        "ours": Column("ours (%)", [t.number(top1, 2) for top1 in published["ours"].astype(float)]),
        "distance": Column("− published", [t.spread(gap, half, 2) for gap, half in gaps]),
        "protocol": Column("protocol", published["protocol"].replace("", "not known"), is_text=True),
        "source": Column("source", ["; ".join(filter(None, both)) for both in sources], is_text=True),
    }
    remark = Text(distance.remark(source.suite["protocol"], source.data, pairs))
    return [Section("What others published", [remark, Grid(cells)], "published", link="Published numbers")]


def _settings(values: Mapping[str, Any]) -> Block:
    return Terms({key: t.setting(value) for key, value in values.items()}) if values else Text("Not recorded.")


def _teachers(runs: pd.DataFrame) -> dict[str, pd.Series[float]]:
    """By pair, the test top-1 (%) of the teacher of each seed, as far as it is known."""
    known = runs.get("test/teacher_top1", pd.Series(float("nan"), runs.index)).astype(float)
    finished = runs.assign(top1=known)[runs["status"].eq("finished")]
    return {
        str(pair): finished[finished["pair"] == pair].drop_duplicates("seed")["top1"].dropna()
        for pair in runs["pair"].unique()
    }


def _with_teacher(grid: Grid, top1: pd.Series[float], places: int) -> Grid:
    """With a last row of what the teacher reaches, the mean where a seed has its own; none where it is not known."""
    if top1.empty:
        return grid
    own = {"label": "teacher", "top1": t.number(top1.mean(), places)}
    columns = {key: replace(each, cells=[*each.cells, own.get(key, t.NONE)]) for key, each in grid.columns.items()}
    columns["top1"] = replace(columns["top1"], values=[*columns["top1"].values, float(top1.mean())])
    return replace(grid, columns=columns)


def _of_teachers(runs: pd.DataFrame) -> list[str]:
    """Test accuracy of the teacher of each pair, or of its teachers."""
    out, known = [], _teachers(runs)
    for pair, part in stats.usable(runs).groupby("pair", sort=False):
        top1 = known[str(pair)]
        level = f"{top1.mean():.2f} % top-1 on test" if len(top1) else "accuracy not recorded"
        same = "the same for all rows and seeds"
        if (n := len(distinct(part, "teacher_fingerprint"))) > 1:
            spread = f" ({top1.min():.2f} to {top1.max():.2f} %)" if len(top1) else ""
            level, same = f"{level}, mean of {n} teachers{spread}", "a teacher for each seed, the same for all rows"
        alone = part.loc[part["method"] == "vanilla", "test/top1"].mean()
        weak = f"; the student alone has {alone:.2f} %, there is little to learn from it" if top1.mean() < alone else ""
        out.append(f"{str(pair).rpartition('->')[0].rpartition('->')[2]} of {pair}: {level}; {same}{weak}")
    return out


def budgets(runs: pd.DataFrame, rows: pd.DataFrame) -> list[str]:
    """How long every row trained, and who had its hyper-parameters tuned with how many trials."""
    epochs = list(dict.fromkeys(str(n) for n in runs["epochs"].dropna())) if "epochs" in runs else []
    out = [f"Every run trains {t.joined(epochs)} epochs."] if epochs else []
    if (name := "cost/epochs_before") in runs:
        before = runs.loc[runs[name].fillna(0) > 0].drop_duplicates("label")
        each = [f"{label} {n:g}" for label, n in before[["label", name]].itertuples(index=False)]
        out += [f"Epochs before the first, on a loss of their own: {t.joined(each)}."] if each else []
    tuned = rows.loc[rows["values"] != "recipe", ["label", "values"]].drop_duplicates("label")
    each = [f"{label} ({values.removeprefix('tuned, ')})" for label, values in tuned.itertuples(index=False)]
    others = "; every other row runs its published recipe" if rows["values"].eq("recipe").any() else ""
    nothing = "Nothing was tuned: every row runs a published recipe."
    return [*out, f"Tuned: {t.joined(each)}{others}." if each else nothing]


def _methods(runs: pd.DataFrame, methods: Mapping[str, Mapping[str, Any]]) -> list[Block]:
    """The settings of each row; on the HTML page by method, with its paper and deviations."""
    lines: list[str] = []
    parts: list[Block] = [Text(INTRODUCTION, "soft", medium="html")]
    for name, own in runs.groupby("method", sort=False):
        rows = [_row(str(label), of_row) for label, of_row in own.groupby("label", sort=False)]
        lines += rows
        about = {key: value for key, value in methods.get(str(name), {}).items() if value not in ("-", "", 0)}
        blocks = [*_paper(about), Items(rows), *([Items(about["deviations"])] if about.get("deviations") else [])]
        parts.append(Section(str(name), blocks, level=3, style="method", medium="html"))
    return [Items(lines, medium="markdown"), *parts]


def _paper(about: Mapping[str, Any]) -> list[Text]:
    """Title, authors and reference code, as far as there are any."""
    if not about.get("title"):
        return []
    title = f"[{about['title']}](<{about['url']}>)" if "url" in about else about["title"]
    paper = ", ".join(str(about[key]) for key in ("authors", "venue", "year") if key in about)
    code = about.get("code", "(none public)")
    texts = [title, paper, "" if code.startswith("(") else f"Reference code: {code}"]
    return [Text(" ".join(f"{text}." for text in texts if text), links=True)]


def _row(label: str, runs: pd.DataFrame) -> str:
    """A row's recipe, or that it was tuned, and its hyper-parameters: as many settings as there are."""
    tuned = runs["tuned"].eq(True).any() if "tuned" in runs else False
    origin = "tuned values" if tuned else f"recipe {t.joined(distinct(runs, 'recipe')) or 'not recorded'}"
    settings = [json.loads(text) for text in distinct(runs, "hp")]
    texts = [", ".join(f"{key} = {t.setting(value)}" for key, value in each.items()) for each in settings if each]
    return f"{label}: {'; '.join([origin, *(f'`{text}`' for text in texts)])}"


def _unfinished(source: Source) -> Block:
    """The runs that no number here contains, with their reasons."""
    lines = [
        f"{run.label} on {run.pair}, seed {run.seed}: {run.status} ({run.reason or 'no reason recorded'})"
        for run in stats.unfinished(source.runs)[["label", "pair", "seed", "status", "reason"]].itertuples()
    ]
    lines += [f"{label} on {pair}: left out ({reason})" for label, pair, reason in source.left_out]
    lines += [f"not started: {t.plural(source.missing, 'run')}"] * bool(source.missing)
    return Items(lines) if lines else Text("None.")


def _runs(source: Source, rows: pd.DataFrame) -> list[Block]:
    """Every run and the command that repeats it: in Markdown a line per row, in HTML a table."""
    many = rows["pair"].nunique() > 1
    place = {key: i for i, key in enumerate(rows[["pair", "label"]].itertuples(index=False, name=None))}
    runs = source.runs.assign(row=[place[key] for key in zip(source.runs["pair"], source.runs["label"], strict=True)])
    lines = []
    for (pair, label), own in runs.groupby(["pair", "label"], sort=False):
        each = ", ".join(f"seed {seed} `{name}`" for seed, name in zip(own["seed"], own["fingerprint"], strict=True))
        lines.append(f"{label}{f' on {pair}' * many}: {each}")
    runs = runs.sort_values(["row", "seed"], kind="stable")
    top1 = runs[stats.TOP1].where(runs["status"] == "finished").astype(float)
    links = [source.links.get(name, "") for name in runs["fingerprint"]]
    mlflow = {"mlflow": Column("MLflow", ["run" if link else t.NONE for link in links], links=links, is_text=True)}
    shown = {
        "label": Column("method", runs["label"]),
        **({"pair": Column("pair", runs["pair"], is_text=True)} if many else {}),
        "seed": Column("seed", runs["seed"]),
        "top1": Column("top-1 (%)", [t.number(value, 2) for value in top1]),
        "status": Column("status", runs["status"], is_text=True),
        "command": Column("command", [f"`kdbench rerun {name}`" for name in runs["fingerprint"]], is_text=True),
        **(mlflow if source.links else {}),
    }
    ids = [f"row-{row}" if first else "" for row, first in zip(runs["row"], ~runs["row"].duplicated(), strict=True)]
    command = (
        f"`kdbench run {source.suite['name']}` runs the suite; `kdbench rerun FINGERPRINT` repeats a run and says "
        "whether its numbers agree."
    )
    return [
        Text(command),
        Items(lines, medium="markdown"),
        Grid(shown, ids=ids, folded="Every run" if len(runs) > FOLDED else "", medium="html"),
    ]
