"""A against B: the statistics of the report for two methods, two suites' results or two runs, as one answer."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UserError
from bench.report import compare_sides
from bench.report import text as t
from bench.report.compare_pair import Comparison, compared, unfinished
from bench.report.compare_sides import Sides

RUN_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Answer:
    """What `kdbench compare` has to say."""

    sides: Sides
    comparisons: list[Comparison]  # one per pair, or per pair and row
    left_out: list[str]  # rows that could not be compared, and why

    @property
    def sentence(self) -> str:
        a, b, found = self.sides.a, self.sides.b, self.comparisons
        if self.sides.kind == "runs":
            return f"{_single(found[0])}; one run each says nothing about the methods: compare those over seeds."
        row = f"{found[0].row}: " if found[0].row else ""
        told = f"{row}{found[0].verdict}." if len(found) == 1 else _over_all(a, b, found)
        return f"{told}{_apart(self.sides.differ)}"


def compare(a: str, b: str, results: Path, *, suite: str | None = None, uri: str | None = None) -> Answer:
    """Compare two rows of a suite (by label), two suites' results (by name or folder) or two MLflow runs (by id).

    suite: whose rows; default: of the suites in `results` the one that was called last. uri: the tracking server to ask
    instead of `results`. Raises `UserError` for what is not there, or where nothing can be compared.
    """
    with tempfile.TemporaryDirectory() as scratch:
        return answer(_sides(a, b, results, suite, uri, Path(scratch)))


def answer(sides: Sides) -> Answer:
    """The comparisons, pair by pair and row by row."""
    comparisons, left_out = [], []
    for (pair, row), part in sides.frame.groupby(["pair", "row"], sort=False):
        if missing := unfinished(part, sides):
            left_out.append(f"{f'{row} on ' if row else ''}{pair}: {missing}")
        else:
            comparisons.append(compared(part.reset_index(drop=True), str(pair), str(row), sides))
    if not comparisons:
        raise UserError(f"nothing to compare: {'; '.join(left_out)}")
    return Answer(sides, comparisons, left_out)


def _sides(a: str, b: str, results: Path, suite: str | None, uri: str | None, scratch: Path) -> Sides:
    if a == b:
        raise UserError(f"'{a}' stands on both sides; name two methods, two suites' results or two MLflow run ids")
    ids = [bool(RUN_ID.fullmatch(name)) for name in (a, b)]
    if any(ids) or uri is not None:
        from bench.report import compare_server

        if all(ids):
            return compare_server.of_runs(a, b, uri, results, scratch)
        if any(ids):
            raise UserError(f"'{a if ids[0] else b}' is an MLflow run id and '{b if ids[0] else a}' is none; name two")
        if suite is None or uri is None:
            raise UserError("--from compares two run ids, or two methods of a suite there: add --suite")
        return compare_server.of_suite(a, b, suite, uri, results)
    if suite is None:
        one, two = (compare_sides.suite_folder(name, results) for name in (a, b))
        if one and two and one == two:
            raise UserError(f"{a} and {b} are the same folder")
        if one and two:
            return compare_sides.of_suites(compare_sides.read(one), compare_sides.read(two))
        if one or two:
            raise UserError(f"'{a if one else b}' is a suite's results and '{b if one else a}' is not; name two suites")
    return compare_sides.of_rows(a, b, compare_sides.chosen(suite, results))


def _apart(differ: list[str]) -> str:
    """The reader's warning that more than chance may lie between the sides."""
    kinds = dict.fromkeys(re.split(r"[. ]", text)[0] for text in differ)
    heavy = [kind for kind in ("dataset", "data", "pair", "teacher", "protocol") if kind in kinds]
    return f" Not the same on both sides: {t.joined(heavy)}." if heavy else ""


def _single(one: Comparison) -> str:
    """Of two runs."""
    mean = float(one.metrics.loc["top1", "mean"])
    if not mean:
        return f"{one.a} and {one.b} have the same top-1"
    first, second = (one.a, one.b) if mean > 0 else (one.b, one.a)
    return f"{first} is {t.number(abs(mean), 2)} points above {second}"


def _over_all(a: str, b: str, found: list[Comparison]) -> str:
    what, known = "row" if found[0].row else "pair", [one for one in found if len(one.seeds) > 1]
    if not known:
        return f"No {what} of {len(found)} has two shared seeds, so {a} and {b} are not distinguishable."
    many, counts = t.plural(len(known), what), sorted({len(one.seeds) for one in known})
    if all(one.standing == "equal" for one in known):
        return f"{a} and {b} are equal to the digit in {many}."
    pairs = len({one.pair for one in found}) > 1
    named = [f"{one.row} on {one.pair}" if one.row and pairs else one.row or one.pair for one in known]
    better = {
        side: [name for name, one in zip(named, known, strict=True) if one.standing == word]
        for word, side in (("better", a), ("worse", b))
    }
    told = [f"{name} is better on {len(rows)} ({', '.join(rows)})" for name, rows in better.items() if rows]
    left = len(known) - sum(map(len, better.values()))
    told += [f"{left} not distinguishable" if told else "none distinguishable"] if left else []
    how = f"n = {' to '.join(map(str, dict.fromkeys((counts[0], counts[-1]))))} seeds, 95 % t intervals, not corrected"
    return f"Of {many}, {t.joined(told)} ({how})."
