"""Cohorts and batches of trials as Ray tasks, on one machine or many.

A task is data (`CohortJob`, `Batch`); the worker makes the context it needs and trains exactly as this process would.
What it leaves lies in the results folder, which all machines share; this process alone talks to MLflow. A worker that
dies is replaced by Ray, and its successor goes on from the checkpoints. When this process dies, Ray ends its workers,
and the same command goes on.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Protocol, TypeVar

import ray
import torch
from ray.exceptions import RayError, RayTaskError
from rich.console import Console

import methods
from bench import data as datasets
from bench import environment as env
from bench.errors import UserError
from bench.jobs import claims, stop
from bench.jobs.cohort_job import CohortJob, JobResult, PairContext
from bench.jobs.progress import Progress
from bench.jobs.run_writer import RecordMirror
from bench.suite.suite import Pair, Suite
from tracking.locks import alive
from tracking.record import Record

MAX_RETRIES = 5  # of a task whose worker died: each goes on where the last one was
MIRROR_EVERY_S = 30.0  # between two looks at the records of what is in work, for MLflow


T = TypeVar("T")


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


@dataclass(frozen=True)
class WorkerSetup:
    """What a worker must know besides its task."""

    sentinel: Path  # a file of this call in the results folder: who sees it sees the same folder
    device: str
    threads: int
    plugins: dict[str, bytes]  # files of methods from elsewhere, by name
    command: str


class RayExecutor:
    """Made by `connect`."""

    def __init__(
        self,
        setup: WorkerSetup,
        gpus: float,
        progress: Progress,
        mirror: RecordMirror | None,
        raise_if_asked: Callable[[], None],
    ) -> None:
        self.raise_if_asked = (
            raise_if_asked  # raises where a signal has asked to stop; raised inside Ray's calls it would be lost
        )
        self.setup, self.progress, self.mirror = setup, progress, mirror
        self.device = torch.device(setup.device)  # of the workers; this machine need not have it
        cpus = setup.threads if setup.device == "cpu" else 1
        options = {"num_cpus": cpus, "num_gpus": gpus, "max_calls": 1, "max_retries": MAX_RETRIES}
        self._remote = ray.remote(**options)(_run_on_worker)
        self.cohorts_at_once = _room_for({"GPU": gpus} if gpus else {"CPU": cpus})
        self._refs: dict[Any, Task] = {}
        self._mirrored_at, self._cancelled = 0.0, False

    def run_all(self, jobs: list[CohortJob]) -> Iterator[JobResult]:
        """Do them all, cohorts after their teacher; yields what is done as it ends."""
        queue: list[tuple[float, CohortJob]] = [(0.0, job) for job in jobs]
        teacher_refs: dict[tuple[object, ...], Any] = {}
        with self.progress.count_finished("cohorts", sum(bool(job.fingerprints) for job in jobs)) as count:
            while queue or self._refs:
                now = time.monotonic()
                for _, job in [entry for entry in queue if entry[0] <= now]:
                    teacher = job.pair.teacher, job.suite.teacher.seed, job.suite.data.split_seed
                    ref = self._submit(job, teacher_refs.get(teacher))
                    if not job.fingerprints:
                        teacher_refs[teacher] = ref  # several pairs may share it: one after the other
                queue = [entry for entry in queue if entry[0] > now]
                for job, result in self._ended_tasks():
                    if isinstance(result, claims.ClaimHeld):
                        queue.append((now + claims.RETRY_S, job))
                        continue
                    if job.fingerprints:
                        count()
                    yield result

    def run_studies(self, tasks: Sequence[Callable[[], T]]) -> list[T]:
        """What each task returns: all at once, each in a thread that sends its batches to `run_task`."""
        with ThreadPoolExecutor(max(len(tasks), 1)) as pool:
            futures = [pool.submit(claims.run_when_free, task, self.progress.log) for task in tasks]
            try:
                pending = {*futures}
                while pending:
                    ended, pending = wait(pending, timeout=1.0, return_when=FIRST_COMPLETED)
                    for future in ended:
                        future.result()
                    self.raise_if_asked()
                return [future.result() for future in futures]
            except BaseException:
                self.cancel()
                raise

    def run_task(self, task: Task) -> Any:
        """What one task returns. May be called from any thread."""

        def submit_and_wait() -> Any:
            ref = self._submit(task)
            while not ray.wait([ref], timeout=1.0)[0]:
                self.raise_if_asked()
            result = self._fetch_result(ref)
            if isinstance(result, claims.ClaimHeld):
                raise result
            return result

        return claims.run_when_free(submit_and_wait, self.progress.log)

    def cancel(self) -> None:
        """Ask all workers to stop, and give them the time to keep what they have."""
        self._cancelled = True
        for ref in (refs := list(self._refs)):
            ray.cancel(ref, force=False)
        if refs:
            ray.wait(refs, num_returns=len(refs), timeout=stop.GRACE_S + 1)

    def _submit(self, task: Task, after: Any = None) -> Any:
        if self._cancelled:
            raise RuntimeError(f"{task.title} comes too late: all work was cancelled")
        ref = self._remote.remote(task, self.setup, after)
        self._refs[ref] = task
        return ref

    def _ended_tasks(self) -> Iterator[tuple[Any, Any]]:
        """Tasks that have ended, after a second at most."""
        if not self._refs:
            time.sleep(0.1)
            return
        ready, pending = ray.wait(list(self._refs), num_returns=1, timeout=1.0)
        self.raise_if_asked()
        for ref in ready:
            task = self._refs[ref]
            try:
                yield task, self._fetch_result(ref)
            except RayError as error:  # its workers died again and again
                yield task, JobResult(failures=(f"{task.title}: {type(error).__name__}: {error}".splitlines()[0],))
        if self.mirror and pending and time.monotonic() - self._mirrored_at > MIRROR_EVERY_S:
            self._mirrored_at = time.monotonic()
            for ref in pending:
                for record in self._refs[ref].records:
                    if record.path.exists():
                        self.mirror.offer(record)

    def _fetch_result(self, ref: Any) -> Any:
        try:
            result, messages = ray.get(ref)
        except RayTaskError as error:
            raise (error.cause if isinstance(error.cause, Exception) else error) from None
        finally:
            task = self._refs.pop(ref)
        for line in messages.splitlines():
            self.progress.log(line)
        if self.mirror:
            for record in task.records:
                self.mirror.finish(record)
        return result


@contextmanager
def connect(
    address: str | None,
    gpus: float | None,
    suite: Suite,
    results: Path,
    progress: Progress,
    mirror: RecordMirror | None,
) -> Iterator[RayExecutor]:
    """Join the cluster of that address ($RAY_ADDRESS if none is given), or start one on this machine for this call."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        if address and (host_and_port := re.fullmatch(r"([\w.-]+):(\d+)", address)):
            socket.create_connection(
                (host_and_port[1], int(host_and_port[2])), timeout=5
            ).close()  # Ray would try for minutes
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"no Ray cluster at {address or 'this machine'} ({reason})") from None
    sentinel = results / f".ray-{socket.gethostname()}-{uuid.uuid4().hex}-{os.getpid()}"
    for stale in results.glob(f".ray-{socket.gethostname()}-*"):
        if not alive(stale.name.rpartition("-")[2]):  # by a call that was killed
            stale.unlink(missing_ok=True)
    executor = None
    with stop.stop_gracefully() as raise_if_asked:  # in place of the handler that Ray has set
        try:
            share = _gpu_share(gpus)
            threads = suite.protocol.threads or torch.get_num_threads()
            _check_resources({"GPU": share} if share else {"CPU": threads})
            plugins = [Path(p) for p in os.environ.get(methods.PLUGINS, "").split(os.pathsep) if p]
            plugin_files = {path.name: path.read_bytes() for path in plugins}
            command = env.describe(torch.device("cpu"))["command"]
            sentinel.touch()
            setup = WorkerSetup(sentinel, "cuda" if share else "cpu", threads, plugin_files, command)
            executor = RayExecutor(setup, share, progress, mirror, raise_if_asked)
            yield executor
        finally:
            if executor:
                executor.cancel()
            sentinel.unlink(missing_ok=True)
            ray.shutdown()
    stop.raise_on_sigterm()


