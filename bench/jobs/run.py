"""A suite from first to last: what is left to do, cohort by cohort, and what it leaves."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch

from bench import data as datasets
from bench import environment as env
from bench.data import Data
from bench.errors import notice
from bench.jobs import claims, manifest, pool, tuned
from bench.jobs.check import check_pair
from bench.jobs.cohort_job import CohortJob, JobResult, describe_data
from bench.jobs.local import LocalExecutor
from bench.jobs.progress import Progress
from bench.jobs.rounds import check_comparisons, rounds
from bench.jobs.run_writer import RecordMirror, is_finished
from bench.jobs.teacher_source import teacher_fingerprint
from bench.jobs.weak_teacher import WeakTeachers
from bench.suite.decide import TOP1, Decision, decide
from bench.suite.spec import MethodSpec
from bench.suite.suite import Run, Suite
from bench.training import precision
from tracking.lines import Damage, RecordError
from tracking.record import Record

Rows = dict[str, list[tuple[MethodSpec, dict[str, Any]]]]
"""By pair, the rows of the comparison with their values, and where these come from, if from a study."""


class Executor(Protocol):
    """What has jobs done: in this process, in others of this machine, or on other machines."""

    @property
    def cohorts_at_once(self) -> int: ...
    def run_all(self, jobs: Iterable[CohortJob]) -> Iterator[JobResult]: ...


@dataclass
class SuiteOutcome:
    """What a call of `run_suite` did."""

    fingerprints: list[str]
    n_trained: int = 0
    failures: list[str] = field(default_factory=list)  # one line per run that failed or diverged

    @property
    def n_skipped(self) -> int:
        """Runs that were finished already, or that another process finished meanwhile."""
        return len(self.fingerprints) - self.n_trained


def run_suite(
    suite: Suite,
    results: Path,
    *,
    device: torch.device,
    rerun: bool,
    progress: Progress,
    mirror: RecordMirror | None,
    remote: Executor | None = None,
    workers: int | None = 1,
    group_size: int = 0,
) -> SuiteOutcome:
    """Train what the suite still lacks, on this machine or where `remote` brings it; what another process trains at the
    same time is waited for. workers: processes of this machine (1: this one; None: as many as it has cores for);
    group_size: students of a cohort on the device at a time; 0: all. Raises `UserError` before any training where the
    suite cannot be run."""
    check_comparisons(suite)
    suite = resolve_suite(suite, device)
    n_cohorts = 0 if remote else len(suite.pairs) * len(suite.seeds)
    if pool.may_need_workers(workers, suite, device, n_cohorts) and not manifest.seems_finished(
        suite, results / suite.name
    ):
        pool.start_loading(suite)
    data = datasets.load(suite.data, "cpu" if remote else device)
    checksums = manifest.source_checksums(suite, results / suite.name)
    rows, unfit = rows_of_pairs(suite, data, results)
    for title, pair_name, reason in unfit:
        progress.log(f"left out: {title} on {pair_name}: {reason}")
    fitting = suite.model_copy(
        update={"methods": [m for m in suite.methods if any(m.title == s.title for r in rows.values() for s, _ in r)]}
    )
    end_orphaned_runs(results / suite.name, mirror)
    outcome, runs = SuiteOutcome([]), list[Run]()
    options: dict[str, Any] = {"retrain_before": time.time() if rerun else 0.0, "group_size": group_size}
    decisions, weak_teachers = partial(_decisions, fitting, runs, results), WeakTeachers(results)

    def write_manifest() -> None:
        manifest.write_manifest(results / suite.name, suite, outcome.fingerprints, checksums, decisions(), unfit)

    def plan_rounds() -> Iterator[list[CohortJob]]:
        for seeds, titles in rounds(fitting, decisions, lambda: executor.cohorts_at_once):
            rows_of_round = {pair: [row for row in rows[pair] if row[0].title in titles[pair]] for pair in titles}
            suite_of_round = suite.model_copy(update={"seeds": list(seeds)})
            jobs, runs_of_round = plan_jobs(suite_of_round, rows_of_round, data, results, before=tuple(runs), **options)
            runs.extend(runs_of_round)
            weak_teachers.warn(runs)
            outcome.fingerprints += [run.fingerprint for run in runs_of_round]
            if jobs:  # a call that goes on comes quickly to the seeds that the one before it had asked for
                write_manifest()
            yield jobs

    planned = plan_rounds()
    first = next(planned)
    if not suite.until:  # else more seeds may come than the first, and how many at once must not depend on what is done
        n_cohorts = min(n_cohorts, sum(bool(job.fingerprints) for job in first))
    with pool.open_pool(workers, suite, data, n_cohorts, len(suite.methods), progress, mirror) as local_pool:
        executor: Executor = (
            remote or local_pool or LocalExecutor(data, results, env.describe(device), progress, mirror)
        )
        for jobs in chain([first], planned):
            for result in executor.run_all(jobs):
                outcome.n_trained += result.n_trained
                outcome.failures += result.failures
    weak_teachers.warn(runs)
    write_manifest()  # once more: another call of the suite may have asked for other runs meanwhile
    return outcome


def has_kept(results: Path, suite: str, since: float) -> bool:
    """Has training of this suite, or of a teacher, left anything on the disk since (Unix seconds)?"""
    patterns = (f"{suite}/runs/*/checkpoint.pt", f"{suite}/runs/*/student.safetensors", "teachers/*/*.*")
    kept = [path for pattern in patterns for path in results.glob(pattern)]
    return any(path.suffix in (".pt", ".safetensors") and path.stat().st_mtime >= since for path in kept)


def rows_of_pairs(suite: Suite, data: Data, results: Path) -> tuple[Rows, list[tuple[str, str, str]]]:
    """Every row with its values for every pair that its method takes; row, pair and reason of those left out. Raises
    `UserError` where values are not found, or a row cannot be trained."""
    description, rows, unfit = describe_data(data), Rows(), list[tuple[str, str, str]]()
    for pair in suite.pairs:
        rows[pair.name] = [tuned.resolve_values(spec, suite, pair, description, results) for spec in suite.methods]
        reasons = check_pair(suite.model_copy(update={"methods": [spec for spec, _ in rows[pair.name]]}), pair, data)
        rows[pair.name] = [row for row in rows[pair.name] if row[0].title not in reasons]
        unfit += [(title, pair.name, reason) for title, reason in reasons.items()]
    return rows, unfit


def _decisions(suite: Suite, runs: Iterable[Run], results: Path) -> list[Decision]:
    """What the finished runs decide, where seeds are added until all is decided; else nothing."""
    if suite.until is None:
        return []
    top1: dict[str, dict[str, dict[int, float]]] = {pair.name: {} for pair in suite.pairs}
    for run in runs:
        with suppress(RecordError):  # not begun, or damaged: it has no number
            end = _record(results, run).final or {}
            if end.get("status") == "finished" and TOP1 in end["metrics"]:
                top1[run.pair.name].setdefault(run.label, {})[run.seed] = end["metrics"][TOP1]
    rows = [spec.title for spec in suite.methods]
    return decide(top1, rows, suite.until.margin, suite.until.least)


def plan_jobs(
    suite: Suite,
    rows: Rows,
    data: Data,
    results: Path,
    *,
    before: Sequence[Run] = (),
    retrain_before: float = 0.0,
    group_size: int = 0,
) -> tuple[list[CohortJob], list[Run]]:
    """What is to be trained, every teacher before its cohorts; and all runs of these rows and the suite's seeds.

    before: runs of other seeds, which must have learnt from the same teacher where they share it. A run that has
    failed before comes after all others, in a cohort of its own: it may take the device down with it.
    """
    jobs, last_jobs, all_runs = list[CohortJob](), list[CohortJob](), list[Run]()
    parts = [(part, pair) for pair in suite.pairs if pair.name in rows for part in suite.by_teacher()]
    for part, pair in parts:
        own = datasets.split_as(data, part.data)
        description = describe_data(own)
        full_description = description | own.describe_test()
        teacher = teacher_fingerprint(part, pair, description)
        sharing = [run for run in before if (run.pair, run.teacher_fingerprint) == (pair, teacher)]
        finished_runs = [record for run in sharing if is_finished(record := _record(results, run))]
        part_jobs, retry_jobs = [], []
        for seed in part.seeds:
            runs = Run.of_rows(part, pair, rows[pair.name], seed, full_description, teacher)
            all_runs += runs
            entries = [_Entry(*row, run, _record(results, run)) for row, run in zip(rows[pair.name], runs, strict=True)]
            unfinished = [entry for entry in entries if retrain_before or not is_finished(entry.record)]
            finished_runs += [entry.record for entry in entries if entry not in unfinished]
            suite_of_job = part.model_copy(update={"pairs": [pair], "seeds": [seed]})
            job = partial(_make_job, suite_of_job, results, retrain_before=retrain_before, group_size=group_size)
            failed = [entry for entry in unfinished if _has_failed(entry.record)]
            new = [entry for entry in unfinished if entry not in failed]
            part_jobs += [job(new)] if new else []
            retry_jobs += [job([entry], retried_label=entry.run.label) for entry in failed]
        if first := (part_jobs or retry_jobs)[:1]:
            hashes = {record.header["spec"].get("teacher_hash") for record in finished_runs} - {None, ""}
            jobs += [_teacher_job(first[0], hashes), *part_jobs]
            last_jobs += retry_jobs
    return [*jobs, *last_jobs], all_runs


def _record(results: Path, run: Run) -> Record:
    return Record(results / run.suite / "runs" / run.fingerprint)


def _teacher_job(job: CohortJob, hashes: set[str]) -> CohortJob:
    """The cohort's teacher alone. hashes: of the teachers that its finished runs learnt from."""
    known = tuple(sorted(hashes))
    return dataclasses.replace(job, value_sources=(), fingerprints=(), teacher_hashes=known, retried_label="")


