"""The README's first screen, written from the committed `digits` results: `make readme`."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from bench.report import design, markdown, source, stats, table
from bench.report import text as t
from bench.report.answer import answer
from bench.report.columns import grid
from bench.report.provenance import commits, distinct
from tracking.frame import frame
from tracking.record import scan

ROOT = Path(__file__).parent.parent.parent
RESULTS = Path("results/reference/digits")
BEGIN, END = "<!-- digits:begin -->\n", "<!-- digits:end -->\n"
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
        f"![Paired difference to {against}]({RESULTS}/figures/difference{'_kd' * (against != baseline)}.png)",
        f"Test top-1 of the last epoch, {first['teacher']} → {first['student']} on {first['data']['train']} handwritten"
        f" digits, n = {n}, 95 % t intervals {design.briefly(suite)}; published recipes; "
        f"torch {_one(runs, 'torch')}, commit {commits(runs)}. [The whole report]({RESULTS}/report.md), also as "
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


def _one(runs: pd.DataFrame, name: str) -> str:
    return t.joined([" ".join(value.split()) for value in distinct(runs, name)])


def main() -> None:
    path = ROOT / "README.md"
    path.write_text(replaced(path.read_text(), block(ROOT / RESULTS)))


if __name__ == "__main__":
    main()
