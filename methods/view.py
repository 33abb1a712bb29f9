"""What a method is shown: the taps of both networks, their shapes, and where in training it stands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

Shape = tuple[int, int, int]
"""Channels, height, width of a feature map."""


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


class NetworkView:
    """What a method may read of one network: the declared taps, of the declared views.

    `s.logits` is the tap of the first declared view, `s["strong"].logits` that of a named one. `s.tail(i, f)` runs
    stages i+1..n and the head on a feature map f; a list `maps` takes the maps on the way. Reading what `needs` does
    not declare raises AttributeError.
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
                    setattr(self, tap, _widen_to_float32(getattr(first, tap)))
        if "tail" in self._taps and tail is not None:
            self.tail = tail

    logits: Tensor
    feats: tuple[Tensor, ...]
    preacts: tuple[Tensor | None, ...]
    pooled: Tensor
    tail: Callable[..., Tensor]

    def __getattr__(self, name: str) -> Tensor:
        raise AttributeError(f"'{name}' was not declared; needs.taps holds {self._taps}")

    def __getitem__(self, view: str) -> NetworkView:
        if view not in self._outs:
            raise KeyError(f"view '{view}' was not declared; needs.views holds {tuple(self._outs)}")
        return NetworkView({view: self._outs[view]}, self._taps, self._tail)

    def restrict_to(self, views: Iterable[str], taps: Iterable[str]) -> NetworkView:
        """The same, limited to some views and taps."""
        return NetworkView({view: self._outs[view] for view in views if view in self._outs}, taps, self._tail)


def _widen_to_float32(value: Tensor | tuple[Tensor | None, ...] | None) -> object:
    """Half precision widened to float32; float32 and float64 as they are."""
    if isinstance(value, tuple):
        return tuple(_widen_to_float32(v) for v in value)
    return value.float() if value is not None and value.dtype in (torch.float16, torch.bfloat16) else value


@dataclass(frozen=True)
class NetDims:
    """Shapes of a network's taps, as found by probing it: no network is described by hand."""

    feats: tuple[Shape, ...]  # stem, stage 1..n
    preacts: tuple[Shape | None, ...]
    relu: tuple[bool, ...]  # is feats[i] the output of a ReLU (and so never negative)?
    pooled: int  # 0: the network shows no such vector
    norms: tuple[tuple[Tensor, Tensor] | None, ...] = field(default=(), compare=False)
    """Weight and bias [D] of the BatchNorm whose output preacts[i] is (before a residual sum); None: there is none."""
    tails: bool = field(default=True, compare=False)  # can a map go on to the logits?
    head: bool = field(default=True, compare=False)  # are its logits of the data's classes?

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
    quality: Callable[[], tuple[float, ...]] | None = field(default=None, compare=False)
    """Knowledge quality Q of the teacher's feats (see methods/logit_free.py); None while no teacher is trained."""
    relations: Callable[[], Tensor] | None = field(default=None, compare=False)
    """Likeness of the classes in the teacher's last maps, [C, C] (see methods/wkd_l.py); None likewise."""

    @property
    def n_train(self) -> int:
        return len(self.train_y)


@dataclass(frozen=True)
class Progress:
    """Where in training a step stands. `epoch` counts from 1, as the papers do.

    A step may be recorded once and replayed: a Python number in it stays what it was when the step was recorded. So
    a loss computes with `share` and `ramp`; `epoch` and `epochs` serve `Method.phase`.
    """

    epoch: int
    epochs: int
    generator: torch.Generator  # the member's own stream, on the device; draw from nothing else
    _index: Tensor | None = None
    _share: Tensor | None = None

    @property
    def index(self) -> Tensor:
        """[B] int64: positions of the batch in the training split. Only where `needs.index` declares it."""
        if self._index is None:
            raise AttributeError("the sample index was not declared; set Needs(index=True)")
        return self._index

    @property
    def share(self) -> Tensor:
        """[] float on the device: epoch / epochs."""
        if self._share is None:
            return torch.full((), self.epoch / self.epochs, device=self.generator.device)
        return self._share

    def ramp(self, share: float) -> Tensor:
        """[] float on the device, min(1, epoch / (share of all epochs)): the papers' linear warm-up of a loss, scaled
        to this schedule."""
        return (self.share / share).clamp(max=1.0) if share > 0 else torch.ones_like(self.share)
