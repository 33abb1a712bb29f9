"""Statistics as sentences, for captions, pages and the terminal; none says more than its interval does."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from bench.report import stats
from bench.report import text as t
from bench.report.stats_examples import Examples
from bench.report.stats_power import CAP, POWER, Chance, Plan
from bench.report.stats_ranks import Ranks

FEW = 3  # seeds; below, an interval says little, and the sentence says so


def seeds(numbers: Iterable[int]) -> str:
    """'seed 4', 'seeds 0 to 4', 'seeds 0, 2 and 5 to 9'."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    parts = [" and ".join(map(str, run)) if len(run) < 3 else f"{run[0]} to {run[-1]}" for run in runs]
    several = len(runs) > 1 or (runs and len(runs[0]) > 1)
    return f"seed{'s' if several else ''} {t.joined(parts) if len(parts) > 1 else ''.join(parts)}"


def lacking(frame: pd.DataFrame, metric: str = stats.TOP1, by: str = "label") -> str:
    """Who lacks which seeds, for a caption; empty where nobody lacks any."""
    rows = stats.lacking(frame, metric, by)
    if rows.empty:
        return ""
    many = frame["pair"].nunique() > 1
    said = []
    for pair, part in rows.groupby("pair", sort=False):
        each = [f"{name} lacks {seeds(numbers)}" for name, numbers in part[[by, "seeds"]].itertuples(index=False)]
        said.append(t.joined(each) + (f" on {pair}" if many else ""))
    return f"{'; '.join(said)}; each difference is over the seeds that both have."


def p_value(p: float) -> str:
    """'p = 0.062', 'p < 0.001'."""
    if not math.isfinite(p):
        return f"p {t.NONE}"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def sign_flips(row: Mapping[str, Any] | pd.Series[Any]) -> str:
    """The test over seeds, and what its number of seeds could show at best. row: of `stats.paired`, n > 0."""
    n, p, smallest = int(row["n"]), float(row["p"]), float(row["smallest_p"])
    least = "1" if smallest == 1 else f"{smallest:.3f}" if smallest >= 0.001 else f"{smallest:.1g}"
    few = (
        f", the smallest that {n} seeds allow"
        if p <= smallest
        else f" ({t.plural(n, 'seed')} allow none below {least})"
    )
    return f"{p_value(p)}{few if n <= stats.EXACT_UP_TO else ''}"


def probability(p: float) -> str:
    """'0.93', '> 0.99', '< 0.01'."""
    if not math.isfinite(p):
        return t.NONE
    return "> 0.99" if p > 0.99 else "< 0.01" if p < 0.01 else f"{p:.2f}"


def verdict(a: str, b: str, row: Mapping[str, Any] | pd.Series[Any]) -> str:
    """Which of two is better in top-1, without a full stop. row: of `stats.paired` with b as the baseline."""
    n, mean, low, high = int(row["n"]), float(row["mean"]), float(row["low"]), float(row["high"])
    if n == 0:
        return f"{a} and {b} share no finished seed, so nothing can be compared"
    if n == 1:
        gap = "equal" if not mean else f"{a if mean > 0 else b} is {t.number(abs(mean), 2)} points ahead"
        return f"one shared seed does not distinguish {a} and {b} ({gap}; no interval with n = 1)"
    over = f"over {t.plural(n, 'seed')}"
    few = "; few seeds: run more before relying on it" if n < FEW else ""
    told = stats.standing(low, high)
    if told == "better":
        return f"{a} beats {b} by {_with_interval(mean, low, high)} {over}{few}"
    if told == "worse":
        return f"{b} beats {a} by {_with_interval(-mean, -high, -low)} {over}{few}"
    if told == "equal":
        return f"{a} and {b} are equal to the digit {over}"
    first, sign = (a, 1) if mean >= 0 else (b, -1)
    ends = sorted((sign * low, sign * high))
    gap = f"{first} is ahead by {_with_interval(abs(mean), *ends)}" if mean else f"mean difference 0 {_ends(*ends)}"
    return f"{a} and {b} are not distinguishable {over}: {gap}"