class _Entry(NamedTuple):
    """A row of the comparison for one seed."""

    spec: MethodSpec
    value_source: dict[str, Any]
    run: Run
    record: Record


def _make_job(suite: Suite, results: Path, entries: list[_Entry], **options: Any) -> CohortJob:
    """The cohort of these rows; suite: with its pair and seed alone."""
    narrow = suite.model_copy(update={"methods": [entry.spec for entry in entries]})
    sources = tuple(entry.value_source for entry in entries)
    return CohortJob(narrow, results, sources, tuple(entry.run.fingerprint for entry in entries), **options)


def _has_failed(record: Record) -> bool:
    try:
        return record.status == "failed"
    except Damage:
        return False


def end_orphaned_runs(suite_folder: Path, mirror: RecordMirror | None) -> None:
    """End, as interrupted, the records that processes were writing which are gone. Costs nothing where none died."""
    folders = claims.remove_stale_claims(suite_folder)
    for record in map(Record, [path for folder in folders for path in (folder, *sorted(folder.glob("trials/*")))]):
        with suppress(Damage):  # whoever does the run mends it
            if record.status == "running":
                record.end("interrupted", "its process is gone; the same command resumes it", {}, [])
                if mirror:
                    mirror.finish(record)


def resolve_suite(suite: Suite, device: torch.device) -> Suite:
    """The suite with everything decided that 'auto' leaves to the machine; the process takes its number of threads."""
    if suite.protocol.threads:
        torch.set_num_threads(suite.protocol.threads)
    resolved_precision = precision.resolve_precision(suite.protocol.precision, device)
    changes: dict[str, Any] = {"protocol": suite.protocol.model_copy(update={"precision": resolved_precision})}
    if suite.teacher.protocol.get("precision") == "fastest":
        of_teacher = {"precision": precision.resolve_precision("fastest", device)}
        changes["teacher"] = suite.teacher.model_copy(update={"protocol": suite.teacher.protocol | of_teacher})
    if resolved_precision == "bfloat16" and not precision.has_bfloat16(device):
        notice(
            f"bfloat16: this {device.type} has no instructions for it and is slower than in float32; for the fastest"
            " type --set protocol.precision=fastest"
        )
    return suite.model_copy(update=changes)
