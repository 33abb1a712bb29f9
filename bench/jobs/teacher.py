"""The teacher: trained once by the same harness, or loaded from a file; frozen, in eval mode, its state verified."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import methods
from bench import models
from bench.data import Data
from bench.errors import UserError, notice
from bench.jobs import checkpoint, claims, run_writer
from bench.jobs.fit import fit_into_memory
from bench.jobs.run_writer import RunWriter
from bench.jobs.teacher_source import (
    build_network,
    data_input,
    expected_input,
    initial_teacher,
    suite_of_member,
    teacher_fingerprint,
    with_source,
)
from bench.jobs.train_cohort import train_cohort
from bench.models.base import Network
from bench.models.fast import use_fast_layout
from bench.models.teaching import Ensemble
from bench.seeds import fork_rng
from bench.suite.suite import Pair, Suite
from bench.training.cohort import Cohort
from bench.training.evaluate import metrics, network_logits
from bench.training.member import Member
from methods.base import Dims, Method
from methods.vanilla import Vanilla
from tracking.record import Record


@dataclass
class Teacher:
    network: Network
    fingerprint: str  # of what it was made from
    state_hash: str  # sha256 of its weights: the same after every cohort, or the cohort is void
    top1: float | None  # on the validation split, %; None: its head is ignored
    chance_top1: float  # what a network that knows nothing may reach there, %
    title: str  # which one it is, where a suite has several
    facts: dict[str, Any] = field(default_factory=dict)  # what the records of its students say of it

    @property
    def knows_something(self) -> bool:
        return self.top1 is None or self.top1 > self.chance_top1

    @property
    def sentence(self) -> str:
        """How good it is, and a warning where it is no better than a network that knows nothing of the data."""
        if self.top1 is None:
            return f"{self.title}: no accuracy, its head is not looked at (teacher_head: ignore)"
        accuracy = f"{self.title}: {self.top1:.2f} % on validation"
        if self.knows_something:
            return accuracy
        return (
            f"{accuracy}, which is chance level (up to {self.chance_top1:.2f} %): students learn nothing from it; is it"
            " trained on these classes in this order, and on images normalised like these (data.mean, data.std)?"
        )

    def verify_unchanged(self, writers: Iterable[RunWriter]) -> None:
        """If anything touched the teacher, end the runs that learnt from it as failed, and raise `UserError`."""
        if models.state_hash(self.network) != self.state_hash:
            reason = "the teacher's state changed while students trained, one of their methods writes into it: void"
            for writer in writers:
                writer.end("failed", reason, {})
            raise UserError(f"{reason}; leave that method out, and the same command trains the others anew")


def title(arch: str, seed: int) -> str:
    """Which teacher it is; the first of a suite, whose seed is 0 by default, goes without its number."""
    return f"teacher {arch}" + (f" (seed {seed})" if seed else "")


@dataclass(frozen=True)
class _Place:
    """Where teachers are made and kept: all that does not change from one to the next."""

    data: Data
    data_description: dict[str, Any]
    results: Path
    environment: dict[str, Any]
    progress: Any


def obtain(
    suite: Suite,
    pair: Pair,
    data: Data,
    data_description: dict[str, Any],
    results: Path,
    environment: dict[str, Any],
    progress: Any,
) -> Teacher:
    """The pair's teacher on the data's device: from its file, from the cache, or trained now, with those that it learns
    from or consists of. Says how good each is.

    Raises `claims.ClaimHeld` while another process trains it.
    """
    return _obtain(suite, pair, _Place(data, data_description, results, environment, progress))


def _obtain(suite: Suite, pair: Pair, place: _Place) -> Teacher:
    data, facts = place.data, dict[str, Any]()
    fingerprint = teacher_fingerprint(suite, pair, place.data_description)
    if pair.ensemble:
        members = [_obtain(suite_of_member(suite, n), member, place) for member, n in pair.members()]
        network: Network = Ensemble([member.network for member in members], pair.ensemble_tau)
        name, facts = title(pair.teacher, 0), {"teacher_members": [member.fingerprint for member in members]}
    elif pair.is_ready:
        network, file_part = initial_teacher(pair.source, data, suite.teacher.seed)
        name = title(pair.teacher, 0)
        if pair.teacher_file:
            place.progress.log(f"{pair.teacher_file}: took {file_part}")
            facts = {"teacher_file_part": file_part}
    else:
        name = title(pair.teacher, 0 if pair.teacher_file else suite.teacher.seed)
        network = _trained(suite, pair, fingerprint, name, place)
    if not pair.ensemble and (images := expected_input(pair.source, data)) != data_input(data):
        facts["teacher_input"] = images.record()
        grey = f", the grey repeated in {len(images.mean)} channels" if len(images.mean) != data.channels else ""
        place.progress.log(
            f"{name}: its images are normalised by {images.mean} and {images.std}, {images.size} pixels{grey}"
        )
    freeze(network, data.device)
    top1 = None
    if network.has_head:
        top1 = metrics(network_logits(network, data.validation, data, suite.protocol), data.validation.y)["top1"]
    hash_, chance = models.state_hash(network), chance_level(data.validation.y)
    teacher = Teacher(network, fingerprint, hash_, top1, chance, name, facts)
    (place.progress.log if teacher.knows_something else notice)(teacher.sentence)
    return teacher


def freeze(network: Network, device: torch.device) -> Network:
    """The network on its device, ready to teach: in eval mode, none of its parameters ever trained."""
    use_fast_layout(network.to(device))
    return network.requires_grad_(False).eval()


def _trained(suite: Suite, pair: Pair, fingerprint: str, name: str, place: _Place) -> Network:
    """The teacher that this harness trains, where it is not there yet: by labels alone, or at a chain's end by its
    method, after the teacher before it."""
    data, seed, protocol = place.data, suite.teacher.seed, suite.teacher_protocol(pair)
    folder = place.results / "teachers" / fingerprint
    record = Record(folder)
    if not run_writer.is_finished(record):
        before = _obtain(suite, pair.before, place) if pair.chain else None
        spec = {
            "suite": "teachers",
            "dataset": data.name,
            "method": pair.link.method if before else "teacher",
            "label": "teacher",
            "teacher": pair.teacher,
            "seed": seed,
            **({"taught_by": before.fingerprint} if before else {}),
        }
        with claims.claim(claims.claim_file(folder.parent, fingerprint), name, [folder]) as check_claim:
            if not run_writer.is_finished_after_repair(record):
                header = {"protocol": protocol.model_dump(), "data": place.data_description}
                record.begin(fingerprint, spec | header, place.environment)
                train = partial(_train, suite, pair, data, before, record, place.progress, check_claim)
                fit_into_memory(lambda _: train(), 1, 1, data.device, name, place.progress.log)
    images = expected_input(pair.source, data)
    network = build_network(pair.teacher, data, init=("teacher", seed), images=images)
    models.load_state(network, folder / "teacher.safetensors")
    return with_source(network, pair.source, data)


def chance_level(y: Tensor) -> float:
    """The accuracy in % above which no network that knows nothing of the data comes with 99.9 % probability: the share
    of the largest class, and 3.09 standard deviations of so many guesses. y: [N] int64."""
    share = y.bincount().max().item() / len(y)
    return 100 * min(1.0, share + 3.09 * (share * (1 - share) / len(y)) ** 0.5)


def _train(
    suite: Suite,
    pair: Pair,
    data: Data,
    before: Teacher | None,
    record: Record,
    progress: Any,
    check_claim: run_writer.ClaimCheck,
) -> None:
    """Train to the last epoch: no epoch is chosen, and the test split is not looked at. before: the teacher that it
    learns from; None: it learns by cross entropy."""
    protocol, seed = suite.teacher_protocol(pair), suite.teacher.seed

    def make_member() -> Member:
        network, _ = initial_teacher(pair.source, data, seed)
        dims = network.dims()
        shapes = Dims(
            dims, before.network.dims() if before else dims, data.n_classes, protocol.batch_size, data.train.y
        )
        method = link_method(pair, shapes) if before else Vanilla(shapes)
        return Member("teacher", network, method, protocol, data.train.x.device, "teacher", pair.teacher, seed)

    def open_runs() -> Iterator[RunWriter]:
        writer = RunWriter(make_member(), record, None)
        writer.resume(make_member)
        yield writer

    def close_runs(cohort: Cohort, writers: list[RunWriter]) -> None:
        (writer,) = writers
        member = writer.member
        if member.status != "running":
            record.end(member.status, member.reason, {}, [])
            remedy = "; lower teacher.protocol.lr in the suite" if member.status == "diverged" else ""
            raise UserError(f"the {title(pair.teacher, seed)} {member.status}: {member.reason}{remedy}")
        (record.folder / "teacher.safetensors").write_bytes(run_writer.to_safetensors(member.network.state_dict()))
        checkpoint.remove(writer.path)
        record.write_epochs(member.history)
        record.end("finished", "", cohort.evaluator.evaluate(member, "validation"), ["teacher.safetensors"])

    make_cohort = partial(Cohort, data, protocol, before.network if before else None, seed=seed)
    train_cohort(title(pair.teacher, seed), open_runs, make_cohort, close_runs, check_claim, progress)


def link_method(pair: Pair, shapes: Dims) -> Method:
    """What the chain's teacher learns by, with fresh adapters. Raises `Refusal`, and `UserError` for a method whose
    student is more than its network."""
    kind = methods.get(pair.link.method)
    if kind.predict is not Method.predict:
        raise UserError(
            f"link {pair.link.method} on {pair.before.name}: its student predicts with more than its own network, which"
            " cannot teach; name another method, link: kd"
        )
    kind.check_pair(shapes)
    with fork_rng("link", pair.link.method, pair.name):
        return kind(shapes, **pair.link.values(pair.before.networks))
