"""The protocol: all that the students of one comparison share. Validated, frozen, hashed."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

NUMBERS = 3
"""Raise when a change of the harness can move a result: every fingerprint changes with it (CHANGELOG: [numbers])."""
NUMBERS_BFLOAT16 = 4
"""The same where the change moves results in bfloat16 alone; never lower than `NUMBERS`."""


class Strict(BaseModel):
    """A frozen model that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Protocol(Strict):
    """How long, how fast and how exactly every student of a comparison trains."""

    epochs: int = Field(ge=1, le=1_000_000)
    batch_size: int = Field(64, ge=2, le=2**20)
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = Field(0.05, gt=0)
    lr_of: dict[
        str, Annotated[float, Field(gt=0)]
    ] = {}  # learning rate of single student networks, e.g. {MobileNetV2: 0.01}
    momentum: float = Field(0.9, ge=0, lt=1)
    nesterov: bool = False
    weight_decay: float = Field(5e-4, ge=0)
    schedule: Literal["step", "cosine", "onecycle", "constant"] = "step"
    milestones: tuple[int, ...] = ()  # epochs (counted from 1) after which the learning rate is multiplied by gamma
    gamma: float = Field(0.1, gt=0)
    warmup_epochs: int = Field(0, ge=0)  # linear rise of the learning rate, step by step
    precision: Literal["auto", "fastest", "float32", "tf32", "bfloat16"] = "auto"  # see bench.training.precision
    deterministic: bool = False  # kernels that give the same bits every time; a method that has none of them fails
    compile: bool = False
    threads: int | None = Field(
        None, ge=1, le=1024
    )  # of the CPU; bits depend on it. Tiny networks want 1; None: torch's choice
    eval_batch_size: int = Field(500, ge=1, le=2**20)
    test_every_epoch: bool = False  # records test/top1_best_epoch_on_test, which papers report; nothing reads it

    @model_validator(mode="after")
    def _steps_fit(self) -> Self:
        if self.schedule == "step" and any(not 0 < m <= self.epochs for m in self.milestones):
            raise ValueError(f"milestones {list(self.milestones)} must lie within the {self.epochs} epochs")
        if self.warmup_epochs >= self.epochs and self.warmup_epochs:
            raise ValueError(f"warmup_epochs {self.warmup_epochs} leaves nothing of the {self.epochs} epochs")
        return self

    @property
    def numbers(self) -> int:
        return NUMBERS_BFLOAT16 if self.precision == "bfloat16" else NUMBERS

    @model_serializer(mode="wrap")
    def _later_keys_where_set(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Keys that came later are written where they are set: earlier fingerprints and records stand."""
        out: dict[str, Any] = dump(self)
        return out if self.deterministic else {key: value for key, value in out.items() if key != "deterministic"}

    def lr_for(self, network: str) -> float:
        return self.lr_of.get(network, self.lr)

    def lr_factor(self, epoch: int, epoch_progress: float) -> float:
        """Learning rate over its peak, in epoch `epoch` (from 1), of which the share `done` in [0, 1) is over."""
        elapsed = epoch - 1 + epoch_progress  # epochs behind us
        if elapsed < self.warmup_epochs:
            return max(elapsed, 1e-3) / self.warmup_epochs
        if self.schedule == "step":
            return float(self.gamma ** sum(epoch > m for m in self.milestones))
        if self.schedule == "cosine":
            progress = (elapsed - self.warmup_epochs) / (self.epochs - self.warmup_epochs)
            return 0.5 * (1 + math.cos(math.pi * progress))
        if (
            self.schedule == "onecycle"
        ):  # torch's OneCycleLR with its defaults: 30 % up from 1/25, then down to 1e-5 of it
            return _onecycle(elapsed / self.epochs)
        return 1.0


def _onecycle(progress: float, up: float = 0.3, first: float = 1 / 25, last: float = 1 / 25e4) -> float:
    def anneal(a: float, b: float, share: float) -> float:
        return b + (a - b) / 2 * (1 + math.cos(math.pi * share))

    return anneal(first, 1.0, progress / up) if progress < up else anneal(1.0, last, (progress - up) / (1 - up))


def digest(parts: Mapping[str, Any]) -> str:
    """16 hex digits of the canonical JSON of `parts`."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
