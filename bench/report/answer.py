"""The comparison in one sentence, and no stronger than its simultaneous intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from bench.report import sentences, simultaneous, stats
from bench.report import text as t

MOST = 5  # rows that a sentence gives the numbers of, or names where nothing is claimed of them

WORSE = "distinguishably worse"


@dataclass(frozen=True)
class Judgement:
    """How the methods of one pair stand to the row that they are compared with.

    verdict: "best" (the row of the largest mean is better than the reference), "better" (only others are), "worse"
    (none is, some are worse), "open" (none is distinguishable), or why there are no intervals: "one seed", "no shared
    seed", "one method", "no baseline", "unfinished".
    """

    verdict: str
    # label, n, mean, low, high (simultaneous), standing by these; single_low, single_high, alone: the standing by a
    # single interval. Largest mean first.
    rows: pd.DataFrame = field(default_factory=pd.DataFrame)
    ties: list[str] | None = None  # of "best": who is not distinguishable from it; None: there is nobody else

    def named(self, standing: str) -> list[str]:
        """Methods of this `stats.standing` to the reference, the largest mean first."""
        return [str(name) for name in self.rows.loc[self.rows["standing"] == standing, "label"]]


def answer(frame: pd.DataFrame, reference: str) -> str:
    """One sentence per pair, on a line each."""
    pairs = list(frame["pair"].unique())
    lines = [_sentence(judge(frame[frame["pair"] == pair], reference), reference) for pair in pairs]
    return "\n".join(f"{pair}: {line}" for pair, line in zip(pairs, lines, strict=True)) if len(pairs) > 1 else lines[0]


def judge(frame: pd.DataFrame, reference: str) -> Judgement:
    """How the methods of one pair stand to the reference, by intervals that hold for all of them at once."""
    done = frame[(frame["status"] == "finished") & frame[stats.TOP1].notna()]
    if done.empty:
        return Judgement("unfinished")
    if reference not in set(done["label"]):
        return Judgement("no baseline")
    if frame["label"].nunique() == 1:
        return Judgement("one method", stats.summary(done))
    rows = simultaneous.to_reference(done, reference)
    rows = rows.sort_values("mean", ascending=False, kind="stable")
    if rows.empty:
        return Judgement("no shared seed")
    if not (rows["n"] > 1).any():
        return Judgement("one seed", rows)
    rows = rows[rows["n"] > 1].rename(columns={"verdict": "standing"})
    single = stats.paired(done, reference)[["label", "low", "high"]].rename(columns="single_{}".format)
    rows = rows.merge(single, left_on="label", right_on="single_label").drop(columns="single_label")
    ends = rows[["single_low", "single_high"]].itertuples(index=False)
    rows = rows.assign(alone=[stats.standing(*each) for each in ends])
    first, standing = str(rows["standing"].iloc[0]), set(rows["standing"])
    verdict = "best" if first == "better" else next((word for word in ("better", "worse") if word in standing), "open")
    ties = simultaneous.tied(done, str(rows["label"].iloc[0])) if verdict == "best" and len(rows) > 1 else None
    return Judgement(verdict, rows, ties and [name for name in ties if name != reference])


def _sentence(found: Judgement, reference: str) -> str:
    nothing = {
        "unfinished": "no run has finished.",
        "no baseline": f"{reference} has no finished run here, so nothing can be compared.",
        "no shared seed": f"no method has finished a seed that {reference} has finished, too, so nothing can be "
        "compared.",
    }
    if found.verdict in nothing:
        return nothing[found.verdict]
    top = found.rows.iloc[0]
    if found.verdict == "one method":
        level = t.level(top["mean"], top["half"], int(top["n"]), t.decimals([top["half"]]))
        return (
            f"{reference} reaches {level} % top-1 over {_seeds(found.rows)}; with one method there is no difference to "
            "judge."
        )
    if found.verdict == "one seed":
        return (
            f"with one seed no method is distinguishable from {reference} ({_nearest(top)}, {_points(top)}); run more "
            "seeds."
        )
    parts = {"best": _best, "better": _better}.get(found.verdict, _none_better)(found, reference)
    family = len(found.rows)
    held = f" ({sentences.at_once(family)})" if family > 1 else ""
    return f"{'; '.join(filter(None, parts))}{held}{_single(found)}."


def _best(found: Judgement, reference: str) -> list[str]:
    """The row of the largest mean is better."""
    better = found.rows[found.rows["standing"] == "better"]
    top, others = better.iloc[0], better.iloc[1:]
    too = f"so {'does' if len(others) == 1 else 'do'} {_listed(others)}" if len(others) else ""
    if found.ties is None:
        near = ""
    elif not found.ties:
        near = f"every other method is distinguishable from {top['label']}"
    else:
        near = f"{_few(found.ties)} {_be(found.ties)} not distinguishable from {top['label']}"
    return [_claim(better, f"{top['label']} beats {reference} by {_points(top, sign=False)}"), too, near]


def _better(found: Judgement, reference: str) -> list[str]:
    """Others than the row of the largest mean are better."""
    top, better = found.rows.iloc[0], found.rows[found.rows["standing"] == "better"]
    if len(better) == 1:
        said = f"{better['label'].iloc[0]} beats {reference} by {_points(better.iloc[0], sign=False)}"
    else:
        said = f"{len(better)} methods beat {reference}: {_listed(better)}"
    return [
        _claim(better, said),
        f"{top['label']} has the largest mean difference, {_points(top)}, but its interval contains 0",
    ]


def _none_better(found: Judgement, reference: str) -> list[str]:
    """No row is better; the reference may lead, and some rows may be worse."""
    top, below, rows = found.rows.iloc[0], found.named("worse"), found.rows[found.rows["standing"] == "worse"]
    alone = "the student alone" if reference == "vanilla" else reference
    nearest = f"{_nearest(top)}, {_points(top)}, over {_seeds(found.rows.iloc[:1])}"
    if len(below) == len(found.rows):
        every = "every other method is" if len(below) > 1 else f"{below[0]} is"
        return [f"{alone} leads", _claim(rows, f"{every} {WORSE}", over=False), nearest]
    none = (
        f"{alone} leads, but is not distinguishable from {_few(found.named('open'))}"
        if top["mean"] < 0 and below
        else f"{alone} leads, but no method is distinguishable from it"
        if top["mean"] < 0
        else f"no method is distinguishab{'ly better than' if below else 'le from'} {alone}"
    )
    worse = _claim(rows, f"{_few(below)} {_be(below)} {WORSE}", over=False) if below else ""
    return [none, worse, nearest]


def _claim(rows: pd.DataFrame, said: str, over: bool = True) -> str:
    """What intervals decide of these rows: stated where all have `simultaneous.FEW` seeds, else suggested."""
    if rows["n"].min() < simultaneous.FEW:
        return f"{_seeds(rows)} suggest that {said.replace(WORSE, 'worse')}"
    return f"{said} over {_seeds(rows)}" if over else said


def _seeds(rows: pd.DataFrame) -> str:
    return t.span(rows["n"], "seed")


def _nearest(top: pd.Series) -> str:
    """Who has the largest mean difference, or where it is negative comes closest."""
    return f"the closest is {top['label']}" if top["mean"] < 0 else f"the largest mean difference is {top['label']}'s"


def _single(found: Judgement) -> str:
    """Who would be better by an interval that is made for one comparison; such a choice among many is often luck."""
    lucky = found.rows[(found.rows["alone"] == "better") & (found.rows["standing"] != "better")]
    if lucky.empty:
        return ""
    ends = lucky.drop(columns=["low", "high"]).rename(columns={"single_low": "low", "single_high": "high"})
    word = "Also better" if "better" in set(found.rows["standing"]) else "Better"
    return f". {word} by single 95 % intervals alone, which are not corrected: {_listed(ends)}"


def _listed(rows: pd.DataFrame) -> str:
    """'dkd by 3.1 points [0.5, 5.6] and kd by …'; all are named, and the first `MOST` have their numbers."""
    each = [f"{row['label']} by {_points(row, sign=False)}" for _, row in rows.head(MOST).iterrows()]
    return t.joined([*each, *map(str, rows["label"].iloc[MOST:])])


def _few(names: Sequence[str]) -> str:
    more = len(names) - MOST
    return t.joined([*names[:MOST], f"{more} more"] if more > 1 else names)


def _be(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _points(row: pd.Series, sign: bool = True) -> str:
    """'+1.8 points [+0.9, +2.7]'; without an interval where n = 1."""
    places = t.places(row["low"], row["high"])
    mean = t.signed(row["mean"], places) if sign else t.number(row["mean"], places)
    ends = f" {t.interval(row['low'], row['high'], places, sign=sign)}" if row["n"] > 1 else ""
    return f"{mean} points{ends}"
