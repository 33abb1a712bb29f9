"""What the harness costs: measured side by side in one process, in turns, medians over rounds.

bare      teacher forward, student forward, loss, backward, optimiser step, on one resident normalised batch
harness   a cohort of one student: the same, with batch order, augmentation, random streams and metering
cohort    a cohort of K students
"""

from __future__ import annotations

import itertools
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from bench import data as datasets
from bench import environment as env
from bench.data import Batch, Data, n_batches
from bench.errors import UserError
from bench.jobs import checkpoint
from bench.jobs.cohort_job import describe_data, make_member, method_dims
from bench.jobs.run import resolve_suite
from bench.jobs.run_writer import CHECKPOINT_EVERY_S
from bench.jobs.teacher import freeze
from bench.jobs.teacher_source import untrained_teacher
from bench.models.base import Network
from bench.suite.suite import MethodSpec, Run, Suite
from bench.training.cohort import Cohort
from bench.training.member import Member
from bench.training.precision import autocast, with_precision
from bench.training.step import make_optimizer
from methods.base import NetworkView, Out, Progress

STEPS = 5  # per lap
Lap = Callable[[], None]


def measure(suite: Suite, names: list[str], rounds: int, device: torch.device, console: Console) -> dict[str, Any]:
    """The figures of `kdbench time`, by name. Times in milliseconds, memory in MB."""
    suite = resolve_suite(suite, device)
    data = datasets.load(suite.data, device)
    single, cohort = make_cohort(suite, names[:1], data), make_cohort(suite, names, data)
    laps = {
        "bare": bare_loop_lap(suite, data, names[0]),
        "harness": harness_lap(single),
        "cohort": harness_lap(cohort),
        "student": bare_loop_lap(suite, data, names[0], with_teacher=False),
        "teacher": _teacher_lap(cohort),
    }
    times: dict[str, list[float]] = {name: [] for name in laps}
    for round_number in range(rounds + 1):  # the first round warms up
        console.print(f"round {round_number} of {rounds}", end="\r") if console.is_terminal else None
        for name, lap in laps.items():
            milliseconds = milliseconds_of(lap, device) / STEPS
            if round_number:
                times[name].append(milliseconds)
    k = len(names)
    ideal = [t + k * s for t, s in zip(times["teacher"], times["student"], strict=True)]
    step = statistics.median(times["cohort"]) / k
    return {
        "harness_over_bare": _median_ratio(times["harness"], times["bare"]),
        "cohort_over_ideal": _median_ratio(times["cohort"], ideal),
        "tracking_share": _tracking_share(suite, cohort, step),
        "peak_mb_per_member": _peak_per_member(suite, names, data, device),
        "student_state_mb": _state_mb(cohort.members[0]),
        **{f"{name}_ms": statistics.median(values) for name, values in times.items()},
        "k": k,
        "rounds": rounds,
        "networks": suite.pairs[0].name,
        "batch_size": suite.protocol.batch_size,
        "precision": suite.protocol.precision,
        **{key: env.describe(device)[key] for key in ("device", "cpu", "threads", "torch", "commit")},
    }


def make_cohort(suite: Suite, names: list[str], data: Data, recipe: str = "paper") -> Cohort:
    return make_untrained_cohort(
        suite, [MethodSpec(method=name, recipe=recipe, label=f"{name}-{i}") for i, name in enumerate(names)], data
    )


def make_untrained_cohort(suite: Suite, rows: list[MethodSpec], data: Data) -> Cohort:
    """A cohort of the first pair, one fresh student per row. The teacher is fresh, too: a step costs it the same."""
    pair = suite.pairs[0]
    teacher = freeze(untrained_teacher(pair, data, "timing"), data.device)
    shapes = method_dims(pair, data, suite.protocol.batch_size)
    runs = [Run.of(suite, pair, row, 0, describe_data(data), "") for row in rows]
    return Cohort(data, suite.protocol, teacher, [make_member(run, data, shapes) for run in runs], 0)


def harness_lap(cohort: Cohort) -> Lap:
    """A lap is STEPS steps of the cohort's own loop, without its epoch end. Raises `UserError` with no whole batch."""
    n, size = len(cohort.data.train.y), cohort.protocol.batch_size
    if n < size:
        raise UserError(f"a batch of {size} is more than the {n} training images; type --set protocol.batch_size={n}")
    for member in cohort.members:
        member.train(True)
    views = sorted({view for member in cohort.members for view in member.method.needs.views})
    epochs = (cohort.data.batches(0, epoch, views, size, cohort.clock) for epoch in itertools.count(1))
    full_batches = (batch for epoch in epochs for batch in epoch if len(batch) == size)

    def lap() -> None:
        for batch in itertools.islice(full_batches, STEPS):
            cohort.step(cohort.members, batch, 1)

    return lap


