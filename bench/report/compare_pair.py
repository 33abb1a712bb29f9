"""One comparison: A against B on one pair, with all that the report says of a difference."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import pandas as pd

from bench.errors import UserError
from bench.report import sentences, stats, stats_examples, stats_power
from bench.report.compare_sides import Sides

METRICS = {
    "top1": stats.TOP1,
    "top1_by_validation": "test/top1_best_epoch_on_validation",
    "nll": "test/nll",
    "ece": "test/ece",
    "agreement": "test/agreement",
}
COSTS = {
    "step_ms": "cost/step_alone_ms",
    "memory_mb": "cost/memory_mb",
    "images_seen": "cost/images_seen",
    "extra_params": "cost/extra_params",
}


@dataclass(frozen=True)
class Comparison:
    """A against B on one pair. All statistics are over `seeds`, those that both have finished."""

    pair: str
    row: str  # the method, where the sides are suites; else empty
    a: str
    b: str
    seeds: list[int]
    alone: dict[str, list[int]]  # seeds that one side alone has finished, by side
    metrics: pd.DataFrame  # METRICS x (a, a_half, b, b_half, n, and of a - b mean, sd, low, high, p, smallest_p)
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
        empty = {"n": 0, "mean": math.nan, "low": math.nan, "high": math.nan}
        row = self.metrics.loc["top1"] if self.seeds else empty
        more = sentences.plan(self.plan) if self.plan and self.standing != "equal" else ""
        return sentences.verdict(self.a, self.b, row) + (f"; {more}" if more else "")


def compared(runs: pd.DataFrame, pair: str, row: str, sides: Sides) -> Comparison:
    """The comparison of the runs of one pair (and row), of which each side has a finished one."""
    a, b = sides.a, sides.b
    try:
        good = stats.usable(runs)
        finished = {name: {int(seed) for seed in good.loc[good["label"] == name, "seed"]} for name in (a, b)}
        found, why = _examples(runs, sides)
    except UserError:
        raise
    except ValueError as error:  # two runs of one seed, as a server may hold after a change of protocol
        raise UserError(str(error)) from None
    shared = sorted(finished[a] & finished[b])
    alone = {name: sorted(seeds - set(shared)) for name, seeds in finished.items()}
    both = good[good["seed"].isin(shared)]
    d = stats.differences(good, b)["difference"].to_numpy(float)
    chance, plan = (stats_power.chance(d), stats_power.plan(d)) if shared else (None, None)
    metrics, costs = _metrics(both, a, b), _costs(both, a, b)
    return Comparison(pair, row, a, b, shared, alone, metrics, costs, chance, plan, found, why)


def _metrics(runs: pd.DataFrame, a: str, b: str) -> pd.DataFrame:
    columns = ["a", "a_half", "b", "b_half", "n", "mean", "sd", "low", "high", "p", "smallest_p"]
    rows = {}
    for name, metric in METRICS.items():
        if _all_have(runs, metric):
            level = stats.summary(runs, metric).set_index("label")
            found = stats.paired(runs, b, metric).iloc[0]
            levels = [level.loc[side, of] for side in (a, b) for of in ("mean", "half")]
            rows[name] = [*levels, *found[columns[4:]]]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def _costs(runs: pd.DataFrame, a: str, b: str) -> pd.DataFrame:
    rows = {}
    for name, metric in COSTS.items():
        if _all_have(runs, metric):
            level = stats.summary(runs, metric).set_index("label")["mean"]
            ratio = stats.ratios(runs, b, metric).set_index("label")["ratio"]
            rows[name] = [level[a], level[b], ratio[a]]
    return pd.DataFrame.from_dict(rows, orient="index", columns=["a", "b", "ratio"])


def _all_have(runs: pd.DataFrame, metric: str) -> bool:
    """Has every run a finite number? Else the metric's seeds would not be those of the comparison."""
    return metric in runs and not runs.empty and len(stats.unfinished(runs, metric)) == 0


def _examples(runs: pd.DataFrame, sides: Sides) -> tuple[stats_examples.Examples | None, str]:
    if not sides.files:
        return None, "a server is asked for predictions where two run ids are compared, not for whole rows"
    try:
        seeds, right_a, right_b = stats_examples.correctness(runs, sides.a, sides.b, sides.files)
    except UserError:
        raise
    except ValueError as error:
        return None, str(error)
    if not seeds:
        return None, "no seed of which both have left predictions"
    return stats_examples.examples(right_a, right_b), ""


def unfinished(runs: pd.DataFrame, sides: Sides) -> str:
    """Why a side has nothing to compare here; empty where both have a finished run."""
    out = stats.unfinished(runs)
    for name in (sides.a, sides.b):
        mine, n = out[out["label"] == name], int((runs["label"] == name).sum())
        if not n:
            return f"{name} has no run"
        if len(mine) == n:
            counts = ", ".join(f"{count} {status}" for status, count in Counter(mine["status"]).items())
            reason = next((str(text) for text in mine["reason"] if text), "")
            return f"{name} has no finished run ({counts}{f': {reason}' if reason else ''})"
    return ""
