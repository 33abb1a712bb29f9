from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from bench.jobs.progress import Progress
from bench.jobs.run import SuiteOutcome, run_suite
from bench.suite.suite import validate
from tracking.record import scan

Numbers = dict[str, float]


def run(raw: dict[str, Any], results: Path, **changes: Any) -> SuiteOutcome:
    """`kdbench run` in this process, of the suite with these changes; no report is written."""
    torch.set_num_threads(1)
    quiet, rerun = Progress(Console(quiet=True), quiet=True), changes.pop("rerun", False)
    suite = validate({**raw, **changes}, "test")
    return run_suite(suite, results, device=torch.device("cpu"), rerun=rerun, progress=quiet, mirror=None)


def numbers(results: Path) -> dict[str, Numbers]:
    """Final metrics of the runs of `tiny`, by label; times left out."""
    return {
        record.header["spec"]["label"]: {k: v for k, v in (record.final or {})["metrics"].items() if "_ms" not in k}
        for record in scan(results / "tiny")
    }
