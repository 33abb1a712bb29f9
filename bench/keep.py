"""A run on disk while it trains: checkpoint and record move together, the tracking store follows."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors.torch import save_file
from torch import Tensor

from bench import checkpoint
from bench.errors import notice
from bench.evaluate import Predictions
from bench.member import FORMAT, Member
from tracking.record import Record

CHECKPOINT_EVERY_S = 5.0
"""An epoch that ends sooner after the last checkpoint writes none: a kill costs at most this much, plus one epoch."""


class Follower(Protocol):
    """What mirrors records elsewhere; never raises, never blocks."""

    def offer(self, record: Record) -> None: ...

    def finish(self, record: Record) -> None: ...


@dataclass(frozen=True)
class Left:
    """What a finished run leaves beside its numbers."""

    student: dict[str, Tensor]  # the state of the student as deployed
    about: dict[str, Any]  # what network that is, and how to build it
    predictions: Predictions  # of the test images


class Keeper:
    """Checkpoint, record and mirror of one member. Rows reach the record only with the checkpoint that holds them."""

    def __init__(self, member: Member, record: Record, follower: Follower | None) -> None:
        self.member, self.record, self.follower = member, record, follower
        self.path = record.folder / "checkpoint.pt"
        self._saved = time.monotonic()

    def resume(self) -> None:
        """Go on where the last whole checkpoint stands; without one, or with one of an older format, start anew."""
        if (state := checkpoint.load(self.path)) and state.get("format") == FORMAT:
            self.member.load_state_dict(state)

    def after_epoch(self) -> None:
        if time.monotonic() - self._saved < CHECKPOINT_EVERY_S or self.member.status != "running":
            return
        checkpoint.save(self.path, self.member.state_dict())
        self.record.hold_epochs(self.member.history)
        self._saved = time.monotonic()
        if self.follower:
            self.follower.offer(self.record)

    def end(self, status: str, reason: str, metrics: dict[str, float], left: Left | None = None) -> None:
        """Write what the run leaves, then its last line: a record that says finished is complete."""
        files = []
        if left is not None:
            state = {name: value.contiguous().cpu() for name, value in left.student.items()}
            save_file(state, self.record.folder / "student.safetensors", {"network": json.dumps(left.about)})
            np.savez_compressed(self.record.folder / "predictions.npz", **left.predictions.arrays())  # type: ignore[arg-type]
            files = ["student.safetensors", "predictions.npz"]
        if status != "interrupted":  # an interrupted run's rows may be ahead of its checkpoint: they come again
            self.record.hold_epochs(self.member.history)
            checkpoint.remove(self.path)
        self.record.end(status, reason, metrics, files)
        if self.follower:
            self.follower.finish(self.record)


def done(record: Record, statuses: Sequence[str] = ("finished",)) -> bool:
    """Has the run ended for good, with all that it left as it was? Damage is named, and leaves the run to be done."""
    if told := record.mend():
        notice(told)
    if record.status not in statuses:
        return False
    if damaged := record.damaged():
        notice(f"{damaged[0]}: damaged or missing; this run is done anew")
    return not damaged


def clear(folder: Path) -> None:
    """Forget a run for good (--rerun)."""
    for file in folder.glob("*"):
        file.unlink()


@contextmanager
def interruptible(keepers: Iterable[Keeper]) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the runs as `interrupted`, to be resumed from their last checkpoint."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        for keeper in keepers:
            keeper.end("interrupted", "stopped by the user or the system; the same command resumes it", {})
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