def plan(found: Plan) -> str:
    """What would decide it, without a full stop; empty where it is decided or nothing can be said."""
    chance = f"with {100 * POWER:.0f} % power"
    if found.state == "more" and found.seeds is not None and found.further is not None:
        few = f"; {found.n} seeds make this an order of magnitude" if found.n <= 5 else ""
        further = t.plural(found.further, "further seed")
        return f"{further} ({found.seeds} in all) would decide it {chance} if mean and spread stay as observed{few}"
    if found.state == "beyond":
        return f"not even {t.counted(CAP)} seeds would decide it {chance} if mean and spread stay as observed"
    return "no number of seeds decides a mean difference of 0" if found.state == "undecidable" else ""


def chance(a: str, b: str, found: Chance) -> str:
    """How probable it is that a beats b, without a full stop."""
    ties = f", {t.plural(found.ties, 'tie')}" if found.ties else ""
    counted = f"{a} is ahead of {b} in {found.wins} of {t.plural(found.n, 'seed')}{ties}"
    if not math.isfinite(found.p_mean):
        return counted
    mean, new = probability(found.p_mean), probability(found.p_new)
    return f"{counted}; P(mean difference > 0) {_is(mean)}, P({a} ahead in a new seed) {_is(new)}"


def disagreement(a: str, b: str, found: Examples) -> str:
    """On how many examples two methods differ in being right, without a full stop."""
    size = found.n * found.seeds
    split = f"{a} on {_percent(100 * found.only_a / size)}, {b} on {_percent(100 * found.only_b / size)}"
    over = f"{t.counted(found.n)} test examples{f' × {found.seeds} seeds' if found.seeds > 1 else ''}"
    return f"exactly one of {a} and {b} is right on {_percent(found.disagree)} of {over} ({split})"


def across_seeds(found: Examples) -> str:
    """The same share for students of different seeds, beside what seeds alone do; empty with one seed."""
    if not math.isfinite(found.within):
        return ""
    between, within = _percent(found.across), _percent(found.within)
    return f"between students of different seeds that is {between}, and {within} where both are of one method"


def by_example(a: str, b: str, found: Examples) -> str:
    """Whether these students differ in accuracy over test examples, without a full stop."""
    places = t.decimals([(found.high - found.low) / 2], [found.low, found.high])
    gap = t.signed(found.difference, places)
    ends = t.interval(found.low, found.high, places)
    return (
        f"for these very students {a} − {b} is {gap} points {ends} over test examples; exact McNemar {p_value(found.p)}"
    )


def examples(a: str, b: str, found: Examples) -> str:
    """Whether two methods err on the same examples: the three above, without a full stop."""
    return "; ".join(filter(None, (disagreement(a, b, found), across_seeds(found), by_example(a, b, found))))


def ranks(found: Ranks) -> str:
    """Average ranks with the tests named, as a paragraph."""
    name = found.rows.columns[0]
    listed = ", ".join(f"{row[name]} {row['rank']:.2f}" for _, row in found.rows.iterrows())
    text = f"Mean ranks over {len(found.pairs)} pairs (1 is best): {listed}. Friedman's test: {p_value(found.p)}"
    if found.p > 1 - stats.LEVEL:
        return f"{text}, so no method is distinguishable from another by its rank."
    best, *others = found.rows[name]
    told = [other for other in others if found.apart(best, other)]
    first = f"{best} is distinguishable from {t.joined(told)}" if told else f"{best} is distinguishable from no other"
    return f"{text}; Nemenyi's critical difference at 5 % is {found.critical:.2f}: {first}."


def _with_interval(mean: float, low: float, high: float) -> str:
    places = t.decimals([(high - low) / 2], [low, high])
    return f"{t.number(mean, places)} points {t.interval(low, high, places, sign=False)}"


def _ends(low: float, high: float) -> str:
    return t.interval(low, high, t.decimals([(high - low) / 2], [low, high]))


def _percent(value: float) -> str:
    return f"{t.number(value, 1)} %"


def _is(text: str) -> str:
    return text if text[0] in "<>" else f"= {text}"
