"""Statistics as sentences, for captions, pages and the terminal; none says more than its interval does."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from bench.report import simultaneous, stats
from bench.report import text as t
from bench.report.stats_examples import Examples
from bench.report.stats_power import CAP, POWER, Chance, Plan
from bench.report.stats_ranks import Ranks


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


def at_once(n: int, family: str = "") -> str:
    """'95 % intervals that hold for all 5 comparisons at once'; family: what else is meant by all."""
    many = f"that hold for {family or ('both' if n == 2 else f'all {n}') + ' comparisons'} at once"
    return f"95 % intervals {many if n > 1 else 'of one comparison'}"


def over_rows(
    what: str,
    names: Sequence[str],
    standing: Sequence[str],
    counts: Sequence[int],
    sides: tuple[str, str],
    family: str = "",
) -> str:
    """Which side is better on which of many rows or pairs, by intervals that hold for all of them at once.

    standing: `stats.standing` of the first side to the second, by name; counts: seeds of each; family: what the
    intervals hold for, by default all comparisons.
    """
    seeds, parts = t.span(counts, "seed"), []
    for word, side in zip(("better", "worse"), sides, strict=True):
        won = [name for name, said in zip(names, standing, strict=True) if said == word]
        parts += [f"{side} is better on {len(won)} ({', '.join(won)})"] if won else []
    few = bool(parts) and min(counts) < simultaneous.FEW
    left = sum(word not in ("better", "worse") for word in standing)
    parts += [f"{left} {'is' if left == 1 else 'are'} not distinguishable"] if left and parts else []
    parts = parts or ["none is distinguishable"]
    how = f"n = {seeds}, {at_once(len(names), family)}"
    return f"{f'{seeds} suggest that of' if few else 'Of'} {t.plural(len(names), what)}, {t.joined(parts)} ({how})."


def lacking(frame: pd.DataFrame) -> str:
    """Who lacks which seeds, for a caption; empty where nobody lacks any."""
    many, by_pair = frame["pair"].nunique() > 1, []
    for pair, part in stats.lacking(frame).groupby("pair", sort=False):
        each = [f"{name} lacks {seeds(numbers)}" for name, numbers in zip(part["label"], part["seeds"], strict=True)]
        by_pair.append(t.joined(each) + (f" on {pair}" if many else ""))
    return f"{'; '.join(by_pair)}; each difference is over the seeds that both have." if by_pair else ""


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
    """Which of two is better in top-1, by its single interval, without a full stop. row: of `stats.paired` to b."""
    n, mean = int(row["n"]), float(row["mean"])
    if n == 0:
        return f"{a} and {b} share no finished seed, so nothing can be compared"
    first, second, sign = (a, b, 1) if mean >= 0 else (b, a, -1)
    if n == 1:
        gap = f"{first} is {t.number(abs(mean), 2)} points ahead" if mean else "equal"
        return f"one shared seed does not distinguish {a} and {b} ({gap}; no interval with n = 1)"
    low, high = sorted((sign * float(row["low"]), sign * float(row["high"])))
    over, places = f"over {t.plural(n, 'seed')}", t.places(low, high)
    gap = f"{t.number(abs(mean), places)} points {t.interval(low, high, places, sign=False)}"
    standing = stats.standing(low, high)
    if standing == "equal":
        return f"{a} and {b} are equal to the digit {over}"
    if standing == "better":
        said = f"{first} beats {second} by {gap}"
        return f"{t.plural(n, 'seed')} suggest that {said}" if n < simultaneous.FEW else f"{said} {over}"
    ahead = f"{first} is ahead by {gap}" if mean else f"mean difference 0 {t.interval(low, high, places)}"
    return f"{a} and {b} are not distinguishable {over}: {ahead}"


def plan(plan: Plan) -> str:
    """What would decide it, without a full stop; empty where it is decided or nothing can be said."""
    chance = f"with {100 * POWER:.0f} % power if mean and spread stay as observed"
    if plan.further is not None:
        few = f"; {plan.n} seeds make this an order of magnitude" if plan.n <= 5 else ""
        return f"{t.plural(plan.further, 'further seed')} ({plan.seeds} in all) would decide it {chance}{few}"
    if plan.state == "beyond":
        return f"not even {t.counted(CAP)} seeds would decide it {chance}"
    return "no number of seeds decides a mean difference of 0" if plan.state == "undecidable" else ""


def chance(a: str, b: str, chance: Chance) -> str:
    """How probable it is that a beats b, without a full stop."""
    ties = f", {t.plural(chance.ties, 'tie')}" if chance.ties else ""
    counted = f"{a} is ahead of {b} in {chance.wins} of {t.plural(chance.n, 'seed')}{ties}"
    if not math.isfinite(chance.p_mean):
        return counted
    mean, new = (text if text[0] in "<>" else f"= {text}" for text in map(probability, (chance.p_mean, chance.p_new)))
    return f"{counted}; P(mean difference > 0) {mean}, P({a} ahead in a new seed) {new}"


def errors(a: str, b: str, examples: Examples) -> str:
    """On how many examples two methods differ in being right, without a full stop; where there are several seeds also
    between students of different seeds, beside what seeds alone do."""
    size = examples.n * examples.seeds
    split = f"{a} on {_percent(100 * examples.only_a / size)}, {b} on {_percent(100 * examples.only_b / size)}"
    over = f"{t.counted(examples.n)} test examples{f' × {examples.seeds} seeds' if examples.seeds > 1 else ''}"
    same = f"exactly one of {a} and {b} is right on {_percent(examples.disagree)} of {over} ({split})"
    if not math.isfinite(examples.within):
        return same
    across, within = _percent(examples.across), _percent(examples.within)
    return f"{same}; between students of different seeds that is {across}, and {within} where both are of one method"


def by_example(a: str, b: str, examples: Examples) -> str:
    """Whether these students differ in accuracy over test examples, without a full stop."""
    places = t.places(examples.low, examples.high)
    gap = f"{t.signed(examples.difference, places)} points {t.interval(examples.low, examples.high, places)}"
    return f"for these very students {a} − {b} is {gap} over test examples; exact McNemar {p_value(examples.p)}"


def ranks(ranks: Ranks) -> str:
    """Average ranks with the tests named, as a paragraph."""
    listed = ", ".join(f"{name} {rank:.2f}" for name, rank in ranks.mean.items())
    text = f"Mean ranks over {ranks.pairs} pairs (1 is best): {listed}. Friedman's test: {p_value(ranks.p)}"
    if ranks.p > 1 - stats.LEVEL:
        return f"{text}, so no method is distinguishable from another by its rank."
    best, *others = map(str, ranks.mean.index)
    apart = t.joined([other for other in others if ranks.apart(best, other)]) or "no other"
    critical = f"Nemenyi's critical difference at 5 % is {ranks.critical:.2f}"
    return f"{text}; {critical}: {best} is distinguishable from {apart}."


def _percent(value: float) -> str:
    return f"{t.number(value, 1)} %"
