"""The comparison in one sentence, and no stronger than its intervals."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd

from bench.report import stats
from bench.report import text as t


@dataclass(frozen=True)
class Judgement:
    """What the runs of one pair tell against its baseline.

    verdict: "best" (the row of the largest mean is better than the baseline), "better" (only others are), "worse" (none
    is, some are worse), "open" (none is told from it), or why there are no intervals: "one seed", "no shared seed",
    "one method", "no baseline", "unfinished".
    """

    verdict: str
    rows: pd.DataFrame = field(default_factory=pd.DataFrame)  # of `stats.paired`, largest mean first, and `standing`
    near: list[str] | None = None  # of "best": who is not told from it; None: there is nobody else

    def named(self, standing: str) -> list[str]:
        """Methods of this `stats.standing` to the baseline, the largest mean first."""
        return [str(name) for name in self.rows.loc[self.rows["standing"] == standing, "label"]]


def answer(frame: pd.DataFrame, baseline: str) -> str:
    """One sentence per pair, on a line each."""
    pairs = list(frame["pair"].unique())
    lines = [_sentence(judge(frame[frame["pair"] == pair], baseline), baseline) for pair in pairs]
    return "\n".join(f"{pair}: {line}" for pair, line in zip(pairs, lines, strict=True)) if len(pairs) > 1 else lines[0]


def judge(frame: pd.DataFrame, baseline: str) -> Judgement:
    """What the runs of one pair tell of its methods against the baseline."""
    done = frame[(frame["status"] == "finished") & frame[stats.TOP1].notna()]
    if done.empty:
        return Judgement("unfinished")
    if baseline not in set(done["label"]):
        return Judgement("no baseline")
    if frame["label"].nunique() == 1:
        return Judgement("one method", stats.summary(done))
    rows = stats.paired(done, baseline)
    rows = rows[rows["n"] > 0].sort_values("mean", ascending=False, kind="stable")
    if rows.empty:
        return Judgement("no shared seed")
    if not (rows["n"] > 1).any():
        return Judgement("one seed", rows)
    rows = rows[rows["n"] > 1]
    standing = [stats.standing(*ends) for ends in rows[["low", "high"]].itertuples(index=False)]
    verdict = next((word for word in ("better", "worse") if word in standing), "open")
    near = _near(done, str(rows["label"].iloc[0]), baseline) if standing[0] == "better" else None
    return Judgement("best" if standing[0] == "better" else verdict, rows.assign(standing=standing), near)


def _near(done: pd.DataFrame, top: str, baseline: str) -> list[str] | None:
    """Who cannot be told from the top; None where there is nobody else."""
    rows = stats.paired(done[done["label"] != baseline], top)
    if rows.empty:
        return None
    # without an interval "open": one shared seed tells nothing apart
    return sorted(r.label for r in rows.itertuples() if stats.standing(r.low, r.high) in ("open", "equal"))


def _sentence(told: Judgement, baseline: str) -> str:
    if told.verdict == "unfinished":
        return "no run has finished."
    if told.verdict == "no baseline":
        return f"{baseline} has no finished run here, so nothing can be compared."
    if told.verdict == "no shared seed":
        return f"no method has finished a seed that {baseline} has finished, too, so nothing can be compared."
    top = told.rows.iloc[0]
    seeds = t.plural(int(top["n"]), "seed")
    if told.verdict == "one method":
        level = t.level(top["mean"], top["half"], int(top["n"]), t.decimals([top["half"]]))
        return f"{baseline} reaches {level} % top-1 over {seeds}; with one method there is no difference to judge."
    if told.verdict == "one seed":
        return (
            f"with one seed no method is distinguishable from {baseline} (the largest {_largest(top)}); run more seeds."
        )
    return _judged(told, baseline, top, seeds)


def _judged(told: Judgement, baseline: str, top: pd.Series, seeds: str) -> str:
    """The sentence where there are intervals."""
    alone = "the student alone" if baseline == "vanilla" else baseline
    if told.verdict == "best":
        few = "; few seeds: run more before relying on it" if top["n"] < 3 else ""
        return f"{top['label']} beats {baseline} by {_gain(top)} over {seeds}{_others(told.near)}{few}."
    if told.verdict == "better":
        better = told.rows[told.rows["standing"] == "better"]
        beat = t.joined([f"{row['label']} by {_gain(row)}" for _, row in better.iterrows()])
        first = (
            f"{top['label']} has the largest mean difference to {baseline}, {_points(top)}, but its interval contains 0"
        )
        return f"{first}; distinguishably better than {alone}: {beat}, over {seeds}."
    if told.verdict == "worse":
        below = told.named("worse")
        worse = f"{t.joined(below)} {'is' if len(below) == 1 else 'are'} distinguishably worse"
        return (
            f"no method is distinguishably better than {alone}, and {worse}; the largest {_largest(top)} over {seeds}."
        )
    return f"no method is distinguishable from {alone}: the largest {_largest(top)} over {seeds}."


def _others(near: list[str] | None) -> str:
    if near is None:
        return ""
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
