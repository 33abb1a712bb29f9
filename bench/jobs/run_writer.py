"""A run on disk while it trains: checkpoint and record move together, the tracking store follows."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from bench.errors import notice
from bench.jobs import checkpoint
from bench.training.evaluate import Predictions
from bench.training.member import Member
from tracking.lines import Damage
from tracking.record import Record

CHECKPOINT_EVERY_S = 5.0
"""An epoch that ends sooner after the last checkpoint writes none: a kill costs at most this much, plus one epoch."""
CHECKPOINT_IN_EPOCH_EVERY_S = 60.0
"""The same within an epoch: of a long one, a kill costs no more."""


ClaimCheck = Callable[[], None]
"""Raises `claims.ClaimHeld` where the work is another process's by now."""


class RecordMirror(Protocol):
    """What mirrors records elsewhere; never raises, never blocks."""

    def offer(self, record: Record) -> None: ...

    def finish(self, record: Record) -> None: ...


@dataclass(frozen=True)
class RunArtifacts:
    """What a finished run leaves beside its numbers."""

    student: dict[str, Tensor]  # the state of the student as deployed
    network_spec: dict[str, Any]  # what network that is, and how to build it
    predictions: Predictions  # of the test images


class RunWriter:
    """Checkpoint, record and mirror of one member. Rows reach the record only with the checkpoint that holds them."""

    def __init__(self, member: Member, record: Record, mirror: RecordMirror | None) -> None:
        self.member, self.record, self.mirror = member, record, mirror
        self.path = record.folder / "checkpoint.pt"
        self._saved = time.monotonic()

    def resume(self, make_member: Callable[[], Member]) -> None:
        """Go on where the last whole checkpoint stands; where that is not possible, say so and start anew.

        make_member: makes the member once more, in place of the one that a failed attempt left half loaded.
        """
        if (state := checkpoint.load(self.path)) is None:
            return
        try:
            self.member.load_state_dict(state)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            notice(f"{self.path}: {' '.join(str(error).split())[:200]}; this run starts anew")
            self.member = make_member()

    def is_due(self, *, in_epoch: bool = False) -> bool:
        """Is it time for a checkpoint? in_epoch: between two steps of an epoch, not at its end."""
        every_s = CHECKPOINT_IN_EPOCH_EVERY_S if in_epoch else CHECKPOINT_EVERY_S
        return time.monotonic() - self._saved >= every_s and self.member.status == "running"

    def save(self) -> None:
        """Keep the member as it is; call it between two steps."""
        checkpoint.save(self.path, self.member.state_dict())
        self.record.write_epochs(self.member.history)
        self._saved = time.monotonic()
        if self.mirror:
            self.mirror.offer(self.record)

    def end(self, status: str, reason: str, metrics: dict[str, float], artifacts: RunArtifacts | None = None) -> None:
        """Write what the run leaves, then its last line: a record that says finished is complete."""
        files = []
        if artifacts is not None:
            predictions = io.BytesIO()
            np.savez_compressed(predictions, **artifacts.predictions.arrays())  # type: ignore[arg-type]
            contents = {
                "student.safetensors": to_safetensors(
                    artifacts.student, {"network": json.dumps(artifacts.network_spec)}
                ),
                "predictions.npz": predictions.getvalue(),
            }
            for name, content in contents.items():
                (self.record.folder / name).write_bytes(content)
            files = [*contents]
        if status != "interrupted":  # an interrupted run's rows may be ahead of its checkpoint: they come again
            self.record.write_epochs(self.member.history)
            checkpoint.remove(self.path)
        self.record.end(status, reason, metrics, files)
        if self.mirror:
            self.mirror.finish(self.record)


def to_safetensors(state: dict[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """A state as the content of a safetensors file."""
    return save({name: value.contiguous().cpu() for name, value in state.items()}, metadata)


def is_finished(record: Record) -> bool:
    """Is there nothing left to be done? Only looks, since the run may be another process's."""
    try:
        return record.status == "finished" and record.is_intact()
    except Damage:
        return False


def is_finished_after_repair(record: Record, statuses: Collection[str] = ("finished",)) -> bool:
    """The same of one's own run: damage is named, and leaves the run to be done."""
    if message := record.repair():
        notice(message)
    if record.status not in statuses:
        return False
    if damaged := record.damaged_files():
        notice(f"{damaged[0]}: damaged or missing; this run is done anew")
    return not damaged


def delete_run(folder: Path) -> None:
    """Forget a run for good (--rerun)."""
    for file in folder.glob("*"):
        file.unlink()
