"""The README's first screen, written from the committed `digits` results: `make readme`."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from bench.report import design, page, source, stats, table
from bench.report import text as t
from bench.report.answer import answer
from tracking.frame import frame
from tracking.record import scan

ROOT = Path(__file__).parent.parent.parent
RESULTS = Path("results/reference/digits")
BEGIN, END = "<!-- digits:begin -->\n", "<!-- digits:end -->\n"
SHOWN = ("label", "n", "top1", "to_kd", "difference", "step_ratio")


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
        _table(rows),
        f"![Paired difference to {against}]({RESULTS}/figures/difference{'_kd' * (against == 'kd')}.png)",
        f"Test top-1 of the last epoch, {first['teacher']} → {first['student']} on {first['data']['train']} handwritten"
        f" digits, n = {n}, 95 % t intervals {design.briefly(suite)}; published recipes; "
        f"torch {_one(runs, 'torch')}, commit {page.commits(runs)}. [The whole report]({RESULTS}/report.md), also as "
        f"one [HTML file]({RESULTS}/report.html); on real CIFAR-100 at a CPU's size the order is another: "
        "[report](results/reference/cifar100-mini/report.md).",
    ]
    return "\n\n".join(parts) + "\n"


def replaced(readme: str, new: str) -> str:
    """The README with what stands between the markers replaced. Raises `ValueError` where they are missing."""
    if readme.count(BEGIN) != 1 or readme.count(END) != 1:
        raise ValueError(f"README.md needs the lines {BEGIN.strip()} and {END.strip()}, once each")
    head, rest = readme.split(BEGIN)
    return f"{head}{BEGIN}{new}{END}{rest.split(END)[1]}"


def _table(rows: pd.DataFrame) -> str:
    cells = table.columns(rows)
    kept = [cells[key] for key in SHOWN if key in cells]
    lines = [[heading for heading, _ in kept], [":--", *["--:"] * (len(kept) - 1)]]
    for i, bold in enumerate(rows["with_best"]):
        line = [column[i] for _, column in kept]
        lines.append([f"**{cell}**" if bold and place in (0, 2) else cell for place, cell in enumerate(line)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _one(runs: pd.DataFrame, name: str) -> str:
    values = sorted({re.sub(r"\s+", " ", str(value)).strip() for value in runs[name].dropna()})
    return t.joined(values)


def main() -> None:
    path = ROOT / "README.md"
    path.write_text(replaced(path.read_text(), block(ROOT / RESULTS)))


if __name__ == "__main__":
    main()
