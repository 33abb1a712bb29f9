"""Trials in training: a batch of settings as one cohort, kept on disk like any run, and judged at its rungs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from bench.data import n_batches
from bench.jobs import claims, run_writer
from bench.jobs.cohort_job import PairContext, cohort_factory, open_run
from bench.jobs.fit import fit_into_memory
from bench.jobs.run_writer import RunWriter
from bench.jobs.train_cohort import train_cohort
from bench.suite.pair import Pair
from bench.suite.spec import MethodSpec
from bench.suite.suite import Run, Suite
from bench.training.cohort import Cohort
from bench.tune.pruning import trials_to_prune
from tracking.record import FILE, Record

ENDED = ("finished", "pruned", "failed", "diverged")
METRIC, TIE_BREAKER = "validation/top1", "validation/nll"  # of the last epoch, as the headline is
STEP = "cost/step_alone_ms"


@dataclass(frozen=True)
class TrialResult:
    """What a trial came to, read from its record."""

    status: str
    reason: str
    top1: float | None  # validation, %, after the last epoch that it saw; None where it failed
    nll: float | None
    step_ms: float | None  # of its step, as it would be alone: with its views and the teacher's forward
    epochs: int  # those before the first included, as in the steps
    student_steps: int
    seconds: float  # of its own steps
    began: float  # Unix seconds
    ended: float
    curve: dict[int, float] = field(default_factory=dict)  # validation top-1 by epoch


@dataclass(frozen=True)
class TrialBatch:
    """Trials that train as one cohort, as data that can be sent."""

    suite: Suite
    pair: Pair
    results: Path
    spec: MethodSpec
    settings: Mapping[int, Mapping[str, Any]]  # by number of the trial
    folder: Path  # of the study
    extra: Mapping[str, Any]  # what else the trials' records say
    title: str
    seed: int
    rungs: tuple[int, ...] = ()
    group_size: int = 0  # students on the device at a time; 0: all
    opens_test_split: bool = field(default=False, init=False)  # is the test split open?

    @property
    def records(self) -> list[Record]:
        return [Record(path.parent) for path in sorted(self.folder.glob(f"trials/*/{FILE}"))]

    def run(self, context: PairContext) -> dict[int, TrialResult]:
        """Train what no record holds yet. Raises `claims.ClaimHeld` where another process does."""
        path = claims.claim_file(self.results / self.suite.name, f"trials {self.folder.name}")
        with claims.claim(path, self.title, [self.folder]) as check_claim:
            device, log = context.data.device, context.progress.log
            return fit_into_memory(
                partial(train, context, self, check_claim), len(self.settings), self.group_size, device, self.title, log
            )


def trial_of_result(
    result: TrialResult, params: Mapping[str, Any], space: Mapping[str, BaseDistribution], objectives: int
) -> FrozenTrial:
    """A result as a trial of Optuna's, whole: it needs no running trial in the database."""
    state = {"finished": TrialState.COMPLETE, "pruned": TrialState.PRUNED}.get(result.status, TrialState.FAIL)
    values = [value for value in (result.top1, result.step_ms) if value is not None][:objectives]
    trial = create_trial(
        state=state,
        values=None if state == TrialState.FAIL else values,
        params=dict(params),
        distributions=dict(space),
        intermediate_values=result.curve if objectives == 1 else {},
        user_attrs={name: value for name, value in asdict(result).items() if name != "curve"},
    )
    trial.datetime_start, trial.datetime_complete = map(datetime.fromtimestamp, (result.began, result.ended))
    return trial


def result_of_trial(trial: FrozenTrial) -> TrialResult:
    """The inverse."""
    return TrialResult(**trial.user_attrs, curve=dict(trial.intermediate_values))


