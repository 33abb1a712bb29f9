"""What a suite costs before it is run: runs, steps and teachers counted, and time measured on a few steps here."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench import data as datasets
from bench.data import Data, n_batches
from bench.errors import UserError
from bench.jobs.cohort_job import describe_data
from bench.jobs.rounds import check_comparisons
from bench.jobs.run import Rows, plan_jobs, resolve_suite, rows_of_pairs
from bench.jobs.run_writer import is_finished
from bench.jobs.teacher_source import suite_of_member, teacher_fingerprint
from bench.suite.pair import Pair
from bench.suite.spec import MethodSpec
from bench.suite.suite import Suite
from bench.timing.step import harness_lap, make_untrained_cohort, milliseconds_of
from bench.training.cohort import Cohort
from bench.training.evaluate import unaugmented_batches
from tracking.record import Record

LAPS = 2  # of `step.STEPS` steps each, after one to warm up
PREDICTION_BYTES = 14  # of a test image: label, and guess and confidence of student and teacher
EPOCH_BYTES = 600  # of a record, about


@dataclass(frozen=True)
class Cost:
    """What is still to be done of a pair. Times are of one process that trains cohort after cohort."""

    pair: str
    seeds: int
    runs: int
    cohorts: int
    student_steps: int
    teachers: int  # to be trained; those that lie in the results are not
    seconds_per_cohort: float  # of all rows
    seconds_per_teacher: float  # on average, where a pair has several
    seconds: float
    memory_mb: float  # of the largest cohort with its teacher and the data, without torch itself
    disk_mb: float  # of the runs' folders when all is done


@dataclass(frozen=True)
class _Measured:
    """Seconds and bytes of a pair's cohort, on this machine."""

    shared_s: float  # of a cohort for its epochs: batches, views, the teacher's answers
    row_s: dict[str, float]  # of each row beside that, with its evaluations
    memory: int
    state: int  # of a student


def estimate(suite: Suite, results: Path, device: torch.device) -> list[dict[str, Any]]:
    """A row per pair of what a run of the suite still costs; where seeds are added until all is decided, the least and
    the most of it. Raises `UserError` where the suite cannot be run."""
    check_comparisons(suite)
    suite = resolve_suite(suite, device)
    data = datasets.load(suite.data, device)
    rows, _ = rows_of_pairs(suite, data, results)
    counts = {"": len(suite.seeds)} if suite.until is None else {"least": suite.until.least, "most": suite.until.most}
    measured, trained = {pair.name: _measure_pair(suite, pair, rows, data) for pair in suite.pairs}, dict[str, float]()
    out = []
    for case, n in counts.items():
        known = set[str]()  # teachers that a pair before this one trains
        for pair in suite.pairs:
            for name in _trained_networks(pair):
                if name not in trained:
                    trained[name] = _teacher_seconds(suite, name, data)
            part = suite.model_copy(update={"pairs": [pair], "seeds": suite.seeds[:n]})
            cost = _cost(part, rows, data, results, measured[pair.name], trained, known)
            out.append({"case": case, **asdict(cost)})
    return out


def _cost(
    suite: Suite, rows: Rows, data: Data, results: Path, at: _Measured, teacher_s: dict[str, float], known: set[str]
) -> Cost:
    """teacher_s: seconds of a teacher's training, by network; known: takes the teachers that this pair trains."""
    pair = suite.pairs[0]
    jobs = [job for job in plan_jobs(suite, rows, data, results)[0] if job.fingerprints]
    missing = dict[str, str]()
    for job in jobs:
        description = describe_data(datasets.split_as(data, job.suite.data))
        missing |= _missing_teachers(job.suite, pair, description, results)
    teachers = [network for fingerprint, network in missing.items() if fingerprint not in known]
    known.update(missing)
    labels = [spec.title for job in jobs for spec in job.suite.methods]
    each_s = [teacher_s[network] for network in _trained_networks(pair)]
    steps = suite.protocol.epochs * n_batches(len(data.train), suite.protocol.batch_size)
    of_run = at.state + PREDICTION_BYTES * len(data.test) + EPOCH_BYTES * suite.protocol.epochs
    seconds = len(jobs) * at.shared_s + sum(at.row_s[label] for label in labels) + sum(teacher_s[n] for n in teachers)
    return Cost(
        pair=pair.name,
        seeds=len(suite.seeds),
        runs=len(labels),
        cohorts=len(jobs),
        student_steps=steps * len(labels),
        teachers=len(teachers),
        seconds_per_cohort=at.shared_s + sum(at.row_s.values()),
        seconds_per_teacher=sum(each_s) / max(1, len(each_s)),
        seconds=seconds,
        memory_mb=at.memory / 2**20,
        disk_mb=of_run * len(labels) / 2**20,
    )


