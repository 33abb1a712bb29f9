"""Work in this process, one piece after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from bench import data as datasets
from bench.data import Data
from bench.jobs import claims
from bench.jobs.cohort_job import CohortJob, JobResult, PairContext
from bench.jobs.progress import Progress
from bench.jobs.run_writer import RecordMirror
from bench.suite.suite import Pair, Suite
from tracking.record import Record


class Task(Protocol):
    """Work as plain data."""

    @property
    def suite(self) -> Suite: ...
    @property
    def pair(self) -> Pair: ...
    @property
    def results(self) -> Path: ...
    @property
    def title(self) -> str: ...
    @property
    def records(self) -> list[Record]: ...
    @property
    def opens_test_split(self) -> bool: ...
    def run(self, context: PairContext) -> Any: ...


class LocalExecutor:
    """A single use, on data that is loaded already: those that the suite names, if not every seed has its own split."""

    cohorts_at_once = 1

    def __init__(
        self, data: Data, results: Path, environment: dict[str, Any], progress: Progress, mirror: RecordMirror | None
    ) -> None:
        self.data, self._context_arguments = data, (results, environment, progress, mirror)
        self.progress = progress
        self._context: PairContext | None = None  # of the teacher in work: one at a time

    def run_all(self, jobs: Iterable[CohortJob]) -> Iterator[JobResult]:
        """Do them all. Those that another process does are left for the end, and waited for."""
        jobs = list(jobs)
        n_cohorts = sum(bool(job.fingerprints) for job in jobs)
        return claims.run_each_when_free([partial(self._run, job, n_cohorts) for job in jobs], self.progress.log)

    def _run(self, job: CohortJob, n_cohorts: int) -> JobResult:
        with self.progress.cohort_of(n_cohorts) if job.fingerprints else nullcontext():
            return job.run(self.context(job))

    def context(self, job: Task) -> PairContext:
        if self._context is None or not self._context.serves(job.suite):
            self._context = None  # its memory goes before another teacher's comes
            data = datasets.split_as(self.data, job.suite.data)
            self._context = PairContext.of(job.suite, job.pair, data, *self._context_arguments)
        return self._context
