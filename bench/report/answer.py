"""The comparison in one sentence, and no stronger than its intervals."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd

from bench.report import stats
from bench.report import text as t


@dataclass(frozen=True)
class Judgement:
    """How the methods of one pair stand to its baseline.

    verdict: "best" (the row of the largest mean is better than the baseline), "better" (only others are), "worse" (none
    is, some are worse), "open" (none is distinguishable), or why there are no intervals: "one seed", "no shared seed",
    "one method", "no baseline", "unfinished".
    """

    verdict: str
    rows: pd.DataFrame = field(default_factory=pd.DataFrame)  # of `stats.paired`, largest mean first, and `standing`
    ties: list[str] | None = None  # of "best": who is not distinguishable from it; None: there is nobody else

    def named(self, standing: str) -> list[str]:
        """Methods of this `stats.standing` to the baseline, the largest mean first."""
        return [str(name) for name in self.rows.loc[self.rows["standing"] == standing, "label"]]


def answer(frame: pd.DataFrame, baseline: str) -> str:
    """One sentence per pair, on a line each."""
    pairs = list(frame["pair"].unique())
    lines = [_sentence(judge(frame[frame["pair"] == pair], baseline), baseline) for pair in pairs]
    return "\n".join(f"{pair}: {line}" for pair, line in zip(pairs, lines, strict=True)) if len(pairs) > 1 else lines[0]


def judge(frame: pd.DataFrame, baseline: str) -> Judgement:
    """How the methods of one pair stand to the baseline."""
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
    ties = _ties(done, str(rows["label"].iloc[0]), baseline) if standing[0] == "better" else None
    return Judgement("best" if standing[0] == "better" else verdict, rows.assign(standing=standing), ties)


def _ties(done: pd.DataFrame, top: str, baseline: str) -> list[str] | None:
    """Who is not distinguishable from the top; None where there is nobody else."""
    rows = stats.paired(done[done["label"] != baseline], top)
    # without an interval "open": one shared seed decides nothing
    ties = [row.label for row in rows.itertuples() if stats.standing(row.low, row.high) in ("open", "equal")]
    return None if rows.empty else sorted(ties)


def _sentence(found: Judgement, baseline: str) -> str:
    nothing = {
        "unfinished": "no run has finished.",
        "no baseline": f"{baseline} has no finished run here, so nothing can be compared.",
        "no shared seed": f"no method has finished a seed that {baseline} has finished, too, so nothing can be "
        "compared.",
    }
    if found.verdict in nothing:
        return nothing[found.verdict]
    top, alone = found.rows.iloc[0], "the student alone" if baseline == "vanilla" else baseline
    seeds = t.plural(int(top["n"]), "seed")
    if found.verdict == "one method":
        level = t.level(top["mean"], top["half"], int(top["n"]), t.decimals([top["half"]]))
        return f"{baseline} reaches {level} % top-1 over {seeds}; with one method there is no difference to judge."
    if found.verdict == "best":
        few = "; few seeds: run more before relying on it" if top["n"] < 3 else ""
        return f"{top['label']} beats {baseline} by {_points(top, sign=False)} over {seeds}{_others(found.ties)}{few}."
    if found.verdict == "better":
        better = found.rows[found.rows["standing"] == "better"]
        beat = t.joined([f"{row['label']} by {_points(row, sign=False)}" for _, row in better.iterrows()])
        first = f"{top['label']} has the largest mean difference to {baseline}, {_points(top)}"
        return f"{first}, but its interval contains 0; distinguishably better than {alone}: {beat}, over {seeds}."
    largest = f"mean difference is {top['label']}'s, {_points(top)}"
    if found.verdict == "one seed":
        return f"with one seed no method is distinguishable from {baseline} (the largest {largest}); run more seeds."
    if found.verdict == "worse":
        below = found.named("worse")
        worse = f"{t.joined(below)} {'is' if len(below) == 1 else 'are'} distinguishably worse"
        return f"no method is distinguishably better than {alone}, and {worse}; the largest {largest} over {seeds}."
    return f"no method is distinguishable from {alone}: the largest {largest} over {seeds}."


def _others(ties: list[str] | None) -> str:
    if ties is None:
        return ""
    if not ties:
        return "; every other method is distinguishable from it"
    return f"; {t.joined(ties)} {'is' if len(ties) == 1 else 'are'} not distinguishable from it"


def _points(row: pd.Series, sign: bool = True) -> str:
    """'+1.8 points [+0.9, +2.7]'; without an interval where n = 1."""
    places = t.decimals([(row["high"] - row["low"]) / 2], [row["low"], row["high"]])
    mean = t.signed(row["mean"], places) if sign else t.number(row["mean"], places)
    ends = f" {t.interval(row['low'], row['high'], places, sign=sign)}" if row["n"] > 1 else ""
    return f"{mean} points{ends}"