def bare_loop_lap(suite: Suite, data: Data, name: str, with_teacher: bool = True) -> Lap:
    """The least that learning needs: what a script of ten lines would do with the same networks and method."""
    cohort = make_cohort(suite, [name], data)
    member, teacher = cohort.members[0], cohort.teacher
    assert teacher is not None
    network, method = member.network.train(), member.method.train()
    optimizer = make_optimizer(suite.protocol, [*network.parameters(), *method.parameters()], 1e-3)
    first = first_batch(cohort)
    x, y = first.views["weak"], first.y
    at = Progress(1, suite.protocol.epochs, member.rng.generator, first.index)
    taps, fixed_outputs = method.needs.taps, outputs_without_grad(cohort, x)
    tails = [with_precision(net.tail, suite.protocol, x.device) for net in (network, teacher)]

    def lap() -> None:
        for _ in range(STEPS):
            t = outputs_without_grad(cohort, x) if with_teacher else fixed_outputs
            optimizer.zero_grad(set_to_none=True)
            with autocast(suite.protocol, x.device):
                s = network(x)
            terms = method.loss(
                NetworkView({"weak": s}, taps, tails[0]), NetworkView({"weak": t}, taps, tails[1]), y, at
            )
            torch.stack(list(terms.values())).sum().backward()
            optimizer.step()

    return lap


def _teacher_lap(cohort: Cohort) -> Lap:
    x = first_batch(cohort).views["weak"]

    def lap() -> None:
        for _ in range(STEPS):
            outputs_without_grad(cohort, x)

    return lap


@torch.no_grad()
def outputs_without_grad(cohort: Cohort, x: torch.Tensor, network: Network | None = None) -> Out:
    """What the teacher, or another network, shows of normalised images, in the cohort's precision."""
    net = network or cohort.folded_teacher
    assert net is not None
    with autocast(cohort.protocol, x.device):
        return net(x)


def first_batch(cohort: Cohort, views: Iterable[str] = ("weak",)) -> Batch:
    """The first batch of the first epoch."""
    return next(cohort.data.batches(0, 1, views, cohort.protocol.batch_size))


def milliseconds_of(lap: Lap, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    lap()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - start)


def _median_ratio(a: list[float], b: list[float]) -> float:
    """Median of the round-by-round ratios: a slow moment of the machine slows both sides of its round."""
    return statistics.median(x / y for x, y in zip(a, b, strict=True))


def _tracking_share(suite: Suite, cohort: Cohort, step_ms: float) -> float:
    """Share of a run's time that record, checkpoints and MLflow take: a run's worth of each is written and timed.

    With KDBENCH_OFFLINE=1, as in a run, without MLflow.
    """
    from tracking.mirror import is_offline
    from tracking.record import Record
    from tracking.store import Store, default_uri

    member, epochs = cohort.members[0], suite.protocol.epochs
    steps = n_batches(len(cohort.data.train.y), suite.protocol.batch_size)
    run_s = epochs * steps * step_ms / 1000
    metrics = {f"train/metric_{i}": 1.0 for i in range(14)}
    rows = [{"epoch": e + 1, "time": time.time() + e, "metrics": metrics} for e in range(epochs)]
    run = Run.of(
        suite, suite.pairs[0], MethodSpec(method=member.name.rpartition("-")[0]), 0, describe_data(cohort.data), ""
    )
    with tempfile.TemporaryDirectory() as folder:
        record = Record(Path(folder) / suite.name / "runs" / "a")
        store = None if is_offline() else Store(default_uri(Path(folder)), Path(folder))
        if store:
            store.ping()  # the store's creation happens once per results folder, not once per run
        start = time.perf_counter()
        record.begin("a" * 16, run.spec(), env.describe(cohort.data.device))
        saves = min(epochs, max(1, int(run_s / CHECKPOINT_EVERY_S)))
        for save in range(saves):
            checkpoint.save(record.folder / "checkpoint.pt", member.state_dict())
            record.write_epochs(rows[: epochs * (save + 1) // saves])
        record.end("finished", "", metrics, [])
        if store:
            store.deliver(record, experiment="timing")
        return (time.perf_counter() - start) / run_s


def _state_mb(member: Member) -> float:
    """Weights, gradients and momentum of a student and its method."""
    n_parameters = sum(p.numel() for m in (member.network, member.method) for p in m.parameters())
    return 3 * 4 * n_parameters / 2**20


def _peak_per_member(suite: Suite, names: list[str], data: Data, device: torch.device) -> float:
    """Growth of peak memory per added member, from fresh processes (CPU) or the allocator's own account (CUDA)."""
    counts = (1, len(names))
    if device.type == "cpu":
        with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
            peaks = [pool.submit(_peak_of, suite, names[:n]).result() for n in counts]
    else:
        peaks = []
        for n in counts:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            harness_lap(make_cohort(suite, names[:n], data))()
            peaks.append(torch.cuda.max_memory_allocated() / 2**20)
    return (peaks[1] - peaks[0]) / max(1, counts[1] - counts[0])


def _peak_of(suite: Suite, names: list[str]) -> float:
    """Peak resident memory of the steps alone: the peak of loading the data, which is higher, is forgotten first."""
    lap = harness_lap(make_cohort(suite, names, datasets.load(suite.data, torch.device("cpu"))))
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # not Linux, or not allowed: the process's own peak
        lap()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    lap()
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024