def _gpu_share(requested: float | None) -> float:
    """The share of a GPU that a cohort takes: what was asked for, else a whole one where the cluster has any."""
    if requested is None:
        return 1.0 if ray.cluster_resources().get("GPU") else 0.0
    if requested < 0 or (requested > 1 and requested != int(requested)):
        raise UserError(f"--gpus-per-cohort {requested}: a share (0.25, 0.5) or a whole number; 0 for none")
    return requested


def _check_resources(needs: dict[str, float]) -> None:
    """Refuse what no machine of the cluster could ever start: Ray would wait for ever."""
    for kind, amount in needs.items():
        largest = max((node["Resources"].get(kind, 0.0) for node in ray.nodes() if node["Alive"]), default=0.0)
        if amount > largest:
            remedy = "--gpus-per-cohort 0" if kind == "GPU" else f"--set protocol.threads={int(largest)}"
            limit = f"no machine of the cluster has more than {largest:g}"
            raise UserError(f"a cohort takes {amount:g} {kind}s, and {limit}; {remedy}")


def _room_for(needs: dict[str, float]) -> int:
    """How many tasks with these needs the machines hold at a time."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return sum(int(min(node.get(kind, 0.0) // amount for kind, amount in needs.items())) for node in nodes)


def _run_on_worker(task: Task, setup: WorkerSetup, after: Any) -> tuple[Any, str]:
    """In a worker: the task's result, or who holds what it claims; and what there is to say. `after` has ended."""
    if not setup.sentinel.exists():
        problem = f"{socket.gethostname()} does not see {setup.sentinel.parent}"
        raise UserError(f"{problem}; the results must lie in a folder that all machines share")
    os.environ[methods.PLUGINS] = ""
    for name, content in setup.plugins.items():
        file = Path(tempfile.mkdtemp(prefix="kdbench-")) / name
        file.write_bytes(content)
        methods.plug(str(file))
    torch.set_num_threads(setup.threads)
    device, messages = env.resolve_device(setup.device), StringIO()
    progress = Progress(Console(file=messages, width=1000))
    environment = {**env.describe(device), "command": setup.command}
    try:
        with redirect_stderr(messages):
            data = datasets.load(task.suite.data, device, test=task.opens_test_split)
            context = PairContext.of(task.suite, task.pair, data, task.results, environment, progress, None)
            return task.run(context), messages.getvalue()
    except claims.ClaimHeld as held:
        return held, ""
    except stop.Interrupted as stopped:
        if stopped.number == signal.SIGTERM:  # this machine is taken back: Ray tries again on another
            os._exit(128 + stopped.number)
        raise KeyboardInterrupt from None  # as Ray expects it of a task that it cancels