def _measure_pair(suite: Suite, pair: Pair, rows: Rows, data: Data) -> _Measured:
    suite = suite.model_copy(update={"pairs": [pair]})
    cohort = make_untrained_cohort(suite, [row for row, _ in rows[pair.name]], data)
    times, protocol = _step_times(cohort, data), suite.protocol
    steps = n_batches(len(data.train), protocol.batch_size)
    image_s = _seconds_per_image(cohort, data)
    per_epoch = len(data.validation) + len(data.test) * protocol.test_every_epoch
    images = protocol.epochs * per_epoch + len(data.validation) + 2 * len(data.test)
    own = {
        member.name: (protocol.epochs + member.pretrain_epochs) * steps * times.pop(member.name) / 1000
        + images * image_s
        for member in cohort.members
    }
    assert cohort.teacher is not None
    memory = sum(member.train_step.memory for member in cohort.members) + _bytes(cohort.teacher)
    memory += sum(split.x.numel() for split in (data.train, data.validation, data.test))
    shared = protocol.epochs * steps * sum(times.values()) / 1000
    return _Measured(shared, own, memory, _bytes(cohort.members[0].network))


def _trained_networks(pair: Pair) -> list[str]:
    """The teachers that are trained for the pair, as often as each is."""
    sources = [*pair.sources, *[None] * len(pair.chain)]
    return [name for name, source in zip(pair.teachers, sources, strict=True) if not (source and source.is_ready)]


def _missing_teachers(suite: Suite, pair: Pair, data: dict[str, Any], results: Path) -> dict[str, str]:
    """By fingerprint, the networks of the teachers that are still to be trained: each of several, each of a chain."""
    if pair.ensemble:
        missing = dict[str, str]()
        for member, seeds_on in pair.members():
            missing |= _missing_teachers(suite_of_member(suite, seeds_on), member, data, results)
        return missing
    fingerprint = teacher_fingerprint(suite, pair, data)
    if pair.is_ready or is_finished(Record(results / "teachers" / fingerprint)):
        return {}
    before = _missing_teachers(suite, pair.before, data, results) if pair.chain else {}
    return before | {fingerprint: pair.teacher}


def _teacher_seconds(suite: Suite, network: str, data: Data) -> float:
    """A teacher's training: the network as a student that learns from the labels."""
    alone = Pair(teacher=network, student=network)
    protocol = suite.teacher_protocol()
    suite = suite.model_copy(update={"pairs": [alone], "protocol": protocol})
    cohort = make_untrained_cohort(suite, [MethodSpec(method="vanilla")], data)
    steps = n_batches(len(data.train), protocol.batch_size)
    step_s = sum(_step_times(cohort, data).values()) / 1000
    return protocol.epochs * (steps * step_s + len(data.validation) * _seconds_per_image(cohort, data))


def _step_times(cohort: Cohort, data: Data) -> dict[str, float]:
    """Milliseconds of a step by name, as `Cohort` measures them. Raises `UserError` where a row cannot take one."""
    for member in cohort.members:
        member.epoch = 0  # epochs before the first are counted as if they were any other
    lap = harness_lap(cohort)
    lap()
    cohort.clock.read_medians()
    for _ in range(LAPS):
        lap()
    for member in cohort.members:
        if member.status != "running":
            raise UserError(f"{member.name} ended in a few steps: {member.reason}")
    return cohort.clock.read_medians()


def _seconds_per_image(cohort: Cohort, data: Data) -> float:
    """Of a prediction of the first student, in batches as they are evaluated."""
    member, x = cohort.members[0], next(unaugmented_batches(data.validation, data, cohort.protocol.eval_batch_size))
    member.train(False)

    @torch.no_grad()
    def lap() -> None:
        member.predict(x, cohort.teacher)

    lap()
    return milliseconds_of(lap, data.device) / 1000 / len(x)


def _bytes(network: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
