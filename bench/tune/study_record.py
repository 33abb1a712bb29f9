"""What a study leaves in its folder: a record like any run's, its trials as a table, Optuna's figures, the values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import optuna
import pandas as pd
import yaml
from optuna.trial import FrozenTrial

from bench.errors import notice
from bench.jobs.cohort_job import PairContext
from bench.report.studies import study_figures
from bench.tune.trials import METRIC, TIE_BREAKER, TrialResult, result_of_trial
from tracking.lines import write_atomically
from tracking.record import Record

MATPLOTLIB_LOCK = Lock()  # matplotlib draws in one thread at a time
STATES = {"finished": "complete", "pruned": "pruned"}


class StudyRecord:
    """The record grows by one line per told trial; it ends when a trial has been chosen."""

    def __init__(self, folder: Path, spec: Mapping[str, Any], context: PairContext) -> None:
        self.folder, self.spec, self.mirror = folder, spec, context.mirror
        self.record = Record(folder)
        if message := self.record.repair():
            notice(message)
        self.record.begin(spec["study_fingerprint"], spec, context.environment)
        if self.mirror:
            self.mirror.finish(self.record)  # before its trials, which hang below it

    def write_trials(self, reported_trials: Sequence[FrozenTrial]) -> None:
        """Make the record hold these trials."""
        rows, best = [], None
        for trial in reported_trials:
            result = result_of_trial(trial)
            row = {"cost/student_steps": result.student_steps, "cost/seconds": result.seconds}
            if result.top1 is not None and result.nll is not None:
                row |= {METRIC: result.top1, TIE_BREAKER: result.nll}
                best = max(best or 0.0, result.top1) if result.status == "finished" else best
            if best is not None:
                row[f"best/{METRIC}"] = best
            rows.append({"epoch": trial.number, "time": result.ended, "metrics": row})
        self.record.write_epochs(rows)
        if self.mirror:
            self.mirror.offer(self.record)

    def close(self, study: optuna.Study, content: Mapping[str, Any]) -> None:
        """Table, figures and values, then the record's end; nothing where they are there already."""
        text, file = yaml.safe_dump(dict(content), sort_keys=False), self.folder / "tuned.yaml"
        reported_trials = study.get_trials(deepcopy=False)
        is_unchanged = len(self.record.epochs) == len(reported_trials) and file.exists() and file.read_text() == text
        if is_unchanged and self.record.status == "finished" and self.record.is_intact():
            return
        write_atomically(file, text)
        metrics = {f"best/hp.{k}": v for k, v in content["values"].items() if not isinstance(v, str | bool)}
        metrics |= {METRIC: content["validation_top1"]}
        with MATPLOTLIB_LOCK:
            files = ["tuned.yaml", *study_figures(study, self.folder)]
        self._end("finished", "", reported_trials, content["budget"], metrics, files)

    def fail(self, reported_trials: Sequence[FrozenTrial], reason: str, budget: Mapping[str, int]) -> None:
        """The end of a study in which no trial finished."""
        self._end("failed", reason, reported_trials, budget, {}, [])

    def _end(
        self,
        status: str,
        reason: str,
        reported_trials: Sequence[FrozenTrial],
        budget: Mapping[str, int],
        metrics: Mapping[str, float],
        files: list[str],
    ) -> None:
        self.write_trials(reported_trials)
        write_atomically(
            self.folder / "trials.csv", self.table(reported_trials).to_csv(index=False, lineterminator="\n")
        )
        counts = {"cost/student_steps" if key == "student_steps" else key: value for key, value in budget.items()}
        self.record.end(status, reason, {**metrics, **counts}, ["trials.csv", *files])
        if self.mirror:
            self.mirror.finish(self.record)

    def table(self, reported_trials: Sequence[FrozenTrial]) -> pd.DataFrame:
        """One row per trial."""
        head = {"suite": self.spec["suite"], "pair": self.spec["pair"], "method": self.spec["label"]}
        return pd.DataFrame(
            [head | _row(trial, result_of_trial(trial), self.spec["study"]) for trial in reported_trials]
        )


def _row(trial: FrozenTrial, result: TrialResult, study: str) -> dict[str, Any]:
    return {
        "study": study,
        "trial": trial.number,
        "state": STATES.get(result.status, "failed"),
        "recipe": trial.number == 0,
        "top1": result.top1,
        "nll": result.nll,
        "step_ms": result.step_ms,
        "epochs": result.epochs,
        "student_steps": result.student_steps,
        "seconds": result.seconds,
        "reason": result.reason,
        **{f"hp.{key}": value for key, value in trial.params.items()},
    }
