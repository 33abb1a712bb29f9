"""What a distillation method is: its metadata, what it may see, and the base class.

A method is one file in this folder holding one `Method` subclass; the file's name is the method's name. See
CONTRIBUTING.md. This module needs torch alone, and knows nothing of the harness that calls it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from methods.knobs import Choice, Float, Int, Knob, Refusal, Text, Value, unknown
from methods.view import Dims, NetDims, NetworkView, Out, Progress, Shape

__all__ = [
    "Choice",
    "Dims",
    "Float",
    "Int",
    "Knob",
    "Method",
    "Needs",
    "NetDims",
    "NetworkView",
    "Out",
    "Paper",
    "Progress",
    "Recipe",
    "Refusal",
    "Shape",
    "Text",
    "Value",
    "unknown",
]

TAPS = ("logits", "feats", "preacts", "pooled", "tail")


@dataclass(frozen=True)
class Paper:
    title: str
    authors: str
    venue: str
    year: int
    url: str
    code: str = ""  # official or reference code @ commit
    licence: str = ""  # of that code


@dataclass(frozen=True)
class Needs:
    """What a method must see. The harness provides nothing else, and a member pays for its own needs alone."""

    taps: tuple[str, ...] = ("logits",)
    views: tuple[str, ...] = ("weak",)
    teacher: bool = True  # False: the method never looks at the teacher
    index: bool = False
    student: bool = True  # False: the method never looks at the student (a phase before training that only readies it)
    full_batches: bool = False  # a partial last batch is left out, for this member alone
    tails: tuple[str, ...] = ("student", "teacher")  # whose tail it runs, where `taps` holds it

    def __post_init__(self) -> None:
        if wrong := [tap for tap in self.taps if tap not in TAPS]:
            raise unknown("tap", wrong[0], TAPS)

    def lacking(self, dims: Dims) -> str:
        """What one of the networks does not show; empty where all is there."""
        looked_at = [("student", dims.student)] * self.student + [("teacher", dims.teacher)] * self.teacher
        for whose, net in looked_at:
            if {"feats", "preacts"} & {*self.taps} and net.n_stages < 1:
                return f"maps of stages, and the {whose} shows none"
            if "pooled" in self.taps and not net.pooled:
                return f"the vector before the logits, and the {whose} shows none"
            if "tail" in self.taps and whose in self.tails and not net.tails:
                return f"the {whose}'s answer to a map, and the {whose} cannot go on from one"
        return ""


@dataclass(frozen=True)
class Recipe:
    """A published setting, copied faithfully and never edited to suit us.

    `pairs` holds what the source changes for single pairs ("resnet56->resnet20"); `reported` the accuracy that it
    gives, top-1 in %, by "dataset/teacher->student"; `selection` how its authors chose the epoch of that number.
    """

    values: Mapping[str, Value]
    source: str
    selection: Literal["last-epoch", "best-epoch-on-test", "unknown"]
    pairs: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    reported: Mapping[str, float] = field(default_factory=dict)

    def for_pair(self, pair: str) -> dict[str, Value]:
        return {**self.values, **self.pairs.get(pair, {})}


class Method(nn.Module):
    """One way to distil. A Module so that adapters are its parameters and memories its buffers.

    A subclass declares the class attributes and takes `(dims, *, <one keyword per key of space>)`. It draws initial
    weights from torch's current generator alone (the harness has seeded it), and training noise from `at.generator`.
    """

    paper: ClassVar[Paper]
    needs: ClassVar[Needs] = Needs()
    space: ClassVar[Mapping[str, Knob]] = {}
    recipes: ClassVar[Mapping[str, Recipe]]  # "paper" is the default
    deviations: ClassVar[tuple[str, ...]] = ()  # one sentence each: where paper, reference code and ours differ
    version: ClassVar[int | str] = 1  # raise it when the method's numbers change: finished runs are then run anew

    ramp_end: ClassVar[str] = ""  # hyper-parameter: the share of all epochs after which every term is wholly at work

    eager_because: ClassVar[str] = ""  # why a recorded step cannot be replayed; empty: it can

    entry_point_name: ClassVar[str] = ""  # the entry point's name, where the method comes from another package

    pretrain_share: float = (
        0.0  # epochs that come before the first and train on `pretrain_loss`, as a share of all epochs
    )
    pretrain_lr: float = 1.0  # their constant learning rate, over the protocol's
    pretrain_needs: Needs | None = None  # what `pretrain_loss` must see; None: what `loss` does

    def __init__(self, dims: Dims) -> None:
        super().__init__()
        self.facts: dict[str, str] = {}  # what was decided from the dims, for the record

    def phase(self, epoch: int, epochs: int) -> str:
        """The name of the shape that the step has in an epoch, from 1. Steps of one phase run the same operations, and
        may be replayed from one recording; a loss asks it where it changes shape."""
        return ""

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        """Every term that is trained on, already weighted, each a scalar in nats per example; y: [B] int64."""
        raise NotImplementedError

    def pretrain_loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        """As `loss`, in the epochs before the first; `at` counts them from 1. What gets no gradient stays as it is."""
        raise NotImplementedError

    def optimizer(self, default: torch.optim.Optimizer) -> torch.optim.Optimizer:
        """The optimiser of student and method: the protocol's, unless the method is one. May raise `Refusal`."""
        return default

    def backward(self, terms: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
        """Gradients of all terms, before the optimiser's step; they are None when it begins."""
        torch.stack(list(terms.values())).sum().backward()

    def predict(self, s: NetworkView, t: NetworkView) -> Tensor:
        """[B, C] logits of the deployed student. `t` offers the teacher's tail alone."""
        return s.logits

    @classmethod
    def check(cls, dims: Dims) -> None:
        """Raise `Refusal` where this pair or data set cannot be distilled by this method."""

    @classmethod
    def check_pair(cls, dims: Dims) -> None:
        """Raise `Refusal` where the networks do not show what the method needs, or `check` refuses them."""
        for needs in filter(None, (cls.needs, cls.pretrain_needs)):
            if lacking := needs.lacking(dims):
                raise Refusal(f"{cls.name()} needs {lacking}")
        cls.check(dims)

    @classmethod
    def resolve(
        cls, pair: str, recipe: str = "paper", overrides: Mapping[str, object] | None = None
    ) -> dict[str, Value]:
        """Hyper-parameters of a run: the recipe, its changes for this pair, then the overrides, all checked."""
        if recipe not in cls.recipes:
            raise unknown(f"recipe of {cls.name()}", recipe, cls.recipes)
        values: dict[str, object] = {**cls.recipes[recipe].for_pair(pair), **(overrides or {})}
        for key, value in values.items():
            if key not in cls.space:
                raise unknown(f"hyper-parameter of {cls.name()}", key, cls.space)
            try:
                values[key] = cls.space[key].check(value)
            except ValueError as error:
                raise Refusal(f"{cls.name()}.{key} is {value!r}; it takes {error}") from None
        return values  # type: ignore[return-value]

    @classmethod
    def fully_active_from(cls, hp: Mapping[str, Value]) -> float:
        """Share of all epochs after which every term is wholly at work: before it, no tuner judges a trial."""
        return float(hp[cls.ramp_end]) if cls.ramp_end else 0.0

    @classmethod
    def name(cls) -> str:
        """The name of the file that holds the class, or of its entry point."""
        return cls.__dict__.get("entry_point_name") or cls.__module__.rpartition(".")[2]
