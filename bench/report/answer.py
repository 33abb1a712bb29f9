"""The comparison in one sentence, and no stronger than its intervals."""

from __future__ import annotations

import pandas as pd

from bench.report import stats
from bench.report import text as t


def answer(frame: pd.DataFrame, baseline: str) -> str:
    """One sentence per pair, on a line each."""
    pairs = list(frame["pair"].unique())
    lines = [_pair(frame[frame["pair"] == pair], baseline) for pair in pairs]
    return "\n".join(f"{pair}: {line}" for pair, line in zip(pairs, lines, strict=True)) if len(pairs) > 1 else lines[0]


def _pair(frame: pd.DataFrame, baseline: str) -> str:
    done = frame[(frame["status"] == "finished") & frame[stats.TOP1].notna()]
    if done.empty:
        return "no run has finished."
    if baseline not in set(done["label"]):
        return f"{baseline} has no finished run here, so nothing can be compared."
    if frame["label"].nunique() == 1:
        mean, half, n = stats.summary(done)[["mean", "half", "n"]].iloc[0]
        level = t.level(mean, half, int(n), t.decimals([half]))
        seeds = t.plural(int(n), "seed")
        return f"{baseline} reaches {level} % top-1 over {seeds}; with one method there is no difference to judge."
    rows = stats.paired(done, baseline)
    rows = rows[rows["n"] > 0].sort_values("mean", ascending=False, kind="stable")
    if rows.empty:
        return f"no method has finished a seed that {baseline} has finished, too, so nothing can be compared."
    if not (rows["n"] > 1).any():
        return f"one seed tells no method from {baseline} (the largest {_largest(rows.iloc[0])}); run more seeds."
    return _judged(done, baseline, rows[rows["n"] > 1])


def _judged(frame: pd.DataFrame, baseline: str, rows: pd.DataFrame) -> str:
    """The sentence where there are intervals. rows: `paired` to the baseline, largest mean first."""
    alone = "the student alone" if baseline == "vanilla" else baseline
    top, seeds = rows.iloc[0], t.plural(int(rows["n"].iloc[0]), "seed")
    above = [str(name) for name in rows.loc[rows["low"] > 0, "label"]]
    below = [str(name) for name in rows.loc[rows["high"] < 0, "label"]]
    if top["low"] > 0:
        others = _others(frame, str(top["label"]), baseline)
        few = "; few seeds: run more before relying on it" if top["n"] < 3 else ""
        return f"{top['label']} beats {baseline} by {_gain(top)} over {seeds}{others}{few}."
    if above:
        beat = t.joined([f"{name} by {_gain(rows[rows['label'] == name].iloc[0])}" for name in above])
        first = (
            f"{top['label']} has the largest mean difference to {baseline}, {_points(top)}, but its interval contains 0"
        )
        return f"{first}; distinguishably better than {alone}: {beat}, over {seeds}."
    if below:
        verb = "is" if len(below) == 1 else "are"
        worse = f"{t.joined(below)} {verb} distinguishably worse"
        return (
            f"no method is distinguishably better than {alone}, and {worse}; the largest {_largest(top)} over {seeds}."
        )
    return f"no method is distinguishable from {alone}: the largest {_largest(top)} over {seeds}."


def _others(frame: pd.DataFrame, top: str, baseline: str) -> str:
    """Who cannot be told from the top."""
    rows = stats.paired(frame[frame["label"] != baseline], top)
    if rows.empty:
        return ""
    apart = (rows["low"] > 0) | (rows["high"] < 0)  # false without an interval: one shared seed tells nothing apart
    near = sorted(rows.loc[~apart, "label"])
    if not near:
        return "; every other method is distinguishable from it"
    return f"; {t.joined(near)} {'is' if len(near) == 1 else 'are'} not distinguishable from it"


def _gain(row: pd.Series) -> str:
    places = t.decimals([(row["high"] - row["low"]) / 2], [row["low"], row["high"]])
    return f"{t.number(row['mean'], places)} points {t.interval(row['low'], row['high'], places, sign=False)}"


def _largest(row: pd.Series) -> str:
    return f"mean difference is {row['label']}'s, {_points(row)}"


def _points(row: pd.Series) -> str:
    places = t.decimals([(row["high"] - row["low"]) / 2], [row["low"], row["high"]])
    if row["n"] < 2:
        return f"{t.signed(row['mean'], places)} points"
    return f"{t.signed(row['mean'], places)} points {t.interval(row['low'], row['high'], places)}"
