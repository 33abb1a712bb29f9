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
from bench.tune.trials import METRIC, TIE, Result, result_of_trial
from tracking.lines import replace
from tracking.record import Record

DRAWING = Lock()  # matplotlib draws in one thread at a time
STATES = {"finished": "complete", "pruned": "pruned"}


class Ledger:
    """The record grows by one line per told trial; it ends when a trial has been chosen."""

    def __init__(self, folder: Path, described: Mapping[str, Any], context: PairContext) -> None:
        self.folder, self.described, self.mirror = folder, described, context.mirror
        self.record = Record(folder)
        if told := self.record.mend():
            notice(told)
        self.record.begin(described["study_fingerprint"], described, context.environment)
        if self.mirror:
            self.mirror.finish(self.record)  # before its trials, which hang below it

    def hold(self, told: Sequence[FrozenTrial]) -> None:
        """Make the record hold these trials."""
        rows, best = [], None
        for trial in told:
            result = result_of_trial(trial)
            row = {"cost/student_steps": result.student_steps, "cost/seconds": result.seconds}
            if result.top1 is not None and result.nll is not None:
                row |= {METRIC: result.top1, TIE: result.nll}
                best = max(best or 0.0, result.top1) if result.status == "finished" else best
            if best is not None:
                row[f"best/{METRIC}"] = best
            rows.append({"epoch": trial.number, "time": result.ended, "metrics": row})
        self.record.hold_epochs(rows)
        if self.mirror:
            self.mirror.offer(self.record)

    def close(self, study: optuna.Study, content: Mapping[str, Any]) -> None:
        """Table, figures and values, then the record's end; nothing where they are there already."""
        text, file = yaml.safe_dump(dict(content), sort_keys=False), self.folder / "tuned.yaml"
        told = study.get_trials(deepcopy=False)
        same = len(self.record.epochs) == len(told) and file.exists() and file.read_text() == text
        if same and self.record.status == "finished" and self.record.intact():
            return
        replace(file, text)
        numbers = {f"best/hp.{k}": v for k, v in content["values"].items() if not isinstance(v, str | bool)}
        numbers |= {METRIC: content["validation_top1"]}
        with DRAWING:
            files = ["tuned.yaml", *study_figures(study, self.folder)]
        self._end("finished", "", told, content["budget"], numbers, files)

    def fail(self, told: Sequence[FrozenTrial], reason: str, budget: Mapping[str, int]) -> None:
        """The end of a study in which no trial finished."""
        self._end("failed", reason, told, budget, {}, [])

    def _end(
        self,
        status: str,
        reason: str,
        told: Sequence[FrozenTrial],
        budget: Mapping[str, int],
        numbers: Mapping[str, float],
        files: list[str],
    ) -> None:
        self.hold(told)
        replace(self.folder / "trials.csv", self.table(told).to_csv(index=False, lineterminator="\n"))
        counts = {"cost/student_steps" if key == "student_steps" else key: value for key, value in budget.items()}
        self.record.end(status, reason, {**numbers, **counts}, ["trials.csv", *files])
        if self.mirror:
            self.mirror.finish(self.record)

    def table(self, told: Sequence[FrozenTrial]) -> pd.DataFrame:
        """One row per trial."""
        head = {"suite": self.described["suite"], "pair": self.described["pair"], "method": self.described["label"]}
        return pd.DataFrame([head | _row(trial, result_of_trial(trial), self.described["study"]) for trial in told])


def _row(trial: FrozenTrial, result: Result, study: str) -> dict[str, Any]:
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
