"""Where numbers were made: commit, versions and hardware of the runs."""

from __future__ import annotations

import pandas as pd

from bench.report.blocks import Block, Terms, Text

NAMES = ("kdbench", "torch", "device", "cuda", "cudnn", "driver", "cpu", "cpu_capability", "threads")
TIMED = ("device", "driver", "cpu", "cpu_capability", "threads")  # what a step time depends on


def environment(frame: pd.DataFrame) -> list[Block]:
    """What the runs recorded; more than one value of a name means that machines or versions were mixed."""
    values = {name: ", ".join(found) for name in NAMES if (found := distinct(frame, name))}
    mixed = any(len(distinct(frame, name)) > 1 for name in TIMED)
    remark = "Hardware or thread counts differ between runs: a step-time ratio holds only where a seed ran on one."
    return [Terms({"commit": commits(frame), **values}), *[Text(remark)] * mixed]


def commits(frame: pd.DataFrame) -> str:
    """'0123456789ab', '… with uncommitted changes', several with commas."""
    both = frame.reindex(columns=["commit", "dirty"]).astype(object).drop_duplicates().itertuples(index=False)
    recorded = [(commit[:12], dirty) for commit, dirty in both if isinstance(commit, str) and commit]
    texts = [f"{commit}{' with uncommitted changes' if dirty in (True, 'True') else ''}" for commit, dirty in recorded]
    return ", ".join(texts) or "unknown"


def distinct(frame: pd.DataFrame, name: str) -> list[str]:
    """The different texts of a column, sorted; none where there is no such column."""
    return sorted({str(value) for value in frame[name].dropna() if str(value)}) if name in frame else []
