"""What brings tasks to workers, whatever carries them there: their order, held claims, lines and news for MLflow."""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

from bench.errors import UserError
from bench.jobs import claims
from bench.jobs.cohort_job import CohortJob, JobResult
from bench.jobs.local import Task
from bench.jobs.progress import Board, Progress
from bench.jobs.run_writer import RecordMirror
from bench.jobs.worker import Outcome

MAX_RETRIES = 5  # of a task whose worker died: each goes on where the last one was
MIRROR_EVERY_S = 30.0  # between two looks at the records of what is in work, for MLflow

T = TypeVar("T")


class WorkerLost(UserError):
    """The workers of a task died again and again."""


class TaskExecutor(ABC):
    def __init__(self, progress: Progress, mirror: RecordMirror | None, raise_if_asked: Callable[[], None]) -> None:
        """raise_if_asked: raises where a signal has asked to stop."""
        self.progress, self.mirror, self.raise_if_asked = progress, mirror, raise_if_asked
        self._mirrored_at = 0.0
        self._said: set[str] = set()

    @abstractmethod
    def submit(self, task: Task) -> Future[Outcome]:
        """Have it done; from any thread. What the future raises is the task's own error, or `WorkerLost`."""

    @abstractmethod
    def cancel(self) -> None:
        """Ask all workers to stop, and give them the time to keep what they have."""

    def has_room(self, in_work: int) -> bool:
        """Can one more task be taken beside as many?"""
        return True

    def cut(self, job: CohortJob, n_left: int) -> list[CohortJob]:
        """The job as it is handed out, in one part or several. n_left: cohorts that nobody has begun, with this one."""
        return [job]

    def run_all(self, jobs: Iterable[CohortJob]) -> Iterator[JobResult]:
        """Do them all, cohorts after their teacher; yields what is done as it ends."""
        waiting: list[tuple[float, CohortJob]] = [(0.0, job) for job in jobs]
        in_work: dict[Future[Outcome], CohortJob] = {}
        last_message = ""
        with self.progress.board("cohorts", sum(bool(job.fingerprints) for _, job in waiting)) as board:
            while waiting or in_work:
                for job in self._startable(waiting, in_work, board):
                    in_work[self.submit(job)] = job
                ended, _ = wait(in_work, timeout=1.0, return_when=FIRST_COMPLETED)
                if not in_work:
                    time.sleep(0.1)
                self.raise_if_asked()
                for future in ended:
                    job = in_work.pop(future)
                    try:
                        result = self._result(job, future)
                    except claims.ClaimHeld as held:
                        waiting.insert(0, (time.monotonic() + claims.RETRY_S, job))
                        if not in_work and str(held) != last_message:
                            self.progress.log(f"waiting for {(last_message := str(held))}")
                        continue
                    except WorkerLost as lost:
                        result = JobResult(failures=(str(lost),))
                    if job.fingerprints:
                        board.count()
                    yield result
                self._offer_records(in_work.values())

    def _startable(
        self, waiting: list[tuple[float, CohortJob]], in_work: dict[Future[Outcome], CohortJob], board: Board
    ) -> Iterator[CohortJob]:
        """Takes from `waiting`, one by one, what can be begun now: its teacher is there, and so is a worker."""
        blocked = {job.teacher_key for job in in_work.values() if not job.fingerprints}
        now, later = time.monotonic(), list[tuple[float, CohortJob]]()
        while waiting and self.has_room(len(in_work)):
            due, job = waiting.pop(0)
            if due > now or job.teacher_key in blocked:
                later.append((due, job))
            else:
                first, *others = self.cut(job, 1 + sum(bool(j.fingerprints) for _, j in [*waiting, *later]))
                waiting[:0] = [(0.0, other) for other in others]
                board.add(len(others))
                yield first
            if not job.fingerprints:
                blocked.add(job.teacher_key)
        waiting[:0] = later

    def run_studies(self, tasks: Sequence[Callable[[], T]]) -> list[T]:
        """What each task returns: all at once, each in a thread that sends its batches to `run_task`."""
        with self.progress.board("studies", len(tasks)) as board, ThreadPoolExecutor(max(len(tasks), 1)) as threads:
            futures = [threads.submit(claims.run_when_free, task, self.progress.log) for task in tasks]
            try:
                pending = {*futures}
                while pending:
                    ended, pending = wait(pending, timeout=1.0, return_when=FIRST_COMPLETED)
                    for future in ended:
                        future.result()
                        board.count()
                    self.raise_if_asked()
                return [future.result() for future in futures]
            except BaseException:
                self.cancel()
                raise

    def run_task(self, task: Task) -> Any:
        """What one task returns. May be called from any thread."""

        def submit_and_wait() -> Any:
            future = self.submit(task)
            while not wait([future], timeout=1.0).done:
                self.raise_if_asked()
            return self._result(task, future)

        return claims.run_when_free(submit_and_wait, self.progress.log)

    def _result(self, task: Task, future: Future[Outcome]) -> Any:
        """What an ended task returned, its lines said. Raises what it raised, and `claims.ClaimHeld`."""
        outcome = future.result()
        if isinstance(outcome.value, claims.ClaimHeld):
            raise outcome.value
        for line in outcome.lines.splitlines():
            if self._is_new(line):
                self.progress.log(line)
        for line in outcome.notices.splitlines():
            if self._is_new(line):
                sys.stderr.write(f"{line}\n")
        if self.mirror:
            for record in task.records:
                self.mirror.finish(record)
        return outcome.value

    def _is_new(self, line: str) -> bool:
        """Was it not said yet? Every worker says how good the teacher is."""
        is_new = line not in self._said
        self._said.add(line)
        return is_new

    def _offer_records(self, tasks: Iterable[Task]) -> None:
        """News of what is in work."""
        if self.mirror and time.monotonic() - self._mirrored_at > MIRROR_EVERY_S:
            self._mirrored_at = time.monotonic()
            for record in [record for task in tasks for record in task.records if record.path.exists()]:
                self.mirror.offer(record)
