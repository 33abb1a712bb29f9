"""A cohort as work: plain data that says what is to be trained, and the training of it, here or on another machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from bench.data import Data
from bench.errors import UserError, error_message
from bench.jobs import claims, run_writer
from bench.jobs import teacher as teachers
from bench.jobs.fit import fit_into_memory
from bench.jobs.progress import Progress
from bench.jobs.run_writer import RecordMirror, RunArtifacts, RunWriter
from bench.jobs.teacher import Teacher
from bench.jobs.teacher_source import build_network, initial_student, untrained_teacher
from bench.jobs.train_cohort import train_cohort
from bench.models.base import Network
from bench.seeds import fork_rng
from bench.suite.suite import Pair, Run, Suite
from bench.training import layers
from bench.training.cohort import Cohort
from bench.training.member import Member
from methods import get
from methods.base import Dims
from tracking.lines import RecordError
from tracking.record import Record


@dataclass(frozen=True)
class PairContext:
    """What all students of a pair and a teacher stand on, in the process that trains them."""

    suite: Suite
    pair: Pair
    data: Data
    data_description: Mapping[str, Any]
    teacher: Teacher
    shapes: Dims
    environment: Mapping[str, Any]
    progress: Progress
    mirror: RecordMirror | None

    @classmethod
    def of(
        cls,
        suite: Suite,
        pair: Pair,
        data: Data,
        results: Path,
        environment: dict[str, Any],
        progress: Progress,
        mirror: RecordMirror | None,
    ) -> PairContext:
        """The context, with the pair's teacher, which is trained where there is none yet. Raises `claims.ClaimHeld`."""
        description = describe_data(data)
        teacher = teachers.obtain(suite, pair, data, description, results, environment, progress)
        shapes = method_dims(
            pair, data, suite.protocol.batch_size, teacher.network
        )  # it holds what Q costs minutes for
        return cls(suite, pair, data, description, teacher, shapes, environment, progress, mirror)

    def serves(self, suite: Suite) -> bool:
        """Is it that of the suite's only pair, with its teacher and data?"""
        own = self.pair, self.suite.teacher, self.suite.data
        return own == (suite.pairs[0], suite.teacher, suite.data)


@dataclass(frozen=True)
class JobResult:
    """What came of a piece of work."""

    n_trained: int = 0
    failures: tuple[str, ...] = ()  # one line per run that failed or diverged


