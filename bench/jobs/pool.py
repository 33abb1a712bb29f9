"""Cohorts and batches of trials in processes of this machine, side by side: by itself as many as there are cores for.

A task is data and trains in a worker exactly as it would in this process; what it leaves lies in the results folder,
and this process alone talks to MLflow. A worker that is killed is replaced, and its successor goes on from the
checkpoints. When this process dies, its workers keep what they have and leave, and the same command goes on.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection, Pipe, wait
from multiprocessing.process import BaseProcess
from threading import Lock, Thread
from typing import Any

import torch

from bench import environment as env
from bench.data import Data
from bench.errors import UserError
from bench.jobs import stop
from bench.jobs.cohort_job import CohortJob, JobResult
from bench.jobs.executor import MAX_RETRIES, TaskExecutor, WorkerLost
from bench.jobs.local import Task
from bench.jobs.progress import CohortNews, Progress
from bench.jobs.run_writer import RecordMirror
from bench.jobs.teacher_source import build_network, untrained_teacher
from bench.jobs.worker import Outcome, serve
from bench.memory import available_memory_bytes, resident_bytes, track_saved_tensors
from bench.suite.suite import Suite

AUTO = "auto"
LIBRARIES = ("bench.jobs.worker", "torch._dynamo")  # that every worker needs: loaded once, before they are forked
LIBRARY_OF = {"digits": "sklearn.datasets", "parquet": "pyarrow.parquet", "torchvision": "torchvision.datasets"}
"""By source of the data, what reading it takes besides."""
COST = "cost/step_ms"  # of a student


def workers_asked(text: str) -> int | None:
    """What `--workers` asks for; None: 'auto'. Raises `UserError`."""
    if text == AUTO:
        return None
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    raise UserError(f"--workers {text}: it takes a number from 1, or {AUTO}")


def count_workers(
    asked: int | None, *, n_tasks: int, cores: int, threads: int | None, on_cpu: bool, free: int, needed: int
) -> int:
    """How many processes train side by side; 1: this one alone.

    asked: None leaves it to the machine; threads: of a cohort, None: all; free, needed: bytes of memory, all that there
    are and those of one worker.
    """
    wanted = asked or (cores // threads if threads and on_cpu else 1)
    return max(1, min(wanted, n_tasks, free // max(needed, 1)))


def worker_bytes(suite: Suite, data: Data, n_students: int) -> int:
    """About how much memory a worker takes: what this process does, and of the largest pair the teacher, the students
    with gradients and momentum, and what one step keeps (counted on two images)."""
    largest = 0
    for pair in suite.pairs:
        teacher = untrained_teacher(pair, data, "memory")
        student = build_network(pair.student, data, init="memory")
        states = [sum(t.nbytes for t in network.state_dict().values()) for network in (teacher, student)]
        with track_saved_tensors([*teacher.parameters(), *student.parameters()]) as saved:
            outputs = [network(torch.zeros(2, data.channels, data.size, data.size)) for network in (teacher, student)]
        del outputs
        step = sum(saved.values()) * math.ceil(suite.protocol.batch_size / 2)
        largest = max(largest, states[0] + 3 * n_students * states[1] + step)
    return resident_bytes() + largest


def start_loading(suite: Suite) -> None:
    """Have the libraries loaded from which workers are forked, beside whatever this process does meanwhile. A process
    of one thread does it: one that trains must not be forked."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*LIBRARIES, *filter(None, [LIBRARY_OF.get(suite.data.source)])])
    before = signal.pthread_sigmask(signal.SIG_BLOCK, stop.FROM_OUTSIDE)  # all that it forks inherits the mask
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def may_need_workers(asked: int | None, suite: Suite, device: torch.device, n_tasks: int) -> bool:
    """Would more than one process train, if memory allows it? Known before the data are loaded."""
    return count_workers(asked, **_limits(suite, device, n_tasks), free=n_tasks, needed=1) > 1


