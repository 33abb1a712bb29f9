"""A cohort as work: plain data that says what is to be trained, and the training of it, here or on another machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

from bench.data import Data
from bench.errors import UserError
from bench.jobs import claims, run_writer
from bench.jobs import teacher as teachers
from bench.jobs.fit import fit_into_memory
from bench.jobs.progress import Progress
from bench.jobs.run_writer import Follower, RunArtifacts, RunWriter
from bench.jobs.teacher import Teacher
from bench.jobs.train_cohort import train_cohort
from bench.models.base import Network
from bench.seeds import drawing_from
from bench.suite.suite import Pair, Run, Suite
from bench.training import layers
from bench.training.cohort import Cohort
from bench.training.member import Member, told
from methods import get
from methods.base import Dims
from tracking.lines import RecordError
from tracking.record import Record


@dataclass(frozen=True)
class PairContext:
    """What all students of a pair stand on, in the process that trains them."""

    suite: Suite
    pair: Pair
    data: Data
    described: Mapping[str, Any]
    teacher: Teacher
    shapes: Dims
    environment: Mapping[str, Any]
    progress: Progress
    follower: Follower | None

    @classmethod
    def of(
        cls,
        suite: Suite,
        pair: Pair,
        data: Data,
        results: Path,
        environment: dict[str, Any],
        progress: Progress,
        follower: Follower | None,
    ) -> PairContext:
        """The context, with the pair's teacher, which is trained where there is none yet. Raises `claims.Held`."""
        described = describe(data)
        teacher = teachers.obtain(suite, pair, data, described, results, environment, progress)
        shapes = dims(pair, data, suite.protocol.batch_size, teacher.network)  # it holds what Q costs minutes for
        return cls(suite, pair, data, described, teacher, shapes, environment, progress, follower)


@dataclass(frozen=True)
class Done:
    """What came of a piece of work."""

    trained: int = 0
    troubles: tuple[str, ...] = ()  # one line per run that failed or diverged


@dataclass(frozen=True)
class CohortJob:
    """The cohort of one pair and seed, as data that can be sent; without fingerprints, the pair's teacher alone."""

    suite: Suite  # with these rows, this pair and this seed alone; all is decided that 'auto' leaves to the machine
    results: Path
    found: tuple[dict[str, Any], ...] = ()  # by row, where its values come from, if from a study
    fingerprints: tuple[str, ...] = ()
    taught: tuple[str, ...] = ()  # state hashes of the teachers that the pair's finished runs learnt from
    anew: float = 0.0  # records that were begun before (Unix seconds) are forgotten first (--rerun)
    group_size: int = 0  # students on the device at a time; 0: all
    again: str = ""  # the only run's row, where it has failed before: it stands apart, and can take no other with it
    test: bool = field(default=True, init=False)  # is the test split open?

    @property
    def pair(self) -> Pair:
        return self.suite.pairs[0]

    @property
    def title(self) -> str:
        if not self.fingerprints:
            return f"teacher {self.pair.teacher}"
        return " ".join(filter(None, (f"{self.pair.name} seed {self.suite.seeds[0]}", self.again)))

    @property
    def records(self) -> list[Record]:
        return [Record(self.results / self.suite.name / "runs" / fingerprint) for fingerprint in self.fingerprints]

    def run(self, context: PairContext) -> Done:
        """Train what is still to be trained of it. Raises `claims.Held` where another process does; `UserError` if the
        pair's finished runs learnt from other bits, because their teacher was lost and trained anew."""
        if {*self.taught} - {context.teacher.state}:
            file = self.results / "teachers" / context.teacher.fingerprint / "teacher.safetensors"
            raise UserError(
                f"finished runs on {self.pair.name} learnt from a teacher of the same recipe but of other bits than"
                f" {file} now: put that file back, or train all anew with --rerun"
            )
        if not self.fingerprints:
            return Done()
        path = claims.file_of(self.results / self.suite.name, self.title)
        with claims.claim(path, self.title, [record.folder for record in self.records]) as check:
            runs = [run for run in self._runs(context) if not self._finished(run)]
            return _train(runs, context, self.results / self.suite.name, check, self) if runs else Done()

    def _runs(self, context: PairContext) -> list[Run]:
        """The runs, as this process would train them. Raises `UserError` where that is not what was asked for."""
        suite, whole = self.suite, dict(context.described) | context.data.describe_test()
        mark = context.teacher.fingerprint
        runs = [
            Run.of(suite, self.pair, spec, suite.seeds[0], whole, mark, found)
            for spec, found in zip(suite.methods, self.found, strict=True)
        ]
        if tuple(run.fingerprint for run in runs) != self.fingerprints:
            raise UserError(
                f"{context.environment['host']} would train other runs of {self.title} than were asked for: its data,"
                " methods or version of kdbench differ; make them equal on all machines"
            )
        return runs

    def _finished(self, run: Run) -> bool:
        record = Record(self.results / run.suite / "runs" / run.fingerprint)
        if self.anew and _begun(record) < self.anew:
            run_writer.clear(record.folder)
        return run_writer.done(record)


def _begun(record: Record) -> float:
    """Unix seconds; 0 where there is no record, or one that cannot be read."""
    try:
        return float(record.header["time"])
    except RecordError:
        return 0.0


