from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import torch
from rich.console import Console

from bench.jobs.progress import Progress
from bench.suite.suite import validate
from bench.tune import TuningResult, tune


def tuned(raw: dict[str, Any], results: Path, name: str = "", **plan: Any) -> list[TuningResult]:
    """`kdbench tune` in this process, with a plan of seconds."""
    results.mkdir(exist_ok=True)
    plan = {"trials": 4, "batch": 2, "rule": "best_trial", **raw.get("tune", {}), **plan}
    suite = validate({**raw, "tune": plan}, "test")
    return tune(
        suite, results, device=torch.device("cpu"), progress=Progress(Console(quiet=True), quiet=True), name=name
    )


def _study(results: Path, method: str) -> optuna.Study:
    storage = f"sqlite:///{results / 'optuna.db'}"
    return optuna.load_study(study_name=f"tiny/resnet8w8->resnet8w4/{method}", storage=storage)


def trials_of(results: Path, method: str = "kd") -> list[tuple[Any, ...]]:
    """What a study was told: parameters, state, value and the curve of every trial."""
    return [(t.params, t.state.name, t.values, t.intermediate_values) for t in _study(results, method).get_trials()]


def attributes_of(results: Path, method: str = "kd") -> dict[str, Any]:
    """What optuna-dashboard shows of a study beside its trials."""
    return dict(_study(results, method).user_attrs)