@dataclass(frozen=True)
class CohortJob:
    """The cohort of one pair and seed, as data that can be sent; without fingerprints, its teacher alone."""

    suite: Suite  # with these rows, this pair, seed and teacher alone; all is decided that 'auto' leaves to the machine
    results: Path
    value_sources: tuple[dict[str, Any], ...] = ()  # by row, where its values come from, if from a study
    fingerprints: tuple[str, ...] = ()
    teacher_hashes: tuple[str, ...] = ()  # state hashes of the teachers that this teacher's finished runs learnt from
    retrain_before: float = 0.0  # records that were begun before (Unix seconds) are forgotten first (--rerun)
    group_size: int = 0  # students on the device at a time; 0: all
    retried_label: str = ""  # the only run's row, where it failed before: it stands apart, and takes no other with it
    part: str = ""  # which one, where cores that had nothing else to do share the cohort: "part 1 of 2"
    opens_test_split: bool = field(default=True, init=False)  # is the test split open?

    @property
    def pair(self) -> Pair:
        return self.suite.pairs[0]

    @property
    def teacher_key(self) -> tuple[str, int, int]:
        """Jobs of the same key come after the job of that teacher alone: network, seed and split seed."""
        return self.pair.teacher, self.suite.teacher.seed, self.suite.data.split_seed

    @property
    def title(self) -> str:
        if not self.fingerprints:
            return teachers.title(self.pair.teacher, self.suite.teacher.seed)
        return " ".join(filter(None, (f"{self.pair.name} seed {self.suite.seeds[0]}", self.retried_label, self.part)))

    @property
    def records(self) -> list[Record]:
        return [Record(self.results / self.suite.name / "runs" / fingerprint) for fingerprint in self.fingerprints]

    def parts(self, n: int, costs: Sequence[float]) -> list[CohortJob]:
        """The same work in n jobs at most, about as long as each other. costs: of each row's step, in any unit."""
        rows: list[list[int]] = [[] for _ in range(min(n, len(self.fingerprints)))]
        for row in sorted(range(len(costs)), key=lambda row: -costs[row]):
            min(rows, key=lambda part: sum(costs[i] for i in part)).append(row)
        return [self._part(sorted(part), f"part {k} of {len(rows)}") for k, part in enumerate(rows, 1)]

    def _part(self, rows: Sequence[int], name: str) -> CohortJob:
        suite = self.suite.model_copy(update={"methods": [self.suite.methods[i] for i in rows]})
        sources, fingerprints = [self.value_sources[i] for i in rows], [self.fingerprints[i] for i in rows]
        return replace(self, suite=suite, value_sources=tuple(sources), fingerprints=tuple(fingerprints), part=name)

    def run(self, context: PairContext) -> JobResult:
        """Train what is still to be trained of it. Raises `claims.ClaimHeld` where another process does; `UserError` if
        the pair's finished runs learnt from other bits, because their teacher was lost and trained anew."""
        if {*self.teacher_hashes} - {context.teacher.state_hash}:
            file = self.results / "teachers" / context.teacher.fingerprint / "teacher.safetensors"
            raise UserError(
                f"finished runs on {self.pair.name} learnt from a teacher of the same recipe but of other bits than"
                f" {file} now: put that file back, or train all anew with --rerun"
            )
        if not self.fingerprints:
            return JobResult()
        path = claims.claim_file(self.results / self.suite.name, self.title)
        folders = [record.folder for record in self.records]
        with claims.claim(path, self.title, folders, exclusive=True) as check_claim:
            runs = [run for run in self._make_runs(context) if not self._is_finished(run)]
            return _train(runs, context, self.results / self.suite.name, check_claim, self) if runs else JobResult()

    def _make_runs(self, context: PairContext) -> list[Run]:
        """The runs, as this process would train them. Raises `UserError` where that is not what was asked for."""
        suite, description = self.suite, dict(context.data_description) | context.data.describe_test()
        rows = zip(suite.methods, self.value_sources, strict=True)
        runs = Run.of_rows(suite, self.pair, rows, suite.seeds[0], description, context.teacher.fingerprint)
        if tuple(run.fingerprint for run in runs) != self.fingerprints:
            raise UserError(
                f"{context.environment['host']} would train other runs of {self.title} than were asked for: its data,"
                " methods or version of kdbench differ; make them equal on all machines"
            )
        return runs

    def _is_finished(self, run: Run) -> bool:
        record = Record(self.results / run.suite / "runs" / run.fingerprint)
        if self.retrain_before and _start_time(record) < self.retrain_before:
            run_writer.delete_run(record.folder)
        return run_writer.is_finished_after_repair(record)


def _start_time(record: Record) -> float:
    """Unix seconds; 0 where there is no record, or one that cannot be read."""
    try:
        return float(record.header["time"])
    except RecordError:
        return 0.0


def describe_data(data: Data) -> dict[str, Any]:
    """What training sees of the data, for fingerprints and records: content, splits, normalisation, augmentation."""
    return {**data.describe(), "mean": list(data.mean), "std": list(data.std), "pad": data.pad, "flip": data.flip}


def method_dims(pair: Pair, data: Data, batch_size: int, teacher: Network | None = None) -> Dims:
    """What methods may size themselves by; with the trained teacher, also what they may read of it."""
    student = build_network(pair.student, data, init="dims").dims()
    if teacher is None:
        shapes = untrained_teacher(pair, data, "dims").dims()
        return Dims(student, shapes, data.n_classes, batch_size, data.train.y)
    return Dims(
        *(student, teacher.dims(), data.n_classes, batch_size, data.train.y),
        quality=cache(lambda: layers.quality(teacher, data)),
        relations=cache(lambda: layers.relations(teacher, data)),
    )


def make_member(run: Run, data: Data, shapes: Dims) -> Member:
    network = initial_student(run.pair, data, run.seed)  # the method is not named: all start alike
    with fork_rng("method", run.method, run.seed):
        method = get(run.method)(shapes, **run.hp)
    return Member(run.label, network, method, run.protocol, data.train.x.device, "member", run.method, run.seed)


