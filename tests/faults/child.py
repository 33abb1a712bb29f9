"""`kdbench` in a process that can be killed, forked from a server that has imported all of it: it starts at once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import mlflow
import torch

from bench import cli
from bench.jobs import cohort_job, local, run_writer, worker
from bench.report import build, plots

assert mlflow and local and build and worker  # imported for those that are forked
context = multiprocessing.get_context("forkserver")


def start(
    words: list[str], log: Path, *, crash_at: int = 0, every_s: float = 0.0, asked_by: int = 0
) -> ForkServerProcess:
    """Begin `kdbench <words>`, with a checkpoint every `every_s` seconds; `crash_at`: see `dying`; asked_by: the signal
    that it gets when its first student is made."""
    context.set_forkserver_preload([__name__])
    process = context.Process(target=_run, args=(words, log, crash_at, every_s, asked_by))
    process.start()
    return process


def _run(words: list[str], log: Path, crash_at: int, every_s: float, asked_by: int) -> None:
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    sys.stdout, sys.stderr = (os.fdopen(os.dup(handle), "w", buffering=1) for _ in range(2))
    cli.common.console.file = sys.stdout
    sys.argv = ["kdbench", *words]
    run_writer.CHECKPOINT_EVERY_S = every_s
    torch.set_num_threads(1)
    forkserver._forkserver.ensure_running = lambda: None  # type: ignore[method-assign]  # workers come from there, too
    drawn = plots.drawn
    plots.drawn = lambda *args: dict([next(iter(drawn(*args).items()))])  # most of a report's time goes into figures
    dying(crash_at, log.with_suffix(".calls"))
    if asked_by:
        member_of = cohort_job.make_member

        def asked(*args: Any) -> Any:
            signal.raise_signal(asked_by)
            cohort_job.make_member = member_of
            return member_of(*args)

        cohort_job.make_member = asked  # type: ignore[assignment]
    cli.main()


def dying(at: int, counted: Path) -> None:
    """End the process without a word at the `at`-th call that changes the disk or MLflow, half of the calls before they
    take effect and half after; 0: at none. The file counts the calls."""
    number = 0

    def wrapped(name: str, act: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal number
            number += 1
            with counted.open("a") as file:
                file.write(f"{number} {name}\n")
            if number == at and at % 2:
                os._exit(9)
            done = act(*args, **kwargs)
            if number == at:
                os._exit(9)
            return done

        return call

    def torn(path: Path, content: bytes) -> int:
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
            file.flush()
            mark(path)
            return file.write(content[len(content) // 2 :])

    mark = wrapped("half of a file", lambda path: None)
    os.fsync = wrapped("fsync", os.fsync)
    for name in ("replace", "unlink"):
        setattr(Path, name, wrapped(name, getattr(Path, name)))
    Path.write_bytes = torn  # type: ignore[method-assign, assignment]
    cohort_job._evaluate_and_end = wrapped("finish", cohort_job._evaluate_and_end)
    for name in ("create_run", "log_batch", "log_artifact", "log_text", "set_terminated", "update_run"):
        setattr(mlflow.MlflowClient, name, wrapped(name, getattr(mlflow.MlflowClient, name)))
