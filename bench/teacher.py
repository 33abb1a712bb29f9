"""The teacher: trained once by the same harness, or loaded from a file; frozen, in eval mode, its state verified."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import checkpoint, claims, keep, models
from bench.cohort import Cohort
from bench.data import Data
from bench.errors import UserError
from bench.evaluate import logits_of, metrics
from bench.keep import Keeper
from bench.member import Member
from bench.models.base import Network
from bench.protocol import NUMBERS, Protocol, digest
from bench.seeds import drawing_from
from bench.suite import Pair
from methods.base import Dims
from methods.vanilla import Vanilla
from tracking.record import Record


@dataclass
class Teacher:
    network: Network
    fingerprint: str  # of what it was made from
    state: str  # sha256 of its weights: the same after every cohort, or the cohort is void
    top1: float  # on the validation split, %

    def verify(self, keepers: Iterable[Keeper]) -> None:
        """If anything touched the teacher, end the runs that learnt from it as failed, and raise `UserError`."""
        if models.state_hash(self.network) != self.state:
            void = "the teacher's state changed while students trained, one of their methods writes into it: void"
            for keeper in keepers:
                keeper.end("failed", void, {})
            raise UserError(f"{void}; leave that method out, and the same command trains the others anew")


def build(name: str, data: Data, *, init: object) -> Network:
    """A fresh network for this data; `init` names the draw of its initial weights."""
    with drawing_from("init", name, init):
        return models.build(name, in_channels=data.channels, size=data.size, n_classes=data.n_classes)


def fingerprint(pair: Pair, data: dict[str, Any], protocol: Protocol, seed: int) -> str:
    """What a teacher is made from, hashed."""
    parts = {"numbers": NUMBERS, "data": data, "teacher": pair.teacher}
    if pair.teacher_file:
        return digest({**parts, "file": _checksum(Path(pair.teacher_file).expanduser())})
    return digest({**parts, "protocol": protocol.model_dump(), "seed": seed})


def _checksum(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"teacher file {path}: {(error.strerror or 'not readable').lower()}") from None


def obtain(
    pair: Pair,
    data: Data,
    described: dict[str, Any],
    protocol: Protocol,
    seed: int,
    results: Path,
    environment: dict[str, Any],
    progress: Any,
) -> Teacher:
    """The pair's teacher on the data's device: from its file, from the cache, or trained now.

    Raises `claims.Held` while another process trains it.
    """
    mark = fingerprint(pair, described, protocol, seed)
    network = build(pair.teacher, data, init=("teacher", seed)).to(data.train.x.device)
    if pair.teacher_file:
        models.load_state(network, Path(pair.teacher_file).expanduser())
    else:
        folder = results / "teachers" / mark
        record = Record(folder)
        if not keep.finished(record):
            spec = {
                "suite": "teachers",
                "dataset": data.name,
                "method": "teacher",
                "label": "teacher",
                "teacher": pair.teacher,
                "seed": seed,
            }
            what = f"teacher {pair.teacher}"
            with claims.claim(claims.file_of(folder.parent, mark), what, [folder]) as check:
                if not keep.done(record):
                    record.begin(mark, spec | {"protocol": protocol.model_dump(), "data": described}, environment)
                    _train(network, data, protocol, seed, record, progress, check)
        models.load_state(network, folder / "teacher.safetensors")
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    network.eval()
    logits = logits_of(lambda x: network(x).logits, data.validation, data, protocol.eval_batch_size)
    return Teacher(network, mark, models.state_hash(network), metrics(logits, data.validation.y)["top1"])


def _train(
    network: Network, data: Data, protocol: Protocol, seed: int, record: Record, progress: Any, check: keep.Check
) -> None:
    """Train by cross entropy to the last epoch: no epoch is chosen, and the test split is not looked at."""
    dims = network.dims()
    method = Vanilla(Dims(dims, dims, data.n_classes, protocol.batch_size, data.train.y))
    member = Member("teacher", network, method, protocol, data.train.x.device, "teacher", network.arch, seed)
    keeper = Keeper(member, record, None)
    keeper.resume()
    cohort = Cohort(data, protocol, None, [member], seed)
    with keep.training([keeper], check) as kept:
        progress.train(f"teacher {network.arch}", cohort, kept)
        check()
        if member.status != "running":
            record.end(member.status, member.reason, {}, [])
            raise UserError(
                f"the teacher {network.arch} {member.status}: {member.reason}; lower teacher.protocol.lr in the suite"
            )
        (record.folder / "teacher.safetensors").write_bytes(keep.weights(network.state_dict()))
        checkpoint.remove(keeper.path)
        record.hold_epochs(member.history)
        record.end("finished", "", cohort.evaluate(member, "validation"), ["teacher.safetensors"])