def _limits(suite: Suite, device: torch.device, n_tasks: int) -> dict[str, Any]:
    cores, on_cpu = len(os.sched_getaffinity(0)), device.type == "cpu"
    return {"n_tasks": n_tasks, "cores": cores, "threads": suite.protocol.threads, "on_cpu": on_cpu}


@contextmanager
def open_pool(
    asked: int | None,
    suite: Suite,
    data: Data,
    n_tasks: int,
    n_students: int,
    progress: Progress,
    mirror: RecordMirror | None,
) -> Iterator[WorkerPool | None]:
    """What shares tasks among processes of this machine; None where one process does it all.

    asked: how many; None: as many as cores and memory allow; n_tasks: that could be worked on at the same time;
    n_students: of one task.
    """
    if not may_need_workers(asked, suite, data.device, n_tasks):
        yield None
        return
    free, needed = available_memory_bytes(), worker_bytes(suite, data, n_students)
    size = count_workers(asked, **_limits(suite, data.device, n_tasks), free=free, needed=needed)
    if asked and size < min(asked, n_tasks):
        gib = f"{free / 2**30:.1f} GiB are free, and a worker takes about {needed / 2**30:.1f}"
        progress.log(f"--workers {asked}: {size} at a time, since {gib}")
    if size == 1:
        yield None
        return
    threads = suite.protocol.threads or torch.get_num_threads()  # as many as in one process: bits depend on it
    command = env.describe(torch.device("cpu"))["command"]
    with stop.stop_gracefully() as raise_if_asked:
        start_loading(suite)
        arguments = (str(data.device), threads, command, progress.live)
        pool = WorkerPool(size, arguments, progress, mirror, raise_if_asked)
        try:
            yield pool
        finally:
            pool.cancel()


@dataclass
class _Entry:
    """A task, and who waits for it."""

    task: Task
    future: Future[Outcome]
    n_lost: int = 0  # workers that died with it


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    entry: _Entry | None = None  # its work


def _settle(entry: _Entry | None, outcome: Outcome | Exception) -> None:
    """Let who waits for a task have its outcome, the first one that there is."""
    if entry is None or entry.future.done():
        return
    if isinstance(outcome, Exception):
        entry.future.set_exception(outcome)
    else:
        entry.future.set_result(outcome)


