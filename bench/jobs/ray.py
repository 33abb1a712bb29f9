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
from bench import models
from bench.errors import UserError
from bench.jobs import claims, stop
from bench.jobs.cohort_job import CohortJob, Done, PairContext
from bench.jobs.progress import Progress
from bench.jobs.run_writer import Follower
from bench.suite.suite import Pair, Suite
from tracking.locks import alive
from tracking.record import Record

RETRIES = 5  # of a task whose worker died: each goes on where the last one was
FOLLOW_S = 30.0  # between two looks at the records of what is in work, for MLflow


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
    def test(self) -> bool: ...
    def run(self, context: PairContext) -> Any: ...


@dataclass(frozen=True)
class Order:
    """What a worker must know besides its task."""

    mark: Path  # a file of this call in the results folder: who sees it sees the same folder
    device: str
    threads: int
    plugins: dict[str, bytes]  # files of methods from elsewhere, by name
    command: str


class Ray:
    """Made by `connected`."""

    def __init__(
        self,
        order: Order,
        gpus: float,
        progress: Progress,
        follower: Follower | None,
        pause: Callable[[], None],
    ) -> None:
        self.pause = pause  # raises where a signal has asked to stop; raised inside Ray's calls it would be lost
        self.order, self.progress, self.follower = order, progress, follower
        self.device = torch.device(order.device)  # of the workers; this machine need not have it
        cpus = order.threads if order.device == "cpu" else 1
        options = {"num_cpus": cpus, "num_gpus": gpus, "max_calls": 1, "max_retries": RETRIES}
        self._remote = ray.remote(**options)(_work)
        self._refs: dict[Any, Task] = {}
        self._followed, self._cancelled = 0.0, False

    def each(self, jobs: list[CohortJob]) -> Iterator[Done]:
        """Do them all, a pair's cohorts after its teacher; yields what is done as it ends."""
        later: list[tuple[float, CohortJob]] = [(0.0, job) for job in jobs]
        teachers: dict[str, Any] = {}
        with self.progress.count("cohorts", sum(bool(job.fingerprints) for job in jobs)) as ended:
            while later or self._refs:
                now = time.monotonic()
                for _, job in [entry for entry in later if entry[0] <= now]:
                    ref = self._submit(job, teachers.get(job.pair.teacher))
                    if not job.fingerprints:
                        teachers[job.pair.teacher] = ref  # several pairs may share it: one after the other
                later = [entry for entry in later if entry[0] > now]
                for job, done in self._ready():
                    if isinstance(done, claims.Held):
                        later.append((now + claims.WAIT_S, job))
                        continue
                    if job.fingerprints:
                        ended()
                    yield done

    def studies(self, acts: Sequence[Callable[[], T]]) -> list[T]:
        """What each act returns: all at once, each in a thread that sends its batches to `call`."""
        with ThreadPoolExecutor(max(len(acts), 1)) as pool:
            futures = [pool.submit(claims.run_when_free, act, self.progress.say) for act in acts]
            try:
                left = {*futures}
                while left:
                    ended, left = wait(left, timeout=1.0, return_when=FIRST_COMPLETED)
                    for future in ended:
                        future.result()
                    self.pause()
                return [future.result() for future in futures]
            except BaseException:
                self.cancel()
                raise

    def call(self, task: Task) -> Any:
        """What one task returns. May be called from any thread."""

        def act() -> Any:
            ref = self._submit(task)
            while not ray.wait([ref], timeout=1.0)[0]:
                self.pause()
            done = self._get(ref)
            if isinstance(done, claims.Held):
                raise done
            return done

        return claims.run_when_free(act, self.progress.say)

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
        ref = self._remote.remote(task, self.order, after)
        self._refs[ref] = task
        return ref

    def _ready(self) -> Iterator[tuple[Any, Any]]:
        """Tasks that have ended, after a second at most."""
        if not self._refs:
            time.sleep(0.1)
            return
        ready, pending = ray.wait(list(self._refs), num_returns=1, timeout=1.0)
        self.pause()
        for ref in ready:
            task = self._refs[ref]
            try:
                yield task, self._get(ref)
            except RayError as error:  # its workers died again and again
                yield task, Done(troubles=(f"{task.title}: {type(error).__name__}: {error}".splitlines()[0],))
        if self.follower and pending and time.monotonic() - self._followed > FOLLOW_S:
            self._followed = time.monotonic()
            for ref in pending:
                for record in self._refs[ref].records:
                    if record.path.exists():
                        self.follower.offer(record)

    def _get(self, ref: Any) -> Any:
        try:
            done, said = ray.get(ref)
        except RayTaskError as error:
            raise (error.cause if isinstance(error.cause, Exception) else error) from None
        finally:
            task = self._refs.pop(ref)
        for line in said.splitlines():
            self.progress.say(line)
        if self.follower:
            for record in task.records:
                self.follower.finish(record)
        return done


