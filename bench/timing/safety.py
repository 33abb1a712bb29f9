"""What it costs that nothing is lost: a cohort trained as a suite trains it, beside the same cohort with nothing kept.

bare   the cohort's loop and its final evaluation; what it learned is thrown away
safe   the same with claim, records, checkpoints, exported students and their delivery to MLflow, until all is there

Both train the same students on the same batches, in turns, in one process. Time is wall-clock time, which a busy
machine disturbs, and processor time of the whole process, MLflow's thread and the compression of files included. The
first contact with MLflow (its import, a new store's tables) comes once per process, and is told apart.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from bench import data as datasets
from bench import environment as env
from bench import models
from bench.errors import UserError
from bench.jobs.cohort_job import CohortJob, PairContext, describe_data, make_member, method_dims
from bench.jobs.progress import Progress
from bench.jobs.run import resolve_suite
from bench.jobs.teacher import Teacher
from bench.jobs.teacher_source import untrained_teacher
from bench.suite.suite import Run, Suite
from bench.training.cohort import Cohort
from tracking.mirror import Mirror
from tracking.store import Store, default_uri

Seconds = tuple[float, float]  # seconds: wall clock, processor


def measure_safety(suite: Suite, rounds: int, device: torch.device, console: Console) -> dict[str, Any]:
    """The figures of `kdbench time --safety`, of the first pair's whole cohort with the first seed and a fresh teacher.

    `safe_over_bare` and `safe_over_bare_cpu` are medians over the rounds of their ratios. Raises `UserError` where a
    run does not finish or MLflow does not take it: a run that stops early is cheap.
    """
    suite = resolve_suite(suite, device)
    suite = suite.model_copy(update={"pairs": suite.pairs[:1], "seeds": suite.seeds[:1]})
    pair, data = suite.pairs[0], datasets.load(suite.data, device)
    network = untrained_teacher(pair, data, "timing").to(device).requires_grad_(False).eval()
    teacher = Teacher(network, "timing", models.state_hash(network), 0.0, 0.0, "teacher")
    shapes = method_dims(pair, data, suite.protocol.batch_size, network)
    description = describe_data(data) | data.describe_test()
    rows = [(row, dict[str, Any]()) for row in suite.methods]
    runs = Run.of_rows(suite, pair, rows, suite.seeds[0], description, teacher.fingerprint)
    fingerprints, quiet = tuple(run.fingerprint for run in runs), Progress(console, quiet=True)

    def run_bare() -> None:
        members = [make_member(run, data, shapes) for run in runs]
        cohort = Cohort(data, suite.protocol, network, members, suite.seeds[0])
        for _ in cohort.epochs():
            pass
        for member in members:
            cohort.evaluate_final(member)

    def run_safe(results: Path) -> None:
        with Mirror(lambda: Store(uri, results)) as mirror:
            context = PairContext(
                suite, pair, data, describe_data(data), teacher, shapes, env.describe(device), quiet, mirror
            )
            result = CohortJob(suite, results, tuple({} for _ in runs), fingerprints).run(context)
        if result.failures or mirror.pending():
            raise UserError(f"not all was kept: {(*result.failures, *(reason for _, reason in mirror.pending()))[0]}")

    pairs: list[tuple[Seconds, Seconds]] = []
    with tempfile.TemporaryDirectory() as folder:
        uri = default_uri(folder)
        first_contact = _seconds_of(Store(uri, folder).ping)
        for round_number in range(rounds):
            console.print(f"round {round_number + 1} of {rounds}", end="\r") if console.is_terminal else None
            pairs.append((_seconds_of(run_bare), _seconds_of(partial(run_safe, Path(folder, str(round_number))))))
    wall, cpu = ([run_safe[i] / run_bare[i] for run_bare, run_safe in pairs] for i in (0, 1))
    return {
        "safe_over_bare": statistics.median(wall),
        "safe_over_bare_cpu": statistics.median(cpu),
        "lowest_cpu": min(cpu),
        "highest_cpu": max(cpu),
        "bare_s": statistics.median(run_bare[0] for run_bare, _ in pairs),
        "bare_cpu_s": statistics.median(run_bare[1] for run_bare, _ in pairs),
        "first_contact_cpu_s": first_contact[1],
        "students": len(runs),
        "epochs": suite.protocol.epochs,
        "rounds": rounds,
        "networks": pair.name,
        "precision": suite.protocol.precision,
        **{key: env.describe(device)[key] for key in ("device", "cpu", "threads", "torch", "mlflow", "commit")},
    }


def _seconds_of(run: Callable[[], object]) -> Seconds:
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu
