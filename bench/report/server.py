"""What a report says and needs where its runs come out of a tracking store, which keeps no list of a suite's runs."""

from __future__ import annotations

from typing import Any

from bench.errors import UserError
from bench.report import design
from tracking.query import Found

MIXED = "delete those of one kind in MLflow, or give the suite another name when its settings change"
ABSENT = " What needs every epoch or every prediction is left out: the runs' artifacts do not lie on this machine."


def manifest(found: Found, suite: str) -> dict[str, Any]:
    """As suite.json has it: suite, fingerprints. Raises `UserError` where the store has no run of the suite."""
    if found.frame.empty:
        raise UserError(f"no runs of '{suite}' in MLflow at {found.where}")
    newest = found.frame.loc[found.frame["time"].idxmax(), "fingerprint"]
    n, spec = len(found.frame), found.specs[newest]
    absent = "" if len(found.records) == n else ABSENT
    about = f"Made from the {n} runs of this suite that MLflow at `{found.where}` holds, whoever made them.{absent}"
    described = {"name": suite, "about": about, "protocol": spec["protocol"], "data": spec["data"]}
    described |= design.inferred(list(found.specs.values()))
    return {"suite": described, "fingerprints": list(found.frame["fingerprint"])}
