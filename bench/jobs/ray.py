"""Cohorts and batches of trials as Ray tasks, on one machine or many.

A task is data (`CohortJob`, `TrialBatch`); the worker makes the context it needs and trains exactly as this process
would. What it leaves lies in the results folder, which all machines share; this process alone talks to MLflow. A worker
that dies is replaced by Ray, and its successor goes on from the checkpoints. When this process dies, Ray ends its
workers, and the same command goes on.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import tempfile
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import RayError, RayTaskError

import methods
from bench import environment as env
from bench import models
from bench.errors import UserError
from bench.jobs import stop
from bench.jobs.executor import MAX_RETRIES, TaskExecutor, WorkerLost
from bench.jobs.local import Task
from bench.jobs.progress import Progress
from bench.jobs.run_writer import RecordMirror
from bench.jobs.worker import Outcome, Worker
from bench.suite.suite import Suite
from tracking.locks import process_may_live


@dataclass(frozen=True)
class WorkerSetup:
    """What a worker must know besides its task."""

    sentinel: Path  # a file of this call in the results folder: who sees it sees the same folder
    device: str
    threads: int
    plugins: dict[str, bytes]  # files of methods from elsewhere, by name
    command: str


class RayExecutor(TaskExecutor):
    """Made by `connect`."""

    def __init__(
        self,
        setup: WorkerSetup,
        gpus: float,
        progress: Progress,
        mirror: RecordMirror | None,
        raise_if_asked: Callable[[], None],
    ) -> None:
        super().__init__(progress, mirror, raise_if_asked)
        self.setup = setup
        self.device = torch.device(setup.device)  # of the workers; this machine need not have it
        cpus = setup.threads if setup.device == "cpu" else 1
        options = {"num_cpus": cpus, "num_gpus": gpus, "max_calls": 1, "max_retries": MAX_RETRIES}
        self._remote = ray.remote(**options)(_run_on_worker)
        self.cohorts_at_once = _room_for({"GPU": gpus} if gpus else {"CPU": cpus})
        self._refs: set[Any] = set()
        self._cancelled = False

    def submit(self, task: Task) -> Future[Outcome]:
        if self._cancelled:
            raise RuntimeError(f"{task.title} comes too late: all work was cancelled")
        ref = self._remote.remote(task, self.setup)
        self._refs.add(ref)
        future: Future[Outcome] = Future()

        def pass_on(done: Future[Outcome]) -> None:
            self._refs.discard(ref)
            error = done.exception()
            if isinstance(error, RayTaskError):
                error = error.cause if isinstance(error.cause, Exception) else error
            elif isinstance(error, RayError):  # its workers died again and again
                error = WorkerLost(f"{task.title}: {type(error).__name__}: {error}".splitlines()[0])
            if error:
                future.set_exception(error)
            else:
                future.set_result(done.result())

        ref.future().add_done_callback(pass_on)
        return future

    def cancel(self) -> None:
        self._cancelled = True
        for ref in (refs := list(self._refs)):
            ray.cancel(ref, force=False)
        if refs:
            ray.wait(refs, num_returns=len(refs), timeout=stop.GRACE_S + 1)


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
        if not process_may_live(stale.name.rpartition("-")[2]):  # by a call that was killed
            stale.unlink(missing_ok=True)
    executor = None
    with stop.stop_gracefully() as raise_if_asked:  # in place of the handler that Ray has set
        try:
            share = _gpu_share(gpus)
            threads = suite.protocol.threads or torch.get_num_threads()
            _check_resources({"GPU": share} if share else {"CPU": threads})
            named = [os.environ.get(name, "") for name in (methods.PLUGINS, models.NETWORKS)]
            plugins = [Path(p) for paths in named for p in paths.split(os.pathsep) if p]
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


def _run_on_worker(task: Task, setup: WorkerSetup) -> Outcome:
    """In a worker."""
    if not setup.sentinel.exists():
        problem = f"{socket.gethostname()} does not see {setup.sentinel.parent}"
        raise UserError(f"{problem}; the results must lie in a folder that all machines share")
    os.environ[methods.PLUGINS] = os.environ[models.NETWORKS] = ""
    for name, content in setup.plugins.items():
        file = Path(tempfile.mkdtemp(prefix="kdbench-")) / name
        file.write_bytes(content)
        if not models.register_plugin(str(file)):
            methods.register_plugin(str(file))
    try:
        return Worker(setup.device, setup.threads, setup.command).run(task)
    except stop.Interrupted as stopped:
        if stopped.number == signal.SIGTERM:  # this machine is taken back: Ray tries again on another
            os._exit(128 + stopped.number)
        raise KeyboardInterrupt from None  # as Ray expects it of a task that it cancels
