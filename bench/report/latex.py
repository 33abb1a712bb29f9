r"""The tables as LaTeX: booktabs, the best mean bold, what is not distinguishable from it with ≈, one `table` per pair.

A document needs \usepackage{booktabs} and \usepackage{graphicx}; the text is plain ASCII and compiles with any engine.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import pandas as pd

from bench.report import overall
from bench.report.blocks import TIED, Grid
from bench.report.columns import grid

KEYS = (
    "label",
    "n",
    "top1",
    "values",
    "difference",
    "to_reference",
    "published",
    "distance",
    "step_ratio",
    "memory_ratio",
)
"""Columns of a pair's table: those that a line of text can hold. The CSV has all."""

HEAD = "% needs \\usepackage{booktabs,graphicx}; a table that is wider than the line shrinks to it\n"
SPECIAL = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "±": r"$\pm$",
    "−": "$-$",
    "×": r"$\times$",
    "→": r"$\to$",
    "≈": r"$\approx$",
    "≥": r"$\ge$",
    "≤": r"$\le$",
    "–": "--",
    "—": "---",
    "…": r"\dots{}",
    "’": "'",
    "†": r"\textsuperscript{\textdagger}",
    "‡": r"\textsuperscript{\textdaggerdbl}",
    "°": r"\textdegree{}",
    "\u00a0": "~",
}
GREEK = {"α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "λ": "lambda", "μ": "mu", "σ": "sigma", "τ": "tau"}
SPECIAL |= {letter: f"$\\{name}$" for letter, name in GREEK.items()}


def tables(rows: pd.DataFrame, suite: str, across_pairs: pd.DataFrame | None = None, keys: Sequence[str] = KEYS) -> str:
    """All tables of a suite: the one over all pairs first, where there is one, then a table per pair.

    rows: `table.build`; across_pairs: `overall.build`; keys: columns of a pair's table, in this order.
    """
    name = re.sub(r"[^A-Za-z0-9-]+", "-", suite).strip("-")
    parts = []
    if across_pairs is not None:
        parts.append(table(overall.grid(across_pairs, rows), f"{suite}: all pairs.", f"tab:{name}"))
    many = rows["pair"].nunique() > 1
    for i, (pair, part) in enumerate(rows.groupby("pair", sort=False), 1):
        title = f"{suite}: {str(pair).replace('->', ' → ')}. Test top-1 of the last epoch; ± and [ ]: 95 % t intervals."
        parts.append(table(grid(part, keys), title, f"tab:{name}-{i}" if many else f"tab:{name}"))
    return HEAD + "\n" + "\n".join(parts)


def table(shown: Grid, caption: str, label: str) -> str:
    """One table with caption and label. caption: plain text; what bold and marks mean follows it."""
    cells, strong = (pd.DataFrame([[cell[i] for cell in row] for row in shown.rows]) for i in (0, 1))
    tied = pd.DataFrame([[f" {TIED}" * cell.tied for cell in row] for row in shown.rows])
    cells = (cells + tied).map(escape)
    # either would be an argument of the row's end before it
    cells[0] = cells[0].map(lambda text: "{}" * text.startswith(("[", "*")) + text)
    styler = cells.style.hide(axis="index").apply(
        lambda _: strong.replace({True: "textbf:--rwrap", False: ""}), axis=None
    )
    styler.format_index(lambda i: escape([*shown.columns.values()][i].heading), axis="columns")
    body = styler.to_latex(column_format=f"@{{}}l{'r' * (len(shown.columns) - 1)}@{{}}", hrules=True)
    return rf"""\begin{{table}}
  \centering
  \caption{{{escape(" ".join([caption, *shown.captions]))}}}
  \label{{{label}}}
  \smallskip\setlength{{\tabcolsep}}{{4pt}}
  \resizebox{{\ifdim\width>\linewidth\linewidth\else\width\fi}}{{!}}{{%
{body.strip()}}}
\end{{table}}
"""


def escape(text: str) -> str:
    """Text as LaTeX shows it; what has no ASCII form becomes a question mark."""
    out = "".join(SPECIAL.get(c, c) for c in re.sub(r"(?<=\d) (?=%)", "\u00a0", text))
    plain = unicodedata.normalize("NFKD", out)
    return "".join(c if c.isascii() else "" if unicodedata.combining(c) else "?" for c in plain)