def open_run(run: Run, record: Record, context: PairContext, extra: Mapping[str, Any]) -> RunWriter | None:
    """The run's student where it stands, its record open. None where its method cannot be made: then it has failed.

    extra: what else the record says.
    """
    teacher = {"teacher_hash": context.teacher.state_hash, "teacher_validation_top1": context.teacher.top1}
    teacher |= context.teacher.facts
    spec = {**run.spec(), **teacher, "facts": {}, **extra}
    try:
        member = make_member(run, context.data, context.shapes)
    except (Exception, SystemExit) as error:  # whatever a method does wrong ends its own run and nobody else's
        record.begin(run.fingerprint, spec, context.environment)
        record.end("failed", error_message(error, "at its beginning"), {}, [])
        if context.mirror:
            context.mirror.finish(record)
        return None
    record.begin(run.fingerprint, {**spec, "facts": member.method.facts}, context.environment)
    writer = RunWriter(member, record, context.mirror)
    writer.resume(partial(make_member, run, context.data, context.shapes))
    return writer


def _train(
    runs: list[Run], context: PairContext, suite_folder: Path, check_claim: run_writer.ClaimCheck, job: CohortJob
) -> JobResult:
    """One cohort, however many of its students the device holds at a time."""
    pair, seed = runs[0].pair, runs[0].seed
    records = {run.fingerprint: Record(suite_folder / "runs" / run.fingerprint) for run in runs}
    unfinished = list(runs)

    def train(group_size: int) -> None:
        _train_once(unfinished, records, context, check_claim, job.title, group_size)

    def retry(line: str) -> None:
        unfinished[:] = [run for run in unfinished if records[run.fingerprint].status == "interrupted"]
        context.progress.log(line)

    fit_into_memory(train, len(runs), job.group_size, context.data.device, job.title, retry)
    ends = [(run, records[run.fingerprint].final or {}) for run in runs]
    failures = [
        f"{run.label} on {pair.name}, seed {seed}: {end['status']} ({end['reason']})"
        for run, end in ends
        if end["status"] != "finished"
    ]
    return JobResult(len(runs), tuple(failures))


def _train_once(
    runs: list[Run],
    records: Mapping[str, Record],
    context: PairContext,
    check_claim: run_writer.ClaimCheck,
    title: str,
    group_size: int,
) -> None:
    """Restore, train, evaluate, keep."""
    by_fingerprint = {run.fingerprint: run for run in runs}

    def open_runs() -> Iterator[RunWriter]:
        for run in runs:
            if writer := open_run(run, records[run.fingerprint], context, {}):
                yield writer

    def close_runs(cohort: Cohort, writers: list[RunWriter]) -> None:
        context.teacher.verify_unchanged(writers)
        for writer in writers:
            _evaluate_and_end(by_fingerprint[writer.record.folder.name], writer, cohort, context.data)

    train_cohort(
        title, open_runs, cohort_factory(context, runs[0].seed, group_size), close_runs, check_claim, context.progress
    )


def cohort_factory(context: PairContext, seed: int, group_size: int) -> Callable[[list[Member]], Cohort]:
    """Makes a cohort of members on the pair's data and teacher."""
    network, protocol = context.teacher.network, context.suite.protocol
    return partial(Cohort, context.data, protocol, network, seed=seed, group_size=group_size)


def _evaluate_and_end(run: Run, writer: RunWriter, cohort: Cohort, data: Data) -> None:
    """Evaluate and keep a run."""
    member, teacher, final = writer.member, cohort.teacher, None
    if member.status == "running":
        with cohort.contain_errors(member, "in the final evaluation"):
            final = cohort.evaluate_final(member)
            member.status = "finished"
    if final is None or member.status != "finished":
        writer.end(member.status, member.reason, {})
        return
    network = {"arch": run.pair.student, "in_channels": data.channels, "size": data.size, "n_classes": data.n_classes}
    network_spec = network | {
        "classes": list(data.classes),
        "mean": list(data.mean),
        "std": list(data.std),
        "method": run.method,
        "hp": run.hp,
        "teacher": run.pair.teacher,
        "batch_size": run.protocol.batch_size,
        **({"teacher_size": teacher.size} if teacher and teacher.size != data.size else {}),
        **({"teacher_channels": teacher.in_channels} if teacher and teacher.in_channels != data.channels else {}),
    }
    writer.end("finished", "", final.metrics, RunArtifacts(final.state, network_spec, final.predictions))
