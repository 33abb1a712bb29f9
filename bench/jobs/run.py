"""A suite from first to last: what is left to do, cohort by cohort, and what it leaves."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import compress
from pathlib import Path
from typing import Any

import torch
from torch import nn

import methods
from bench import catalogue, models
from bench import data as datasets
from bench import environment as env
from bench.data import Data
from bench.data.augment import VIEWS
from bench.data.cache import checksum
from bench.errors import UserError, notice
from bench.jobs import claims, tuned
from bench.jobs import teacher as teachers
from bench.jobs.cohort_job import CohortJob, Done, describe, dims
from bench.jobs.local import Local
from bench.jobs.progress import Progress
from bench.jobs.run_writer import Follower, finished
from bench.seeds import drawing_from
from bench.suite.spec import MethodSpec
from bench.suite.suite import Pair, Run, Suite
from bench.training import precision
from bench.training.member import make_optimizer
from methods.base import Method, Refusal, unknown
from tracking.lines import Damage, replace
from tracking.record import Record
from tracking.seal import MARK, opened, sealed

MANIFEST = "suite.json"

Rows = dict[str, list[tuple[MethodSpec, dict[str, Any]]]]
"""By pair, the rows of the comparison with their values, and where these come from, if from a study."""
Spread = Callable[[list[CohortJob]], Iterable[Done]]
"""What brings cohorts to other machines."""


@dataclass
class Outcome:
    """What a call of `run_suite` did."""

    fingerprints: list[str]
    trained: int = 0
    troubles: list[str] = field(default_factory=list)  # one line per run that failed or diverged

    @property
    def skipped(self) -> int:
        """Runs that were finished already, or that another process finished meanwhile."""
        return len(self.fingerprints) - self.trained


def run_suite(
    suite: Suite,
    results: Path,
    *,
    device: torch.device,
    rerun: bool,
    progress: Progress,
    follower: Follower | None,
    spread: Spread | None = None,
    group_size: int = 0,
) -> Outcome:
    """Train what the suite still lacks, in this process or where `spread` brings it; what another process trains at the
    same time is waited for. group_size: students of a cohort on the device at a time; 0: all. Raises `UserError` before
    any training where the suite cannot be run."""
    suite = resolved(suite, device)
    data = datasets.load(suite.data, "cpu" if spread else device)
    described, checksums = describe(data), _checksums(suite, results / suite.name)
    rows = {
        pair.name: [tuned.resolved(spec, suite, pair, described, results) for spec in suite.methods]
        for pair in suite.pairs
    }
    unfit: list[tuple[str, str, str]] = []
    for pair in suite.pairs:
        reasons = check(suite.model_copy(update={"methods": [spec for spec, _ in rows[pair.name]]}), pair, data)
        rows[pair.name] = [row for row in rows[pair.name] if row[0].title not in reasons]
        unfit += [(title, pair.name, reason) for title, reason in reasons.items()]
    for title, where, reason in unfit:
        progress.say(f"left out: {title} on {where}: {reason}")
    end_orphaned_runs(results / suite.name, follower)
    jobs, fingerprints = _plan(suite, rows, data, results, time.time() if rerun else 0.0, group_size)
    outcome = Outcome(fingerprints)
    _manifest(results / suite.name, suite, fingerprints, checksums, unfit)
    do = spread or Local(data, results, env.environment(device), progress, follower).each
    for done in do(jobs):
        outcome.trained += done.trained
        outcome.troubles += done.troubles
    # once more: another call of the suite may have asked for other runs meanwhile
    _manifest(results / suite.name, suite, fingerprints, checksums, unfit)
    return outcome


def _plan(
    suite: Suite, rows: Rows, data: Data, results: Path, anew: float, group_size: int
) -> tuple[list[CohortJob], list[str]]:
    """What is to be trained, each pair's teacher before its cohorts; and the fingerprints of all runs of the suite.

    A run that has failed before comes after all others, in a cohort of its own: it may take the device down with it.
    """
    described = describe(data)
    whole, fingerprints, jobs, again = described | data.describe_test(), [], [], []
    for pair in suite.pairs:
        mark = teachers.fingerprint(pair, described, suite.teacher_protocol(pair), suite.teacher.seed)
        todo, apart, taught = [], [], set[str]()
        for seed in suite.seeds:
            runs = [Run.of(suite, pair, spec, seed, whole, mark, found) for spec, found in rows[pair.name]]
            fingerprints += [run.fingerprint for run in runs]
            records = [Record(results / suite.name / "runs" / run.fingerprint) for run in runs]
            left = [bool(anew) or not finished(record) for record in records]
            taught |= {r.header["spec"].get("teacher_hash") for r, more in zip(records, left, strict=True) if not more}
            where = suite.model_copy(update={"pairs": [pair], "seeds": [seed]})
            work = partial(_job, where, results, anew=anew, group_size=group_size)
            chosen = list(compress(zip(rows[pair.name], runs, records, strict=True), left))
            fresh = [entry for entry in chosen if not _failed(entry[2])]
            todo += [work(fresh)] if fresh else []
            apart += [work([entry], again=entry[1].label) for entry in chosen if _failed(entry[2])]
        if first := (todo or apart)[:1]:
            known = tuple(sorted(filter(None, taught)))
            jobs += [dataclasses.replace(first[0], found=(), fingerprints=(), taught=known, again=""), *todo]
            again += apart
    return [*jobs, *again], fingerprints


def _job(suite: Suite, results: Path, entries: list[tuple[Any, Run, Record]], **how: Any) -> CohortJob:
    """The cohort of these rows, with their runs; suite: with its pair and seed alone."""
    narrow = suite.model_copy(update={"methods": [spec for (spec, _), _, _ in entries]})
    found, prints = tuple(found for (_, found), _, _ in entries), tuple(run.fingerprint for _, run, _ in entries)
    return CohortJob(narrow, results, found, prints, **how)


def _failed(record: Record) -> bool:
    try:
        return record.status == "failed"
    except Damage:
        return False


def end_orphaned_runs(where: Path, follower: Follower | None) -> None:
    """End, as interrupted, the records that processes were writing which are gone. Costs nothing where none died."""
    found = claims.take_dead_claims(where)
    for record in map(Record, [path for folder in found for path in (folder, *sorted(folder.glob("trials/*")))]):
        with suppress(Damage):  # whoever does the run mends it
            if record.status == "running":
                record.end("interrupted", "its process is gone; the same command resumes it", {}, [])
                if follower:
                    follower.finish(record)


def resolved(suite: Suite, device: torch.device) -> Suite:
    """The suite with everything decided that 'auto' leaves to the machine; the process takes its number of threads."""
    if suite.protocol.threads:
        torch.set_num_threads(suite.protocol.threads)
    exact = precision.resolve(suite.protocol.precision, device)
    return suite.model_copy(update={"protocol": suite.protocol.model_copy(update={"precision": exact})})


def check(suite: Suite, pair: Pair, data: Data) -> dict[str, str]:
    """Refuse in one line, before any training, what cannot be trained on this pair and data. Returns the reasons, by
    title, of rows that may be left out."""
    shapes, unfit = dims(pair, data, suite.protocol.batch_size), dict[str, str]()
    for spec in suite.methods:
        try:
            kind = methods.get(spec.method)
            kind.check_pair(shapes)
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
            if not spec.if_fit:
                raise UserError(
                    f"{spec.title} on {pair.name}: {error}; --skip-unfit leaves out what does not take a pair"
                ) from None
            unfit[spec.title] = str(error)
        except UserError:
            raise
        except Exception:  # a fault of the method's own: its runs end by it, and no other's
            continue
    if pair.teacher_file or pair.pretrained:
        teachers.begin_with(pair, data, suite.teacher.seed)
        if pair.is_ready and not data.own_validation:
            notice(
                f"{pair.teacher_file}: the validation split is {len(data.validation)} images taken from train; if the"
                " teacher was trained on them, its validation accuracy says nothing"
            )
    if len(unfit) == len(suite.methods):
        title, reason = next(iter(unfit.items()))
        raise UserError(f"no method of the suite takes {pair.name}: {title}: {reason}; name another pair or kd")
    return unfit


def _views_exist(kind: type[Method], data: Data) -> None:
    """Refuse a view that nothing draws, or that means nothing on this data."""
    for view in {*kind.needs.views, *(kind.pretrain_needs.views if kind.pretrain_needs else ())} - set(data.views):
        if view in VIEWS:
            raise Refusal(f"it needs the {view} view of an image, and data.{view} is false for {data.name}")
        raise unknown("view of the images", view, data.views)


def _checksums(suite: Suite, where: Path) -> dict[str, str]:
    """SHA-256 of the files that the suite's data and teachers come from. Raises `UserError` where one has changed since
    the suite was last run: no other run could be compared with those that are here."""
    files = datasets.files(suite.data)
    for pair in (pair for pair in suite.pairs if pair.teacher_file):
        first, *others = models.files(pair.checkpoint)
        files |= {str(pair.teacher_file): first} | {str(path): path for path in others}
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


def _manifest(
    where: Path,
    suite: Suite,
    fingerprints: list[str],
    checksums: dict[str, str],
    unfit: Sequence[tuple[str, str, str]] = (),
) -> None:
    """Which runs the last call of this suite asked for: what a report of it covers. Readable without torch.

    unfit: row, pair and reason of what was left out, because the method does not take the pair.
    """
    text = json.dumps(
        {
            "seal": MARK,
            "suite": suite.model_dump(mode="json"),
            "fingerprints": fingerprints,
            "methods": catalogue.cited(spec.method for spec in suite.methods),
            "files": checksums,
            **({"left_out": unfit} if unfit else {}),
        },
        indent=1,
    )
    replace(where / MANIFEST, sealed(text))
