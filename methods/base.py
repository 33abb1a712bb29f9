"""What a distillation method is: its metadata, what it may see, and the base class.

A method is one file in this folder holding one `Method` subclass; the file's name is the method's name. See
CONTRIBUTING.md. This module needs torch alone, and knows nothing of the harness that calls it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

Shape = tuple[int, int, int]
"""Channels, height, width of a feature map."""

TAPS = ("logits", "feats", "preacts", "pooled", "tail")


class Refusal(ValueError):
    """A method cannot be used as asked. The message is one line: what was got, what is possible."""


def unknown(kind: str, name: object, known: Iterable[str]) -> Refusal:
    """The refusal of a misspelt name, with the nearest right one first."""
    options = sorted(known)
    close = difflib.get_close_matches(str(name), options, n=1, cutoff=0.4)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return Refusal(f"no {kind} '{name}'; {hint}there are {', '.join(options) or 'none'}")


# ---------------------------------------------------------------------------------------- what networks show


@dataclass(frozen=True)
class Out:
    """What one forward pass of a network shows.

    logits [B, C]; feats: stem, stage 1..n, each [B, D, H, W]; preacts: the same maps before their last ReLU, None
    where the network has none; pooled [B, D]: the vector entering the last linear layer.
    """

    logits: Tensor
    feats: tuple[Tensor, ...]
    preacts: tuple[Tensor | None, ...]
    pooled: Tensor


class Seen:
    """What a method may read of one network: the declared taps, of the declared views.

    `s.logits` is the tap of the first declared view, `s["strong"].logits` that of a named one. `s.tail(i, f)` runs
    stages i+1..n and the head on a feature map f. Reading what `needs` does not declare raises AttributeError.
    Tensors are float32 whatever the network computed in (float64 stays).
    """

    def __init__(
        self,
        outs: Mapping[str, Out],
        taps: Iterable[str],
        tail: Callable[..., Tensor] | None = None,
    ) -> None:
        self._taps = tuple(taps)
        self._outs = outs
        self._tail = tail
        first = next(iter(outs.values()), None)
        if first is not None:
            for tap in self._taps:
                if tap != "tail":
                    setattr(self, tap, _full(getattr(first, tap)))
        if "tail" in self._taps and tail is not None:
            self.tail = tail

    logits: Tensor
    feats: tuple[Tensor, ...]
    preacts: tuple[Tensor | None, ...]
    pooled: Tensor
    tail: Callable[..., Tensor]

    def __getattr__(self, name: str) -> Tensor:
        raise AttributeError(f"'{name}' was not declared; needs.taps holds {self._taps}")

    def __getitem__(self, view: str) -> Seen:
        if view not in self._outs:
            raise KeyError(f"view '{view}' was not declared; needs.views holds {tuple(self._outs)}")
        return Seen({view: self._outs[view]}, self._taps, self._tail)


def _full(value: Tensor | tuple[Tensor | None, ...] | None) -> object:
    """Half precision widened to float32; float32 and float64 as they are."""
    if isinstance(value, tuple):
        return tuple(_full(v) for v in value)
    return value.float() if value is not None and value.dtype in (torch.float16, torch.bfloat16) else value


@dataclass(frozen=True)
class NetDims:
    """Shapes of a network's taps, as found by probing it: no network is described by hand."""

    feats: tuple[Shape, ...]  # stem, stage 1..n
    preacts: tuple[Shape | None, ...]
    relu: tuple[bool, ...]  # is feats[i] the output of a ReLU (and so never negative)?
    pooled: int

    @property
    def n_stages(self) -> int:
        return len(self.feats) - 1


@dataclass(frozen=True)
class Dims:
    """All that a method may size its adapters and memories by."""

    student: NetDims
    teacher: NetDims
    n_classes: int
    batch_size: int
    train_y: Tensor  # [N] int64, label of every training example

    @property
    def n_train(self) -> int:
        return len(self.train_y)


@dataclass(frozen=True)
class Progress:
    """Where in training a step stands. `epoch` counts from 1, as the papers do."""

    epoch: int
    epochs: int
    generator: torch.Generator  # the member's own stream, on the device; draw from nothing else
    _index: Tensor | None = None

    @property
    def index(self) -> Tensor:
        """[B] int64: positions of the batch in the training split. Only where `needs.index` declares it."""
        if self._index is None:
            raise AttributeError("the sample index was not declared; set Needs(index=True)")
        return self._index

    def ramp(self, share: float) -> float:
        """min(1, epoch / (share of all epochs)): the papers' linear warm-up of a loss, scaled to this schedule."""
        return min(1.0, self.epoch / (share * self.epochs)) if share > 0 else 1.0


# ------------------------------------------------------------------------------------------ what a method declares


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

    def __post_init__(self) -> None:
        if wrong := [tap for tap in self.taps if tap not in TAPS]:
            raise unknown("tap", wrong[0], TAPS)


@dataclass(frozen=True)
class Float:
    """A real hyper-parameter: range (inclusive), scale, and whether a study tunes it."""

    low: float
    high: float
    log: bool = False
    tune: bool = True

    def check(self, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            raise ValueError(f"a number from {self.low:g} to {self.high:g}")
        return float(value)


@dataclass(frozen=True)
class Int:
    """A whole-number hyper-parameter: range (inclusive), scale, and whether a study tunes it."""

    low: int
    high: int
    log: bool = False
    tune: bool = True

    def check(self, value: object) -> int:
        whole = isinstance(value, int | float) and not isinstance(value, bool) and value == int(value)
        if not whole or not self.low <= value <= self.high:  # type: ignore[operator]
            raise ValueError(f"a whole number from {self.low} to {self.high}")
        return int(value)  # type: ignore[call-overload]


@dataclass(frozen=True)
class Choice:
    """One of a few values."""

    options: tuple[str | bool | int | float, ...]
    tune: bool = True

    def check(self, value: object) -> str | bool | int | float:
        for option in self.options:
            if value == option and isinstance(value, bool) == isinstance(option, bool):
                return option
        raise ValueError(f"one of {', '.join(map(str, self.options))}")


Value = str | bool | int | float
Knob = Float | Int | Choice


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
    version: ClassVar[int] = 1  # raise it when the method's numbers change: finished runs are then run anew

    def __init__(self, dims: Dims) -> None:
        super().__init__()

    def loss(self, s: Seen, t: Seen, y: Tensor, at: Progress) -> dict[str, Tensor]:
        """Every term that is trained on, already weighted, each a scalar in nats per example; y: [B] int64."""
        raise NotImplementedError

    def predict(self, s: Seen, t: Seen) -> Tensor:
        """[B, C] logits of the deployed student. `t` offers the teacher's tail alone. SimKD needs more than this."""
        return s.logits

    @classmethod
    def check(cls, dims: Dims) -> None:
        """Raise `Refusal` where this pair or data set cannot be distilled by this method."""

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
    def name(cls) -> str:
        """The name of the file that holds the class."""
        return cls.__module__.rpartition(".")[2]
