"""A against B: two rows of a suite, two suites' results or two MLflow runs, by the statistics of the report."""

from __future__ import annotations

import math
import re
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bench.errors import UserError
from bench.report import sentences, simultaneous, stats, stats_examples, stats_power
from bench.report import text as t
from bench.report.compare_sides import Sides
from bench.report.compare_sides import sides as sides_of

METRICS = {
    "top1": stats.TOP1,
    "top1_by_validation": "test/top1_best_epoch_on_validation",
    **{name: f"test/{name}" for name in ("nll", "ece", "agreement")},
}
COSTS = {
    "step_ms": "cost/step_alone_ms",
    **{name: f"cost/{name}" for name in ("memory_mb", "images_seen", "extra_params")},
}
SINGLE = "This is one comparison: its interval is not corrected for others that were looked at."
LEVELS = ["a", "a_half", "b", "b_half"]
PAIRED = ["n", "mean", "sd", "low", "high", "p", "smallest_p"]


@dataclass(frozen=True)
class Comparison:
    """A against B on one pair. All statistics are over `seeds`, those that both have finished."""

    pair: str
    row: str  # the method, where the sides are suites; else empty
    a: str
    b: str
    seeds: list[int]
    alone: dict[str, list[int]]  # seeds that one side alone has finished, by side
    differences: list[float]  # of a to b in top-1, by shared seed
    metrics: pd.DataFrame  # METRICS x (a, a_half, b, b_half, then PAIRED of a - b)
    costs: pd.DataFrame  # COSTS x (a and b: means, ratio: median over seeds of a / b)
    chance: stats_power.Chance | None  # None: no shared seed
    plan: stats_power.Plan | None
    examples: stats_examples.Examples | None
    why_no_examples: str

    @property
    def standing(self) -> str:
        """`stats.standing` of A to B in top-1."""
        return stats.standing(*self.metrics.loc["top1", ["low", "high"]]) if self.seeds else "open"

    @property
    def verdict(self) -> str:
        """Which is better, and what would decide it; without a full stop."""
        row = self.metrics.loc["top1"] if self.seeds else {"n": 0, **dict.fromkeys(("mean", "low", "high"), math.nan)}
        more = sentences.plan(self.plan) if self.plan and self.standing != "equal" else ""
        return "; ".join(filter(None, (sentences.verdict(self.a, self.b, row), more)))


@dataclass(frozen=True)
class Answer:
    """What `kdbench compare` has to say."""

    sides: Sides
    comparisons: list[Comparison]  # one per pair, or per pair and row
    left_out: list[str]  # rows that could not be compared, and why

    @property
    def sentence(self) -> str:
        one = self.comparisons[0]
        if self.sides.kind == "runs":
            mean = float(one.metrics.loc["top1", "mean"])
            first, second = (one.a, one.b) if mean > 0 else (one.b, one.a)
            gap = f"{first} is {t.number(abs(mean), 2)} points above {second}"
            gap = gap if mean else f"{one.a} and {one.b} have the same top-1"
            return f"{gap}; one run each says nothing about the methods: compare those over seeds."
        if len(self.comparisons) > 1:
            said = _over_all(self.sides.a, self.sides.b, self.comparisons)
        else:
            said = f"{f'{one.row}: ' if one.row else ''}{one.verdict}."
            said += f" {SINGLE}" if len(one.seeds) > 1 and one.standing != "equal" else ""
        kinds = {re.split(r"[. ]", text)[0] for text in self.sides.differ}
        heavy = [kind for kind in ("dataset", "data", "pair", "teacher", "protocol") if kind in kinds]
        return said + (f" Not the same on both sides: {t.joined(heavy)}." if heavy else "")


def compare(a: str, b: str, results: Path, *, suite: str | None = None, uri: str | None = None) -> Answer:
    """Compare two rows of a suite (by label), two suites' results (by name or folder) or two MLflow runs (by id).

    suite: whose rows; default: of the suites in `results` the one that was called last. uri: the tracking server to ask
    instead of `results`. Raises `UserError` for what is not there, or where nothing can be compared.
    """
    with tempfile.TemporaryDirectory() as scratch:
        sides, comparisons, left_out = sides_of(a, b, results, suite, uri, Path(scratch)), [], []
        for (pair, row), part in sides.frame.groupby(["pair", "row"], sort=False):
            if missing := _unfinished(part, sides):
                left_out.append(f"{f'{row} on ' if row else ''}{pair}: {missing}")
            else:
                comparisons.append(_compared(part.reset_index(drop=True), str(pair), str(row), sides))
    if not comparisons:
        raise UserError(f"nothing to compare: {'; '.join(left_out)}")
    return Answer(sides, comparisons, left_out)