def train(
    context: PairContext, batch: TrialBatch, check_claim: run_writer.ClaimCheck, group_size: int
) -> dict[int, TrialResult]:
    """Train the settings as students of one seed. What a record holds is not trained again."""
    spec, seed, rungs = batch.spec, batch.seed, list(batch.rungs)
    records: dict[int, Record] = {}
    writers: dict[int, RunWriter] = {}

    def open_runs() -> Iterator[RunWriter]:
        for number, values in batch.settings.items():
            row = spec.model_copy(update={"label": f"trial-{number}", "set": {**spec.set, **values}})
            run = Run.of(
                context.suite, context.pair, row, seed, dict(context.data_description), context.teacher.fingerprint
            )
            record = records[number] = Record(batch.folder / "trials" / run.fingerprint)
            is_duplicate = any(record.folder == writer.record.folder for writer in writers.values())
            if is_duplicate or run_writer.is_finished_after_repair(record, ENDED):
                continue
            if writer := open_run(run, record, context, dict(batch.extra) | {"label": spec.title, "trial": number}):
                writers[number] = writer
                yield writer

    def prune(cohort: Cohort) -> None:
        while rungs and all(member.epoch >= rungs[0] for member in cohort.running_members()):
            _prune(rungs.pop(0), cohort, writers, records)

    def close_runs(cohort: Cohort, _: list[RunWriter]) -> None:
        context.teacher.verify_unchanged(writers.values())
        for writer in writers.values():
            _evaluate_and_end(writer, cohort)

    train_cohort(
        batch.title,
        open_runs,
        cohort_factory(context, seed, group_size),
        close_runs,
        check_claim,
        context.progress,
        prune,
    )
    steps = n_batches(len(context.data.train.y), context.suite.protocol.batch_size)
    return {number: _result_of_record(record, steps) for number, record in records.items()}


def _evaluate_and_end(writer: RunWriter, cohort: Cohort) -> None:
    """Keep a trial: its last epoch on the validation split, and what it took."""
    member, last = writer.member, {}
    if member.status == "running":
        with cohort.contain_errors(member, "in the final evaluation"):
            last_metrics = member.history[-1]["metrics"]
            last = {name: value for name, value in last_metrics.items() if name.startswith("valid")} | cohort.costs(
                member
            )
            member.status = "finished"
    writer.end(member.status, member.reason, last)


def _prune(rung: int, cohort: Cohort, writers: dict[int, RunWriter], records: Mapping[int, Record]) -> None:
    """End the losers of a rung: they leave the cohort, and cost nothing more."""
    scores, histories = {}, {writer.record.folder: writer.member.history for writer in writers.values()}
    for number, record in records.items():
        for row in histories.get(record.folder) or record.epochs:
            if row["epoch"] == rung and METRIC in row["metrics"]:
                scores[number] = (row["metrics"][METRIC], row["metrics"][TIE_BREAKER])
    for number in trials_to_prune(scores):
        if number in writers and writers[number].member.is_training:
            writer = writers.pop(number)
            best = max(top1 for top1, _ in scores.values())
            writer.member.fail("pruned", f"after epoch {rung}: {scores[number][0]:.1f} % beside {best:.1f} %")
            cohort.members.remove(writer.member)
            writer.end("pruned", writer.member.reason, {})


def _result_of_record(record: Record, steps: int) -> TrialResult:
    lines = record.read()
    assert lines.end is not None
    curve = {row["epoch"]: row["metrics"][METRIC] for row in lines.epochs if METRIC in row["metrics"]}
    last = lines.epochs[-1]["metrics"] if lines.epochs else {}
    epoch_metrics = [row["metrics"] for row in lines.epochs]
    times = [row.get("cost/step_ms", row.get("before/step_ms", 0.0)) for row in epoch_metrics]
    alone_ms = sorted(row[STEP] for row in epoch_metrics if STEP in row)
    has_score = lines.end["status"] in ("finished", "pruned")
    return TrialResult(
        status=lines.end["status"],
        reason=lines.end["reason"],
        top1=last[METRIC] if has_score else None,
        nll=last[TIE_BREAKER] if has_score else None,
        step_ms=alone_ms[len(alone_ms) // 2] if alone_ms else None,
        curve=curve,
        epochs=len(lines.epochs),
        student_steps=steps * len(lines.epochs),
        seconds=sum(times) * steps / 1000,
        began=lines.header["time"],
        ended=lines.end["time"],
    )
