"""A suite from first to last: what is left to do, cohort by cohort, and what it leaves."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

import methods
from bench import catalogue, keep, layers, models, tuned
from bench import data as datasets
from bench import environment as env
from bench import teacher as teachers
from bench.cohort import Cohort
from bench.data import Data
from bench.data.augment import VIEWS
from bench.data.cache import checksum
from bench.errors import UserError
from bench.keep import Follower, Keeper, Left
from bench.member import Member, make_optimizer
from bench.models.base import Network
from bench.progress import Progress
from bench.seeds import drawing_from
from bench.suite import Pair, Run, Suite
from bench.teacher import Teacher
from methods.base import Dims, Method, Refusal, unknown
from tracking.lines import replace
from tracking.record import Record
from tracking.seal import MARK, opened, sealed

MANIFEST = "suite.json"


@dataclass
class Outcome:
    """What a call of `run_suite` did."""

    fingerprints: list[str]
    skipped: int = 0
    trained: int = 0
    troubles: list[str] = field(default_factory=list)  # one line per run that failed or diverged


def run_suite(
    suite: Suite, results: Path, *, device: torch.device, rerun: bool, progress: Progress, follower: Follower | None
) -> Outcome:
    """Train what the suite still lacks. Raises `UserError` before any training where the suite cannot be run."""
    suite = resolved(suite, device)
    data = datasets.load(suite.data, device)
    described = describe(data)
    sums = _checksums(suite, results / suite.name)
    whole = described | data.describe_test()
    rows = {
        pair.name: [tuned.resolved(spec, suite, pair, described, results) for spec in suite.methods]
        for pair in suite.pairs
    }
    for pair in suite.pairs:
        check(suite.model_copy(update={"methods": [spec for spec, _ in rows[pair.name]]}), pair, data)
    where, made = results / suite.name, env.environment(device)
    outcome = Outcome([])
    for pair in suite.pairs:
        protocol = suite.teacher_protocol()
        teacher = teachers.obtain(pair, data, described, protocol, suite.teacher.seed, results, made, progress)
        runs = [
            Run.of(suite, pair, spec, seed, whole, teacher.fingerprint, found)
            for seed in suite.seeds
            for spec, found in rows[pair.name]
        ]
        outcome.fingerprints += [run.fingerprint for run in runs]
        _manifest(where, suite, outcome.fingerprints, teacher, sums)
        shapes = dims(pair, data, suite.protocol.batch_size, teacher.network)  # once: it holds what Q costs minutes for
        for todo in _cohorts(runs, where, rerun, teacher, outcome):
            _train(todo, data, shapes, teacher, where, made, progress, follower, outcome)
    return outcome


def resolved(suite: Suite, device: torch.device) -> Suite:
    """The suite with everything decided that 'auto' leaves to the machine; the process takes its number of threads."""
    if suite.protocol.threads:
        torch.set_num_threads(suite.protocol.threads)
    precision = env.precision(suite.protocol.precision, device)
    return suite.model_copy(update={"protocol": suite.protocol.model_copy(update={"precision": precision})})


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


def check(suite: Suite, pair: Pair, data: Data) -> None:
    """Refuse in one line, before any training, what cannot be trained on this pair and data."""
    shapes = dims(pair, data, suite.protocol.batch_size)
    for spec in suite.methods:
        try:
            kind = methods.get(spec.method)
            kind.check(shapes)
            _views_exist(kind, data)
            with drawing_from("check"):
                method = kind(shapes, **spec.values(pair.name))
            method.optimizer(make_optimizer(suite.protocol, [nn.Parameter(torch.zeros(1))], suite.protocol.lr))
            if method.needs.full_batches and len(shapes.train_y) < shapes.batch_size:
                raise Refusal(
                    f"it takes full batches, and {len(shapes.train_y)} training images make none of"
                    f" {shapes.batch_size}; set protocol.batch_size lower"
                )
        except Refusal as error:
            raise UserError(f"{spec.title} on {pair.name}: {error}") from None
    if pair.teacher_file:
        models.load_state(teachers.build(pair.teacher, data, init="check"), Path(pair.teacher_file).expanduser())


def _views_exist(kind: type[Method], data: Data) -> None:
    """Refuse a view that nothing draws, or that means nothing on this data."""
    for view in {*kind.needs.views, *(kind.needs_before.views if kind.needs_before else ())} - set(data.views):
        if view in VIEWS:
            raise Refusal(f"it needs the {view} view of an image, and data.{view} is false for {data.name}")
        raise unknown("view of the images", view, data.views)


def _cohorts(runs: list[Run], where: Path, rerun: bool, teacher: Teacher, outcome: Outcome) -> Iterator[list[Run]]:
    """Unfinished runs that share pair and seed, cohort by cohort."""
    groups: dict[int, list[Run]] = defaultdict(list)
    others = 0  # finished runs that learnt from other bits: a teacher that was lost, and trained anew elsewhere
    for run in runs:
        record = Record(where / "runs" / run.fingerprint)
        if rerun:
            keep.clear(record.folder)
        elif keep.done(record):
            outcome.skipped += 1
            others += record.header["spec"].get("teacher_hash") not in (None, teacher.state)
            continue
        groups[run.seed].append(run)
    if others:
        raise UserError(
            f"{others} finished runs on {runs[0].pair.name} learnt from a teacher of this recipe but of other bits: put"
            f" its file back in {where.parent / 'teachers' / teacher.fingerprint}, or train all anew with --rerun"
        )
    yield from groups.values()


def _train(
    runs: list[Run],
    data: Data,
    shapes: Dims,
    teacher: Teacher,
    where: Path,
    made: dict[str, Any],
    progress: Progress,
    follower: Follower | None,
    outcome: Outcome,
) -> None:
    """One cohort: restore, train, evaluate, keep."""
    pair, seed, protocol = runs[0].pair, runs[0].seed, runs[0].protocol
    keepers = []
    for run in runs:
        record, member = Record(where / "runs" / run.fingerprint), member_of(run, data, shapes)
        facts = {"teacher_hash": teacher.state, "facts": member.method.facts}
        record.begin(run.fingerprint, {**run.spec(), **facts}, made)
        keeper = Keeper(member, record, follower)
        keeper.resume()
        keepers.append(keeper)
    cohort = Cohort(data, protocol, teacher.network, [keeper.member for keeper in keepers], seed)

    def after_epoch(cohort: Cohort, epoch: int) -> None:
        for keeper in keepers:
            keeper.after_epoch()
        watch.epoch(cohort, epoch)

    with keep.interruptible(keepers), progress.cohort(f"{pair.name} seed {seed}", cohort) as watch:
        cohort.train(after_epoch, watch.step)
    teacher.verify()
    for run, keeper in zip(runs, keepers, strict=True):
        _finish(run, keeper, cohort, data, outcome)


def member_of(run: Run, data: Data, shapes: Dims) -> Member:
    network = teachers.build(run.pair.student, data, init=run.seed)  # the method is not named: all start alike
    with drawing_from("method", run.method, run.seed):
        method = methods.get(run.method)(shapes, **run.hp)
    return Member(run.label, network, method, run.protocol, data.train.x.device, "member", run.method, run.seed)


def _finish(run: Run, keeper: Keeper, cohort: Cohort, data: Data, outcome: Outcome) -> None:
    member, final = keeper.member, {}
    if member.status == "running":
        try:
            final = cohort.final(member)
            member.status = "finished"
        except Exception as error:
            member.fail("failed", f"{type(error).__name__} in the final evaluation: {error}".splitlines()[0])
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
    done = member.status == "finished"
    left = Left(cohort.deployed[member.name], whole, cohort.predictions[member.name]) if done else None
    keeper.end(member.status, member.reason, final, left)
    outcome.trained += 1
    if not done:
        outcome.troubles.append(f"{run.label} on {run.pair.name}, seed {run.seed}: {member.status} ({member.reason})")


def _checksums(suite: Suite, where: Path) -> dict[str, str]:
    """SHA-256 of the files that the suite's data and teachers come from. Raises `UserError` where one has changed since
    the suite was last run: no other run could be compared with those that are here."""
    files = datasets.files(suite.data)
    files |= {p.teacher_file: Path(p.teacher_file).expanduser() for p in suite.pairs if p.teacher_file}
    now = {name: checksum(path) for name, path in files.items() if path.is_file()}
    try:
        before = dict(json.loads(opened((where / MANIFEST).read_text(encoding="utf-8"))).get("files", {}))
    except (OSError, ValueError, TypeError, AttributeError):
        return now  # there is none, or a damaged one, which this call writes anew
    if changed := [name for name in now if before.get(name, now[name]) != now[name]]:
        raise UserError(
            f"{changed[0]} is not the file that this suite was run with (its SHA-256 differs): put that one back, or"
            f" move {where / MANIFEST} away if the change is meant"
        )
    return before | now


def _manifest(where: Path, suite: Suite, fingerprints: list[str], teacher: Teacher, checksums: dict[str, str]) -> None:
    """Which runs the last call of this suite asked for: what a report of it covers. Readable without torch."""
    text = json.dumps(
        {
            "seal": MARK,
            "suite": suite.model_dump(mode="json"),
            "fingerprints": fingerprints,
            "teacher_top1": {teacher.network.arch: teacher.top1},
            "methods": catalogue.cited(spec.method for spec in suite.methods),
            "files": checksums,
        },
        indent=1,
    )
    replace(where / MANIFEST, sealed(text))