def _over_all(a: str, b: str, comparisons: list[Comparison]) -> str:
    what, known = "row" if comparisons[0].row else "pair", [one for one in comparisons if len(one.seeds) > 1]
    if not known:
        return f"No {what} of {len(comparisons)} has two shared seeds, so {a} and {b} are not distinguishable."
    if all(one.standing == "equal" for one in known):
        return f"{a} and {b} are equal to the digit in {t.plural(len(known), what)}."
    pairs = len({one.pair for one in comparisons}) > 1
    names = [f"{one.row} on {one.pair}" if one.row and pairs else one.row or one.pair for one in known]
    standing = simultaneous.intervals({str(i): one.differences for i, one in enumerate(known)})["verdict"]
    return sentences.over_rows(what, names, list(standing), [len(one.seeds) for one in known], (a, b))


def _compared(runs: pd.DataFrame, pair: str, row: str, sides: Sides) -> Comparison:
    """The comparison of the runs of one pair (and row), of which each side has a finished one."""
    a, b = sides.a, sides.b
    try:
        good = stats.usable(runs)
    except ValueError as error:  # two runs of one seed, as a server may hold after a change of protocol
        raise UserError(str(error)) from None
    finished = {name: {int(seed) for seed in good.loc[good["label"] == name, "seed"]} for name in (a, b)}
    shared = sorted(finished[a] & finished[b])
    alone = {name: sorted(seeds - set(shared)) for name, seeds in finished.items()}
    both, d = good[good["seed"].isin(shared)], stats.differences(good, b)["difference"]
    metrics: dict[str, list[Any]] = {}
    costs: dict[str, list[Any]] = {}
    for name, metric in {**METRICS, **COSTS}.items():
        if both.empty or metric not in both or len(stats.unfinished(both, metric)):
            continue  # where a run lacks the metric, its seeds would not be those of the comparison
        level = stats.summary(both, metric).set_index("label")
        if name in METRICS:
            levels = [level.loc[side, key] for side in (a, b) for key in ("mean", "half")]
            metrics[name] = [*levels, *stats.paired(both, b, metric).iloc[0][PAIRED]]
        else:
            ratio = stats.ratios(both, b, metric).set_index("label").loc[a, "ratio"]
            costs[name] = [level.loc[a, "mean"], level.loc[b, "mean"], ratio]
    chance, plan = (stats_power.chance(d), stats_power.plan(d)) if shared else (None, None)
    of_metrics = pd.DataFrame.from_dict(metrics, orient="index", columns=[*LEVELS, *PAIRED])
    of_costs = pd.DataFrame.from_dict(costs, orient="index", columns=["a", "b", "ratio"])
    return Comparison(
        pair, row, a, b, shared, alone, d.tolist(), of_metrics, of_costs, chance, plan, *_examples(runs, sides)
    )


def _examples(runs: pd.DataFrame, sides: Sides) -> tuple[stats_examples.Examples | None, str]:
    """Example by example, or why not."""
    if not sides.files:
        return None, "a server is asked for predictions where two run ids are compared, not for whole rows"
    try:
        seeds, right_a, right_b = stats_examples.correctness(runs, sides.a, sides.b, sides.files)
    except stats_examples.OtherExamples as error:
        return None, str(error)
    known = stats_examples.examples(right_a, right_b) if seeds else None
    return known, "" if known else "no seed of which both have left predictions"


def _unfinished(runs: pd.DataFrame, sides: Sides) -> str:
    """Why a side has nothing to compare here; empty where both have a finished run."""
    out = stats.unfinished(runs)
    for name in (sides.a, sides.b):
        mine, n = out[out["label"] == name], int((runs["label"] == name).sum())
        if not n:
            return f"{name} has no run"
        if len(mine) == n:
            counts = ", ".join(f"{count} {status}" for status, count in Counter(mine["status"]).items())
            reason = next((f": {text}" for text in mine["reason"] if text), "")
            return f"{name} has no finished run ({counts}{reason})"
    return ""
