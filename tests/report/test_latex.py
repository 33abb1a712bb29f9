from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from bench.report import latex, overall, table
from tests.report.made_up import frame, run
from tests.report.test_published import DATA, cifar, crd

NASTY = r"""k_d|^~\{<>}"&#$%[x]τ – é 漢"""


def rows_of(text: str) -> list[list[str]]:
    """Cells of the first tabular, without the rules."""
    body = text.split(r"\toprule")[1].split(r"\bottomrule")[0].replace(r"\midrule", "")
    lines = [line.strip().removesuffix(r"\\").strip() for line in body.strip().splitlines()]
    return [re.split(r"(?<!\\) ?& ?", line) for line in lines if line]


def balanced(text: str) -> bool:
    depth = 0
    for brace in re.findall(r"(?<!\\)(?:\\\\)*([{}])", text):
        depth += 1 if brace == "{" else -1
        if depth < 0:
            return False
    return depth == 0


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("", ""),
        ("block_kd 95 %", r"block\_kd 95~\%"),
        ("+1.8 ± 0.9", r"+1.8 $\pm$ 0.9"),
        ("−0.3", r"$-$0.3"),
        ("1.84×", r"1.84$\times$"),
        ("a → b", r"a $\to$ b"),
        ("\\", r"\textbackslash{}"),
        ("{a}", r"\{a\}"),
        ("76.3†", r"76.3\textsuperscript{\textdagger}"),
        ("τ²", r"$\tau$2"),
        ("é漢", "e?"),
    ],
)
def test_text_is_escaped(text: str, want: str) -> None:
    assert latex.escape(text) == want


def test_one_table_with_booktabs_whose_rows_have_all_cells() -> None:
    text = latex.tables(table.build(frame()), "digits")
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == text.count(r"\bottomrule") == 1
    assert r"\label{tab:digits}" in text and r"\hline" not in text and "|" not in text and text.isascii()
    lines = rows_of(text)
    assert len(lines) == 7 and {len(line) for line in lines} == {len(lines[0])}
    assert lines[0][:4] == ["method", "n", r"top-1 (\%)", r"$-$ vanilla [95~\% CI]"]
    assert re.search(rf"tabular}}{{@{{}}lr{{{len(lines[0]) - 1}}}@{{}}}}".replace("lr{", "l(r){"), text)


def test_bold_is_what_the_table_says_and_nothing_else() -> None:
    rows = table.build(frame())
    lines = rows_of(latex.tables(rows, "digits"))[1:]
    names = [line[0].replace(r"\_", "_") for line in lines]
    assert [name[8:-1] for name in names if name.startswith(r"\textbf{")] == ["block_kd"]
    tied = [name.removesuffix(r" $\approx$") for name in names if name.endswith(r"$\approx$")]
    assert tied == rows.loc[rows["with_best"] & ~rows["best"], "label"].tolist() == ["kd", "dkd", "crd"]
    assert all(line[2].startswith(r"\textbf{") == line[0].startswith(r"\textbf{") for line in lines)
    assert not any(r"\textbf" in cell for line in lines for cell in line[3:])
    assert r"\textbf" not in latex.tables(table.build(frame(seeds=1)), "digits")


def test_a_table_per_pair_after_the_one_over_all() -> None:
    runs = pd.concat([frame(pair="a_1->b", seeds=2), frame(pair="c->d", seeds=2)], ignore_index=True)
    rows = table.build(runs)
    text = latex.tables(rows, "my suite", overall.build(runs, rows))
    assert re.findall(r"\\label{(.+?)}", text) == ["tab:my-suite", "tab:my-suite-1", "tab:my-suite-2"]
    assert r"my suite: a\_1 $\to$ b." in text and "all pairs" in text


def test_columns_can_be_chosen() -> None:
    text = latex.tables(table.build(frame()), "digits", keys=("label", "nll"))
    assert rows_of(text)[0] == ["method", "NLL"]


def test_no_label_breaks_a_table() -> None:
    runs = [run(label, seed, 50.0 + seed) for label in ("vanilla", NASTY, "[x]", "*") for seed in range(2)]
    text = latex.tables(table.build(pd.DataFrame(runs)), NASTY)
    assert text.isascii() and balanced(text)
    assert {len(line) for line in rows_of(text)} == {len(rows_of(text)[0])}
    assert "{}[x]" in text and r"\\" + "\n    [" not in text and r"\\" + "\n    *" not in text


def test_published_numbers_have_their_marks_and_their_meaning() -> None:
    from bench.report import distance, published

    text = latex.tables(table.build(cifar(), published=distance.beside(cifar(), published.read(), crd(), DATA)), "x")
    assert r"76.32\textsuperscript{\textdagger}" in text and "best epoch on the test split" in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_it_compiles(tmp_path: Path) -> None:
    runs = pd.concat(
        [frame({"vanilla": 0.0, "kd": 1.0, NASTY: 2.0, "[x]": 0.5}, seeds=3, pair=p) for p in ("a->b", "c->d")]
    )
    rows = table.build(runs)
    body = latex.tables(rows, NASTY, overall.build(runs, rows))
    start = r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}"
    (tmp_path / "t.tex").write_text(f"{start}\n{body}\\end{{document}}\n")
    call = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull \\hbox" not in done.stdout
