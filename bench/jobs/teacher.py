"""The teacher: trained once by the same harness, or loaded from a file; frozen, in eval mode, its state verified."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench import models
from bench.data import Data
from bench.errors import UserError, notice
from bench.jobs import checkpoint, claims, run_writer
from bench.jobs.fit import fit_into_memory
from bench.jobs.run_writer import RunWriter
from bench.jobs.train_cohort import train_cohort
from bench.models.base import Network
from bench.models.fast import use_fast_layout
from bench.seeds import fork_rng
from bench.suite.protocol import NUMBERS, Protocol, digest
from bench.suite.suite import Pair, Suite
from bench.training.cohort import Cohort
from bench.training.evaluate import metrics, network_logits
from bench.training.member import Member
from methods.base import Dims
from methods.vanilla import Vanilla
from tracking.record import Record


@dataclass
class Teacher:
    network: Network
    fingerprint: str  # of what it was made from
    state_hash: str  # sha256 of its weights: the same after every cohort, or the cohort is void
    top1: float  # on the validation split, %
    chance_top1: float  # what a network that knows nothing may reach there, %
    title: str  # which one it is, where a suite has several
    file_part: str = ""  # where in its file the weights lay

    @property
    def sentence(self) -> str:
        """How good it is, and a warning where it is no better than a network that knows nothing of the data."""
        accuracy = f"{self.title}: {self.top1:.2f} % on validation"
        if self.top1 > self.chance_top1:
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


def build_network(name: str, data: Data, *, init: object, pretrained: bool = False) -> Network:
    """A network for this data; `init` names the draw of its initial weights, or of what its library's weights lack."""
    shape = {"in_channels": data.channels, "size": data.size, "n_classes": data.n_classes}
    with fork_rng("init", name, init):
        return models.build(name, **shape, pretrained=pretrained)


def initial_teacher(pair: Pair, data: Data, seed: int) -> tuple[Network, str]:
    """The pair's teacher as its training finds it, and where in its file its weights lay."""
    network = build_network(pair.teacher, data, init=("teacher", seed), pretrained=pair.pretrained)
    if not pair.teacher_file:
        return network, ""
    return network, models.load_state(network, pair.checkpoint, pair.teacher_key, new_head=not pair.is_ready)


def teacher_fingerprint(pair: Pair, data: dict[str, Any], protocol: Protocol, seed: int) -> str:
    """What a teacher is made from, hashed."""
    parts = {"numbers": NUMBERS, "data": data, "teacher": pair.teacher}
    parts |= {"network": code} if (code := models.version(pair.teacher)) else {}
    if pair.teacher_file:
        parts |= {"file": _checksum(pair.checkpoint)} | ({"key": pair.teacher_key} if pair.teacher_key else {})
    if pair.is_ready:
        return digest(parts)
    parts |= {"pretrained": True} if pair.pretrained else {}
    return digest({**parts, "numbers": protocol.numbers, "protocol": protocol.model_dump(), "seed": seed})


def _checksum(path: Path) -> str:
    """SHA-256 of a checkpoint's file; of one in several files, of theirs."""
    try:
        sums = [hashlib.sha256(file.read_bytes()).hexdigest() for file in models.files(path)]
        return sums[0] if len(sums) == 1 else digest({"files": sums})
    except OSError as error:
        raise UserError(f"teacher file {path}: {(error.strerror or 'not readable').lower()}") from None


def obtain(
    suite: Suite,
    pair: Pair,
    data: Data,
    data_description: dict[str, Any],
    results: Path,
    environment: dict[str, Any],
    progress: Any,
) -> Teacher:
    """The pair's teacher on the data's device: from its file, from the cache, or trained now. Says how good it is.

    Raises `claims.ClaimHeld` while another process trains it.
    """
    protocol, seed = suite.teacher_protocol(pair), suite.teacher.seed
    name = title(pair.teacher, 0 if pair.teacher_file else seed)
    fingerprint = teacher_fingerprint(pair, data_description, protocol, seed)
    if pair.is_ready:
        network, file_part = initial_teacher(pair, data, seed)
        progress.log(f"{pair.teacher_file}: took {file_part}")
    else:
        network, file_part = build_network(pair.teacher, data, init=("teacher", seed)), ""
        folder = results / "teachers" / fingerprint
        record = Record(folder)
        if not run_writer.is_finished(record):
            spec = {
                "suite": "teachers",
                "dataset": data.name,
                "method": "teacher",
                "label": "teacher",
                "teacher": pair.teacher,
                "seed": seed,
            }
            with claims.claim(claims.claim_file(folder.parent, fingerprint), name, [folder]) as check_claim:
                if not run_writer.is_finished_after_repair(record):
                    record.begin(
                        fingerprint, spec | {"protocol": protocol.model_dump(), "data": data_description}, environment
                    )
                    train = partial(_train, pair, data, protocol, seed, record, progress, check_claim)
                    fit_into_memory(lambda _: train(), 1, 1, data.device, name, progress.log)
        models.load_state(network, folder / "teacher.safetensors")
    freeze(network, data.device)
    top1 = metrics(network_logits(network, data.validation, data, suite.protocol), data.validation.y)["top1"]
    chance_top1 = chance_level(data.validation.y)
    teacher = Teacher(network, fingerprint, models.state_hash(network), top1, chance_top1, name, file_part)
    (progress.log if top1 > teacher.chance_top1 else notice)(teacher.sentence)
    return teacher


def freeze(network: Network, device: torch.device) -> Network:
    """The network on its device, ready to teach: in eval mode, none of its parameters ever trained."""
    use_fast_layout(network.to(device))
    return network.requires_grad_(False).eval()


def chance_level(y: Tensor) -> float:
    """The accuracy in % above which no network that knows nothing of the data comes with 99.9 % probability: the share
    of the largest class, and 3.09 standard deviations of so many guesses. y: [N] int64."""
    share = y.bincount().max().item() / len(y)
    return 100 * min(1.0, share + 3.09 * (share * (1 - share) / len(y)) ** 0.5)


def _train(
    pair: Pair,
    data: Data,
    protocol: Protocol,
    seed: int,
    record: Record,
    progress: Any,
    check_claim: run_writer.ClaimCheck,
) -> None:
    """Train by cross entropy to the last epoch: no epoch is chosen, and the test split is not looked at."""

    def make_member() -> Member:
        network, _ = initial_teacher(pair, data, seed)
        dims = network.dims()
        method = Vanilla(Dims(dims, dims, data.n_classes, protocol.batch_size, data.train.y))
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

    make_cohort = partial(Cohort, data, protocol, None, seed=seed)
    train_cohort(title(pair.teacher, seed), open_runs, make_cohort, close_runs, check_claim, progress)