def describe(data: Data) -> dict[str, Any]:
    """What training sees of the data, for fingerprints and records: content, splits, normalisation, augmentation."""
    return {**data.describe(), "mean": list(data.mean), "std": list(data.std), "pad": data.pad, "flip": data.flip}


def dims(pair: Pair, data: Data, batch_size: int, teacher: Network | None = None) -> Dims:
    """What methods may size themselves by; with the trained teacher, also what they may read of it."""
    student = teachers.build(pair.student, data, init="dims").dims()
    if teacher is None:
        shapes = teachers.build(pair.teacher, data, init="dims").dims()
        return Dims(student, shapes, data.n_classes, batch_size, data.train.y)
    return Dims(
        student, teacher.dims(), data.n_classes, batch_size, data.train.y, cache(lambda: layers.quality(teacher, data))
    )


def member_of(run: Run, data: Data, shapes: Dims) -> Member:
    network = teachers.build(run.pair.student, data, init=run.seed)  # the method is not named: all start alike
    with drawing_from("method", run.method, run.seed):
        method = get(run.method)(shapes, **run.hp)
    return Member(run.label, network, method, run.protocol, data.train.x.device, "member", run.method, run.seed)


def open_run(run: Run, record: Record, context: PairContext, about: Mapping[str, Any]) -> RunWriter | None:
    """The run's student where it stands, its record open. None where its method cannot be made: then it has failed.

    about: what else the record says.
    """
    teacher = {"teacher_hash": context.teacher.state, "teacher_validation_top1": context.teacher.top1}
    teacher |= {"teacher_taken": context.teacher.taken} if context.teacher.taken else {}
    said = {**run.spec(), **teacher, "facts": {}, **about}
    try:
        member = member_of(run, context.data, context.shapes)
    except (Exception, SystemExit) as error:  # whatever a method does wrong ends its own run and nobody else's
        record.begin(run.fingerprint, said, context.environment)
        record.end("failed", told(error, "at its beginning"), {}, [])
        if context.follower:
            context.follower.finish(record)
        return None
    record.begin(run.fingerprint, {**said, "facts": member.method.facts}, context.environment)
    writer = RunWriter(member, record, context.follower)
    writer.resume(partial(member_of, run, context.data, context.shapes))
    return writer


def _train(runs: list[Run], context: PairContext, where: Path, check: run_writer.Check, job: CohortJob) -> Done:
    """One cohort, however many of its students the device holds at a time."""
    pair, seed = runs[0].pair, runs[0].seed
    records = {run.fingerprint: Record(where / "runs" / run.fingerprint) for run in runs}
    left = list(runs)

    def train(group_size: int) -> None:
        _attempt(left, records, context, check, job.title, group_size)

    def again(line: str) -> None:
        left[:] = [run for run in left if records[run.fingerprint].status == "interrupted"]
        context.progress.say(line)

    fit_into_memory(train, len(runs), job.group_size, context.data.device, job.title, again)
    ends = [(run, records[run.fingerprint].final or {}) for run in runs]
    troubles = [
        f"{run.label} on {pair.name}, seed {seed}: {end['status']} ({end['reason']})"
        for run, end in ends
        if end["status"] != "finished"
    ]
    return Done(len(runs), tuple(troubles))


def _attempt(
    runs: list[Run],
    records: Mapping[str, Record],
    context: PairContext,
    check: run_writer.Check,
    title: str,
    group_size: int,
) -> None:
    """Restore, train, evaluate, keep."""
    by_fingerprint = {run.fingerprint: run for run in runs}

    def begin() -> Iterator[RunWriter]:
        for run in runs:
            if writer := open_run(run, records[run.fingerprint], context, {}):
                yield writer

    def end(cohort: Cohort, writers: list[RunWriter]) -> None:
        context.teacher.verify(writers)
        for writer in writers:
            _finish(by_fingerprint[writer.record.folder.name], writer, cohort, context.data)

    train_cohort(title, begin, cohort_of(context, runs[0].seed, group_size), end, check, context.progress)


def cohort_of(context: PairContext, seed: int, group_size: int) -> Callable[[list[Member]], Cohort]:
    """Makes a cohort of members on the pair's data and teacher."""
    network, protocol = context.teacher.network, context.suite.protocol
    return partial(Cohort, context.data, protocol, network, seed=seed, group_size=group_size)


def _finish(run: Run, writer: RunWriter, cohort: Cohort, data: Data) -> None:
    """Evaluate and keep a run."""
    member, final = writer.member, None
    if member.status == "running":
        with cohort.guarded(member, "in the final evaluation"):
            final = cohort.final(member)
            member.status = "finished"
    if final is None or member.status != "finished":
        writer.end(member.status, member.reason, {})
        return
    network = {"arch": run.pair.student, "in_channels": data.channels, "size": data.size, "n_classes": data.n_classes}
    whole = network | {
        "classes": list(data.classes),
        "mean": list(data.mean),
        "std": list(data.std),
        "method": run.method,
        "hp": run.hp,
        "teacher": run.pair.teacher,
        "batch_size": run.protocol.batch_size,
    }
    writer.end("finished", "", final.metrics, RunArtifacts(final.state, whole, final.predictions))
