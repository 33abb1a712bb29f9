"""README.md's table, the index of results/reference and its pictures of tuned suites: `make readme`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd

from bench.report import design, markdown, source, stats, table
from bench.report import text as t
from bench.report.answer import answer
from bench.report.columns import grid
from bench.report.layout import rendered
from bench.report.plots import dumbbell
from bench.report.provenance import commits, distinct
from tracking.frame import frame
from tracking.record import scan

ROOT = Path(__file__).parent.parent.parent
REFERENCE = Path("results/reference")
RESULTS = REFERENCE / "digits"
BEGIN, END = "<!-- digits:begin -->\n", "<!-- digits:end -->\n"
N_TOP = 3  # rows of a pair in the index
PAGES = ("report.md", "report.html", "table.csv", "tuning.md", "runs.csv", "trials.csv")
INTRODUCTION = (
    "Runs that were measured for this project, as `make bench` and `make tune` left them. This page is written by "
    "`make readme`. Top-1 is the last epoch's test accuracy; ± and [ ] are 95 % t intervals over paired seeds."
)
SHOWN = ("label", "n", "top1", "to_reference", "difference", "step_ratio")


def block(folder: Path) -> str:
    """Answer, table, figure and what they are conditional on, as Markdown. folder: a suite's committed results."""
    records = scan(folder)
    runs = frame(records)
    baseline = stats.choose_baseline(runs)
    rows, against = table.build(runs, baseline), stats.choose_reference(runs, baseline)
    ends = [record.final["time"] for record in records if record.final]
    took = max(ends) - min(record.header["time"] for record in records)
    first = records[0].header["spec"]
    suite = source.manifest(folder, folder.name)["suite"]
    minutes = f"{int(took // 60)} min {took % 60:.0f} s"
    n = t.plural(int(rows["n"].max()), "paired seed")
    parts = [
        f"`make bench`, {len(records)} runs in {minutes} on {_one(runs, 'threads')} thread of {_one(runs, 'cpu')}:"
        f" {answer(runs, against)}",
        markdown.grid(grid(rows, SHOWN)),
        f"Test top-1 of the last epoch, {first['teacher']} → {first['student']} on {first['data']['train']} handwritten"
        f" digits, n = {n}, 95 % t intervals {design.briefly(suite)}; published recipes; "
        f"torch {_one(runs, 'torch')}, commit {commits(runs)}. [The whole report]({RESULTS}/report.md), also as "
        f"one [HTML file]({RESULTS}/report.html); on real CIFAR-100 at a CPU's size the order is another: "
        "[report](results/reference/cifar100-mini/report.md).",
    ]
    return "\n\n".join(parts) + "\n"


def index(reference: Path) -> str:
    """What lies in results/reference, as Markdown: a section per folder, those that hold records with their runs."""
    parts = ["# Reference results", INTRODUCTION]
    for folder in sorted(path for path in reference.iterdir() if path.is_dir()):
        pages = [page for page in PAGES if (folder / page).is_file()]
        text = [f"## {folder.name}", " · ".join(f"[{page}]({folder.name}/{page})" for page in pages)]
        if records := scan(folder):
            text += _facts(frame(records))
        parts += text
    return "\n\n".join(parts) + "\n"


def _facts(runs: pd.DataFrame) -> list[str]:
    """Conditions, and the first rows of every pair's table."""
    rows = table.build(runs, stats.choose_baseline(runs))
    facts = f"{len(runs)} runs, {t.plural(int(rows['n'].max()), 'paired seed')}, commit {commits(runs)}, "
    facts += f"torch {_one(runs, 'torch')}, {_one(runs, 'hardware')}, "
    facts += f"{_one(runs, 'threads')} thread{'s' * (_one(runs, 'threads') != '1')}."
    of_pairs = rows.groupby("pair", sort=False)
    tables = [f"{pair.replace('->', ' → ')}:\n\n{_top(of_pair)}" for pair, of_pair in of_pairs]
    return [facts, *tables]


def _top(rows: pd.DataFrame) -> str:
    head = rows.head(N_TOP)
    left = len(rows) - len(head)
    more = f"\n\n{t.plural(left, 'more row')} in the report." if left else ""
    return markdown.grid(replace(grid(head, SHOWN), captions=[])) + more


def replaced(readme: str, new: str) -> str:
    """The README with what stands between the markers replaced. Raises `ValueError` where they are missing."""
    if readme.count(BEGIN) != 1 or readme.count(END) != 1:
        raise ValueError(f"README.md needs the lines {BEGIN.strip()} and {END.strip()}, once each")
    head, rest = readme.split(BEGIN)
    return f"{head}{BEGIN}{new}{END}{rest.split(END)[1]}"


def _one(runs: pd.DataFrame, name: str) -> str:
    return t.joined([" ".join(value.split()) for value in distinct(runs, name)])


def pictures(reference: Path) -> dict[Path, bytes]:
    """By path, what tuning was worth, of the folders that hold their runs as a table instead of records."""
    out = {}
    for path in sorted(reference.glob("*-tuned/runs.csv")):
        commit = commits(pd.read_csv(path, usecols=["commit"]))
        out[path.parent / "figures" / "gain.png"] = rendered(
            dumbbell.figure(dumbbell.of_file(path), f"Commit {commit}.")
        )
    return out


def main() -> None:
    path = ROOT / "README.md"
    path.write_text(replaced(path.read_text(), block(ROOT / RESULTS)))
    (ROOT / REFERENCE / "README.md").write_text(index(ROOT / REFERENCE))
    for picture, content in pictures(ROOT / REFERENCE).items():
        picture.write_bytes(content)


if __name__ == "__main__":
    main()
