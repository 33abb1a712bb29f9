"""What varies from seed to seed in a suite, and how many seeds it took: what its intervals can speak of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.errors import UserError
from bench.report import stats
from bench.report import text as t
from bench.report.blocks import Column, Grid, Section, Text
from bench.suite.plain import changes

OF_SPLIT = ("split_seed", "fingerprint", "mean", "std", "test_fingerprint")  # what one split of the same data changes

Spec = Mapping[str, Any]
"""Of a run: pair, seed, protocol, data, teacher_fingerprint."""


def varies(suite: Spec, what: str) -> bool:
    """Has every seed its own `what`, teacher or split? suite: as recorded; records from before say nothing of it."""
    return bool((suite.get(what) or {}).get("each") == "seed")


def inferred(specs: Sequence[Spec]) -> dict[str, Any]:
    """Teacher and split as a suite has them, of runs whose suite is not on record."""
    cohorts = {(spec.get("pair"), spec.get("seed")) for spec in specs}
    out = {}
    for what, of in (
        ("teacher", {(*_cohort(spec), spec.get("teacher_fingerprint")) for spec in specs}),
        ("split", {(*_cohort(spec), (spec.get("data") or {}).get("split_seed")) for spec in specs}),
    ):
        own = len(of) == len(cohorts) == len({(pair, value) for pair, _, value in of})
        out[what] = {"each": "seed" if own and len(cohorts) > len({pair for pair, _ in cohorts}) else "suite"}
    return out


def check_comparable(specs: Sequence[Spec], suite: Spec, again: str) -> None:
    """Raises `UserError` for students of different protocols or data, or of different teachers: within a pair, or
    within a seed of it where every seed has its own. again: what to do, in the imperative."""
    name, again = suite["name"], f"and cannot be compared; {again}"
    first: dict[object, dict[str, Any]] = {}
    for spec in specs:
        data = dict(spec.get("data") or {})
        split = first.setdefault(spec.get("seed") if varies(suite, "split") else "", data)
        known = first[next(iter(first))] | {key: split[key] for key in OF_SPLIT if key in split}
        for what, one, two in (("protocol", suite["protocol"], spec.get("protocol") or {}), ("data", known, data)):
            if changed := changes(one, two):
                raise UserError(f"the runs of '{name}' differ in {what} ({', '.join(sorted(changed))}) {again}")
    teachers: dict[tuple[str, object], set[object]] = {}
    for spec in specs:
        pair, seed = _cohort(spec)
        key = str(pair), seed if varies(suite, "teacher") else None
        teachers.setdefault(key, set()).add(spec.get("teacher_fingerprint"))
    for (pair, seed), of in teachers.items():
        if len(of) > 1:
            where = f"{pair}{'' if seed is None else f', seed {seed},'}"
            raise UserError(f"the runs of '{name}' on {where} have {len(of)} different teachers {again}")


def _cohort(spec: Spec) -> tuple[Any, Any]:
    return spec.get("pair"), spec.get("seed")


def conditions(suite: Spec) -> str:
    """Which variation the intervals over seeds hold, and what they are conditional on."""
    intervals = "Intervals are two-sided 95 % t intervals over seeds"
    if not varies(suite, "teacher"):
        return (
            f"{intervals}, conditional on one teacher and one split of the data: another teacher or split can move all"
            " rows, and the differences between them."
        )
    if not varies(suite, "split"):
        return (
            f"{intervals}. Every seed has a teacher of its own: they hold what another teacher and another student's"
            " seed change, together; with one student's seed per teacher the two cannot be separated. They are"
            " conditional on one split of the data: another split can move all rows, and the differences between them."
        )
    return (
        f"{intervals}. Every seed has a teacher and a split of its own (train and validation; test, too, where the data"
        " bring none): they hold what another teacher, split and student's seed change, together; with one student's"
        " seed per teacher and split the three cannot be separated."
    )


def variance(frame: pd.DataFrame, suite: Spec) -> list[str]:
    """How much of what varies from seed to seed is common to all rows and cancels in their differences; a line per
    pair of two rows and three seeds or more. Rows without a teacher have no part where each seed has its own."""
    what = [*(name for name in ("teacher", "split") if varies(suite, name)), "initial weights", "order", "augmentation"]
    taught = frame[frame["label"] != "vanilla"] if varies(suite, "teacher") else frame
    known = stats.complete(taught) if stats.TOP1 in taught and taught["status"].eq("finished").any() else {}
    out = []
    for pair, values in known.items():
        if min(values.shape) < 2 or len(values) < 3:
            continue
        shared, own = components(values.to_numpy())
        share = 100 * shared / (shared + own) if shared + own else 0.0
        out.append(
            f"{f'{pair}: o' if len(known) > 1 else 'O'}f the variance of top-1 from seed to seed, {share:.0f} % is"
            f" common to all rows of a seed ({t.joined(what)}) and cancels in differences within a seed; the rest, an"
            f" sd of {t.number(own**0.5, 1)} points, is each row's own. Estimated from {t.plural(len(values), 'seed')}"
            f" of {values.shape[1]} rows."
        )
    return out


def components(values: NDArray[np.float64]) -> tuple[float, float]:
    """The variances of the seed and of the rest in [n seeds, K rows], n and K >= 2, by the mean squares of a two-way
    layout without replicates (Searle, Casella & McCulloch 1992, Variance Components, 4.7); never below 0."""
    n, k = values.shape
    seeds = values.mean(axis=1)
    rest = values - values.mean(axis=0) - seeds[:, None] + values.mean()
    own = float((rest**2).sum()) / ((n - 1) * (k - 1))
    return max(0.0, float(seeds.var(ddof=1)) - own / k), own


def briefly(suite: Spec) -> str:
    """The same in a few words, after 'intervals'."""
    if not varies(suite, "teacher"):
        return "conditional on one teacher and one split"
    split = "" if varies(suite, "split") else ", conditional on one split"
    return f"over seeds with a teacher {'and a split ' if not split else ''}each{split}"


def answer(suite: Spec, decisions: Sequence[Mapping[str, Any]]) -> str:
    """What was decided, in one sentence per pair, on a line each."""
    pairs = list(dict.fromkeys(one["pair"] for one in decisions))
    lines = []
    for pair in pairs:
        parts = []
        for verdict in ("better", "worse", "close", "open"):
            rows = [one for one in decisions if (one["pair"], one["verdict"]) == (pair, verdict)]
            names, base = [one["method"] for one in rows], decisions[0]["reference"]
            standing = {
                "better": f"better than {base}",
                "worse": f"worse than {base}",
                "close": f"within {suite['until']['margin']:g} points of {base}",
                "open": f"undecided beside {base} ({t.plural(max((one['n'] for one in rows), default=0), 'seed')})",
            }[verdict]
            parts += [f"{t.joined(names)} {'is' if len(names) == 1 else 'are'} {standing}"] if names else []
        lines.append(f"{f'{pair}: ' if len(pairs) > 1 else ''}{'; '.join(parts)}.")
    return "\n".join(lines)


def sections(suite: Spec, decisions: Sequence[Mapping[str, Any]]) -> list[Section]:
    """How many seeds every row took and why, where seeds were added until all is decided."""
    if not decisions:
        return []
    until, reference, many = suite["until"], decisions[0]["reference"], len({one["pair"] for one in decisions}) > 1
    words = {"close": f"within ±{until['margin']:g}", "open": "undecided"}
    left = [
        f"{one['method']} on {one['pair']}" if many else one["method"] for one in decisions if one["verdict"] == "open"
    ]
    columns = {
        **({"pair": Column("pair", [one["pair"] for one in decisions], is_text=True)} if many else {}),
        "method": Column("method", [one["method"] for one in decisions], is_text=True),
        "verdict": Column("verdict", [words.get(one["verdict"], one["verdict"]) for one in decisions], is_text=True),
        "seeds": Column("seeds", [one["n"] for one in decisions]),
        "difference": Column(f"− {reference}", [_interval(one["low"], one["high"]) for one in decisions]),
    }
    text = (
        f"Seeds were added, from {until['least']} to {until['most']} at most, until each difference to {reference} was"
        f" decided: better, worse, or within ±{until['margin']:g} points, by t confidence sequences that hold at every"
        f" look and for {'all ' if len(decisions) > 1 else ''}{t.plural(len(decisions), 'comparison')} together with"
        f" 95 % probability. {f'Undecided: {t.joined(left)}.' if left else 'All are decided.'} The other intervals and"
        " p-values of this report are for a number of seeds that is fixed beforehand; after such a stop they claim too"
        " much, and the verdicts are these."
    )
    return [Section("Seeds until decided", [Text(text), Grid(columns)], "decided")]


def _interval(low: float | None, high: float | None) -> str:
    return t.NONE if low is None or high is None else t.interval(low, high, t.places(low, high))
