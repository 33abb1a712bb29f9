"""A comparison for the terminal, and for machines."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any

import pandas as pd
from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from bench.report import sentences
from bench.report import text as t
from bench.report.compare import Answer, Comparison

METRICS = {"top1": "top-1 (%)", "top1_by_validation": "top-1 by val. (%)", "nll": "NLL", "ece": "ECE (%)"}
METRICS |= {"agreement": "agreement (%)"}
COSTS: dict[str, tuple[str, Callable[[float], str]]] = {
    "step_ms": ("step time (ms)", lambda value: t.number(value, 1)),
    "memory_mb": ("memory (MiB)", lambda value: t.number(value, 1 if value >= 10 else 2)),
    "images_seen": ("images seen", t.counted),
    "extra_params": ("extra params", t.counted),
}


def rich(answer: Answer) -> Iterator[RenderableType]:
    """What is printed, from title to answer."""
    comparisons, sides = answer.comparisons, answer.sides
    one = comparisons[0]
    of = f"{sides.title}: " if sides.kind == "rows" else ""
    if len(comparisons) == 1:
        yield Text(f"{of}{one.a} − {one.b}{f', {one.row},' if one.row else ''} on {one.pair}", "bold")
        yield _table(one, "one run each" if sides.kind == "runs" else "")
        yield _facts(one)
    else:
        yield Text(f"{of}{one.a} − {one.b}", "bold")
        yield _overview(comparisons)
    if sides.differ:
        yield Text(f"The sides differ in {'; '.join(sides.differ)}.", "yellow")
    elif sides.kind == "suites":
        yield Text("Protocol, data, teacher, code and machine are the same on both sides.")
    for note in [*sides.notes, *(f"Left out: {text}." for text in answer.left_out)]:
        yield Text(note)
    yield Text(answer.sentence, "bold")


def as_dict(answer: Answer) -> dict[str, Any]:
    """For machines: plain numbers and text; None for what is not known."""
    each = [{**vars(one), "n": len(one.seeds), "verdict": one.verdict} for one in answer.comparisons]
    sides = {name: value for name, value in vars(answer.sides).items() if name not in ("frame", "files")}
    return _plain({**sides, "comparisons": each, "left_out": answer.left_out, "answer": answer.sentence})


def _table(one: Comparison, corner: str) -> Table:
    table = _grid()
    table.add_column(corner or (sentences.seeds(one.seeds) if one.seeds else "no shared seed"))
    for heading in (one.a, one.b, "difference"):
        table.add_column(Text(heading), justify="right")
    for name, row in one.metrics.iterrows():
        table.add_row(METRICS[str(name)], *_cells(row, 3 if name == "nll" else None))
    for name, row in one.costs.iterrows():
        heading, write = COSTS[str(name)]
        more = f"{row['a'] - row['b']:+,.0f}".replace("-", "−") if row["a"] != row["b"] else "0"
        ratio = row["ratio"] if row["a"] and row["b"] else math.nan
        table.add_row(heading, write(row["a"]), write(row["b"]), t.times(ratio) if math.isfinite(ratio) else more)
    if len(one.seeds) > 1:
        table.caption = "± and [ ]: 95 % t intervals over seeds; costs: median ratio over seeds"
    elif one.seeds:
        table.caption = "n = 1: no interval"
    return table


def _facts(one: Comparison) -> Table:
    """The tests, each with its name before it."""
    out = Table.grid(padding=(0, 2))
    for name, numbers in one.alone.items():
        if numbers:
            out.add_row("left out", Text(f"{name} alone has finished {sentences.seeds(numbers)}"))
    if one.chance and len(one.seeds) > 1:
        out.add_row("sign flips", Text(sentences.sign_flips(one.metrics.loc["top1"])))
        out.add_row("probability", Text(sentences.chance(one.a, one.b, one.chance)))
    if one.examples:
        out.add_row("errors", Text(sentences.errors(one.a, one.b, one.examples)))
        out.add_row("examples", Text(sentences.by_example(one.a, one.b, one.examples)))
    else:
        out.add_row("examples", Text(f"no test: {one.why_no_examples}"))
    return out


def _overview(comparisons: list[Comparison]) -> Table:
    """One line per comparison."""
    many, rows = len({one.pair for one in comparisons}) > 1, any(one.row for one in comparisons)
    table = _grid()
    table.add_column("row" if rows else "pair")
    for heading in ("n", comparisons[0].a, comparisons[0].b, "difference", "p", "ahead"):
        table.add_column(Text(heading), justify="right")
    for one in comparisons:
        name = " on ".join(part for part in (one.row, one.pair if many or not rows else "") if part)
        if not one.seeds or not one.chance:
            table.add_row(Text(name), "0", *[t.NONE] * 5)
            continue
        row, n = one.metrics.loc["top1"], len(one.seeds)
        p = t.number(row["p"], 3) if n > 1 else t.NONE
        table.add_row(Text(name), str(n), *_cells(row), p, f"{one.chance.wins} of {n}")
    table.caption = "top-1 (%); ± and [ ]: single 95 % t intervals over seeds; p: sign flips, not corrected"
    return table


def _cells(row: pd.Series[float], places: int | None = None) -> tuple[str, str, str]:
    """A, B and their difference as text; places: decimals, else as many as the intervals ask for."""
    if row["n"] < 2:
        places = 2 if places is None else places
        return t.number(row["a"], places), t.number(row["b"], places), t.signed(row["mean"], places)
    low, high = row["low"], row["high"]
    width = t.decimals([row["a_half"], row["b_half"]]) if places is None else places
    a, b = (t.level(row[side], row[f"{side}_half"], int(row["n"]), width) for side in ("a", "b"))
    fine = t.places(low, high) if places is None else places
    return a, b, "equal" if low == high == 0 else t.difference(row["mean"], low, high, int(row["n"]), fine)


def _grid() -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.caption_justify = "left"
    return table


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return _plain(vars(value))
    if isinstance(value, pd.DataFrame):
        return _plain(value.to_dict("index"))
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