class WorkerPool(TaskExecutor):
    """Made by `open_pool`. A thread of its own starts the workers, as they are needed, and hears them."""

    def __init__(
        self,
        size: int,
        arguments: tuple[str, int, str, bool],
        progress: Progress,
        mirror: RecordMirror | None,
        raise_if_asked: Callable[[], None],
    ) -> None:
        """size: workers at a time; arguments: of `serve`."""
        super().__init__(progress, mirror, raise_if_asked)
        self.size, self._arguments = size, arguments
        self._queue: deque[_Entry] = deque()
        self._workers: dict[Connection, _Worker] = {}
        self._closing, self._n_shared = False, 0
        self._costs: dict[tuple[str, str], float] = {}  # of a step, by pair and row
        self._bell, self._bell_push = Pipe(duplex=False)
        self._lock = Lock()
        self._thread = Thread(target=self._work, name="pool", daemon=True)
        self._thread.start()

    def submit(self, task: Task) -> Future[Outcome]:
        entry = _Entry(task, Future())
        with self._lock:
            if self._closing:
                raise CancelledError(f"{task.title} comes too late: all work was cancelled")
            self._queue.append(entry)
            self._bell_push.send(None)
        return entry.future

    @property
    def cohorts_at_once(self) -> int:
        return self.size

    def cancel(self) -> None:
        with self._lock:
            self._closing = True
            self._bell_push.send(None)
        self._thread.join()

    def has_room(self, in_work: int) -> bool:
        return in_work < self.size

    def run_all(self, jobs: Iterable[CohortJob]) -> Iterator[JobResult]:
        jobs = list(jobs)
        self._n_shared = sum(bool(job.fingerprints) for job in jobs) % self.size
        return super().run_all(jobs)

    def cut(self, job: CohortJob, n_left: int) -> list[CohortJob]:
        """The last cohorts, fewer than there are workers, are shared among all of them."""
        if job.part or len(job.fingerprints) < 2 or n_left > self._n_shared:
            return [job]
        costs = [self._costs.get((job.pair.name, spec.title), 1.0) for spec in job.suite.methods]
        return job.parts(self.size // self._n_shared, costs)

    def _result(self, task: Task, future: Future[Outcome]) -> Any:
        result = super()._result(task, future)
        if isinstance(task, CohortJob):
            for spec, record in zip(task.suite.methods, task.records, strict=False):
                if (final := record.final) and COST in final["metrics"]:
                    self._costs[task.pair.name, spec.title] = final["metrics"][COST]
        return result

    def _work(self) -> None:
        """The thread's life."""
        try:
            while not self._closing:
                self._hand_out()
                self._hear(wait([self._bell, *self._workers]))
        except Exception as error:  # who waits must hear of it
            self._closing = True
            for entry in [*self._queue, *(worker.entry for worker in self._workers.values())]:
                _settle(entry, error)
        self._dismiss()

    def _hand_out(self) -> None:
        idle = [worker for worker in self._workers.values() if not worker.entry]
        while self._queue and (idle or len(self._workers) < self.size):
            worker = idle.pop() if idle else self._start_worker()
            worker.entry = self._queue.popleft()
            with suppress(OSError):  # it is dead, and will be found so
                worker.connection.send(worker.entry.task)

    def _start_worker(self) -> _Worker:
        connection, theirs = Pipe()
        context = multiprocessing.get_context("forkserver")
        process = context.Process(target=serve, args=(theirs, *self._arguments), name="kdbench worker")
        process.start()
        theirs.close()  # so that its death is heard
        self._workers[connection] = _Worker(process, connection)
        return self._workers[connection]

    def _hear(self, ready: Iterable[Any]) -> None:
        for connection in ready:
            if connection is self._bell:
                self._bell.recv()
                continue
            worker = self._workers[connection]
            try:
                message = connection.recv()
            except (EOFError, OSError):
                self._bury(worker)
                continue
            if isinstance(message, CohortNews):
                self.progress.shown_board.show(message)
            elif worker.entry:
                entry, worker.entry = worker.entry, None
                self.progress.shown_board.remove(entry.task.title)
                _settle(entry, message)

    def _bury(self, worker: _Worker) -> None:
        """Have a dead worker's task done by another one."""
        del self._workers[worker.connection]
        worker.process.join(stop.GRACE_S)
        if (entry := worker.entry) is None:
            return
        title, code = entry.task.title, worker.process.exitcode or 0
        self.progress.shown_board.remove(title)
        entry.n_lost += 1
        why = f"was killed ({signal.Signals(-code).name})" if code < 0 else f"left (code {code})"
        if self._closing:
            _settle(entry, CancelledError())
        elif entry.n_lost > MAX_RETRIES:
            _settle(entry, WorkerLost(f"{title}: its worker {why}, for the {entry.n_lost}th time"))
        else:
            self.progress.log(f"{title}: its worker {why}; another one goes on from the checkpoints")
            self._queue.appendleft(entry)

    def _dismiss(self) -> None:
        """Ask the workers to leave; those that do not are killed."""
        for entry in self._queue:
            _settle(entry, CancelledError())
        self._queue.clear()
        deadline = time.monotonic() + stop.GRACE_S + 1
        for worker in self._workers.values():
            if worker.entry and worker.process.pid:
                with suppress(ProcessLookupError):
                    os.kill(worker.process.pid, stop.FROM_PARENT)
        while True:
            for worker in [worker for worker in self._workers.values() if not worker.entry]:
                worker.connection.close()
                del self._workers[worker.connection]
                worker.process.join(max(0.0, deadline - time.monotonic()))
            if not self._workers or (left := deadline - time.monotonic()) <= 0:
                break
            self._hear(wait([*self._workers], timeout=left))
        for worker in list(self._workers.values()):
            worker.process.kill()
            self._bury(worker)