@contextmanager
def connected(
    address: str | None, gpus: float | None, suite: Suite, results: Path, progress: Progress, follower: Follower | None
) -> Iterator[Ray]:
    """Join the cluster of that address ($RAY_ADDRESS if none is given), or start one on this machine for this call."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        if address and (found := re.fullmatch(r"([\w.-]+):(\d+)", address)):
            socket.create_connection((found[1], int(found[2])), timeout=5).close()  # Ray would try for minutes
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"no Ray cluster at {address or 'this machine'} ({reason})") from None
    mark = results / f".ray-{socket.gethostname()}-{uuid.uuid4().hex}-{os.getpid()}"
    for left in results.glob(f".ray-{socket.gethostname()}-*"):
        if not alive(left.name.rpartition("-")[2]):  # by a call that was killed
            left.unlink(missing_ok=True)
    spread = None
    with stop.gracefully() as pause:  # in place of the handler that Ray has set
        try:
            share = _gpus(gpus)
            threads = suite.protocol.threads or torch.get_num_threads()
            _fits({"GPU": share} if share else {"CPU": threads})
            named = [os.environ.get(name, "") for name in (methods.PLUGINS, models.NETWORKS)]
            plugins = [Path(p) for paths in named for p in paths.split(os.pathsep) if p]
            sent = {path.name: path.read_bytes() for path in plugins}
            command = env.environment(torch.device("cpu"))["command"]
            mark.touch()
            order = Order(mark, "cuda" if share else "cpu", threads, sent, command)
            spread = Ray(order, share, progress, follower, pause)
            yield spread
        finally:
            if spread:
                spread.cancel()
            mark.unlink(missing_ok=True)
            ray.shutdown()
    stop.at_once()


def _gpus(asked: float | None) -> float:
    """The share of a GPU that a cohort takes: what was asked for, else a whole one where the cluster has any."""
    if asked is None:
        return 1.0 if ray.cluster_resources().get("GPU") else 0.0
    if asked < 0 or (asked > 1 and asked != int(asked)):
        raise UserError(f"--gpus-per-cohort {asked}: a share (0.25, 0.5) or a whole number; 0 for none")
    return asked


def _fits(needs: dict[str, float]) -> None:
    """Refuse what no machine of the cluster could ever start: Ray would wait for ever."""
    for kind, amount in needs.items():
        most = max((node["Resources"].get(kind, 0.0) for node in ray.nodes() if node["Alive"]), default=0.0)
        if amount > most:
            mend = "--gpus-per-cohort 0" if kind == "GPU" else f"--set protocol.threads={int(most)}"
            told = f"no machine of the cluster has more than {most:g}"
            raise UserError(f"a cohort takes {amount:g} {kind}s, and {told}; {mend}")


def _work(task: Task, order: Order, after: Any) -> tuple[Any, str]:
    """In a worker: the task's result, or who holds what it claims; and what there is to say. `after` has ended."""
    if not order.mark.exists():
        told = f"{socket.gethostname()} does not see {order.mark.parent}"
        raise UserError(f"{told}; the results must lie in a folder that all machines share")
    os.environ[methods.PLUGINS] = os.environ[models.NETWORKS] = ""
    for name, content in order.plugins.items():
        file = Path(tempfile.mkdtemp(prefix="kdbench-")) / name
        file.write_bytes(content)
        if not models.plug(str(file)):
            methods.plug(str(file))
    torch.set_num_threads(order.threads)
    device, said = env.device(order.device), StringIO()
    progress = Progress(Console(file=said, width=1000))
    environment = {**env.environment(device), "command": order.command}
    try:
        with redirect_stderr(said):
            data = datasets.load(task.suite.data, device, test=task.test)
            context = PairContext.of(task.suite, task.pair, data, task.results, environment, progress, None)
            return task.run(context), said.getvalue()
    except claims.Held as held:
        return held, ""
    except stop.Interrupted as stopped:
        if stopped.number == signal.SIGTERM:  # this machine is taken back: Ray tries again on another
            os._exit(128 + stopped.number)
        raise KeyboardInterrupt from None  # as Ray expects it of a task that it cancels
