"""A classifier as the graph of its own forward, cut where a single tensor goes on: stem, stages and head.

For networks that are no plain chain of modules: transformers, mixers, and what writes its pooling out by hand. The
graph is data (names of modules, functions and tensors), so that a copy of the network stands alone.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.node import map_aggregate

from bench.models.adapted import Adapted
from bench.models.base import Tap
from methods.base import Out


@dataclass(frozen=True)
class Value:
    """What an earlier step gave."""

    name: str


@dataclass(frozen=True)
class Held:
    """A parameter or buffer of the network."""

    path: str


@dataclass(frozen=True)
class Step:
    """One call in the network's forward: of one of its modules, of a function, or of a tensor's method."""

    name: str
    op: str
    target: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def uses(self) -> set[str]:
        found: list[str] = []
        map_aggregate((self.args, self.kwargs), lambda a: found.append(a.name) if isinstance(a, Value) else None)
        return {*found}


@dataclass(frozen=True)
class Layout:
    """How a network's own tensor becomes a map [B, D, H, W], and back.

    Tokens [B, P + H·W, C] become a map of C·(1 + P) channels: those of the patches, then each of the P prefix tokens
    (class token, registers) in every place. So the map holds all that goes on, and a tail needs nothing beside it.
    """

    kind: str  # map, last_axis ([B, H, W, D]) or tokens
    prefix: int = 0

    def to_map(self, f: Tensor) -> Tensor:
        if self.kind == "tokens":
            side = math.isqrt(f.shape[1] - self.prefix)
            patches = f[:, self.prefix :].transpose(1, 2).unflatten(2, (side, side))
            if not self.prefix:
                return patches
            return torch.cat([patches, f[:, : self.prefix].flatten(1)[:, :, None, None].expand(-1, -1, side, side)], 1)
        return f.permute(0, 3, 1, 2) if self.kind == "last_axis" else f

    def from_map(self, f: Tensor) -> Tensor:
        if self.kind == "tokens":
            width = f.shape[1] // (1 + self.prefix)
            patches = f[:, :width].flatten(2).transpose(1, 2)
            if not self.prefix:
                return patches
            return torch.cat([f[:, width:].mean((2, 3)).unflatten(1, (self.prefix, width)), patches], 1)
        return f.permute(0, 2, 3, 1) if self.kind == "last_axis" else f


@dataclass(frozen=True)
class Cuts:
    """Where the steps are cut: `ends[i]` is one past the last step of part i (the stem is 0)."""

    ends: tuple[int, ...]
    layouts: tuple[Layout, ...]
    pooled: int  # one past the step of the head that gives the pooled vector; 0: no step does


class Graphed(Adapted):
    """A network run by the steps of its own forward; `net` holds the parameters.

    The pooled vector is what enters the last layer with weights, or the mean of the last map where no vector does.
    """

    def __init__(
        self, arch: str, in_channels: int, size: int, n_classes: int, net: nn.Module, steps: Steps, cuts: Cuts
    ) -> None:
        super().__init__(arch, in_channels, size, n_classes, net, len(cuts.ends))
        self.steps, self.cuts = steps, cuts
        for k in cuts.ends:  # what follows a tap must not overwrite it
            if k < len(steps[False]) and (step := steps[False][k]).op == "call_module":
                for module in net.get_submodule(step.target).modules():
                    if getattr(module, "inplace", False) is True:
                        setattr(module, "inplace", False)  # noqa: B010

    def forward(self, x: Tensor) -> Out:
        feats, preacts = [], []
        for i, layout in enumerate(self.cuts.layouts):  # its own tensors all the way: maps are made beside it
            x = self._run(self.cuts.ends[i - 1] if i else 0, self.cuts.ends[i], x)
            feats.append(layout.to_map(x))
            preacts.append(self._preact(i))
        logits, pooled = self._head(x, feats[-1])
        return Out(logits, tuple(feats), tuple(preacts), pooled)

    def stem(self, x: Tensor) -> Tap:
        return self.cuts.layouts[0].to_map(self._run(0, self.cuts.ends[0], x)), self._preact(0)

    def stage(self, i: int, f: Tensor) -> Tap:
        own = self.cuts.layouts[i - 1].from_map(f)
        return self.cuts.layouts[i].to_map(self._run(self.cuts.ends[i - 1], self.cuts.ends[i], own)), self._preact(i)

    def head(self, f: Tensor) -> tuple[Tensor, Tensor]:
        return self._head(self.cuts.layouts[-1].from_map(f), f)

    def _head(self, own: Tensor, f: Tensor) -> tuple[Tensor, Tensor]:
        start, pooled, end = self.cuts.ends[-1], self.cuts.pooled, len(self.steps[True])
        if not pooled:
            return self._run(start, end, own), f.mean((2, 3))
        vector = self._run(start, pooled, own)
        return self._run(pooled, end, vector), vector.flatten(1)

    def _run(self, first: int, last: int, f: Tensor) -> Tensor:
        steps = self.steps[self.net.training]
        return run(self.net, steps[first:last], {steps[first - 1].name if first else INPUT: f})[-1]


Steps = Mapping[bool, tuple[Step, ...]]
"""By mode (training or not): what a forward does may depend on it."""
INPUT = "images"


def run(net: nn.Module, steps: Sequence[Step], known: dict[str, Any]) -> list[Any]:
    """What each step gives, from the values that are known."""
    given, out = dict(known), list(known.values())
    for step in steps:
        args, kwargs = _filled(step.args, given, net), _filled(step.kwargs, given, net)
        given[step.name] = called(net, step.op, step.target, args, kwargs)
        out.append(given[step.name])
    return out


def called(net: nn.Module, op: str, target: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What a step's call gives."""
    if op == "call_module":
        return net.get_submodule(target)(*args, **kwargs)
    return getattr(args[0], target)(*args[1:], **kwargs) if op == "call_method" else target(*args, **kwargs)


def _filled(value: Any, given: Mapping[str, Any], net: nn.Module) -> Any:
    """The arguments with their values in place."""
    if isinstance(value, Value):
        return given[value.name]
    if isinstance(value, Held):
        return operator.attrgetter(value.path)(net)
    if isinstance(value, tuple | list):
        return type(value)(_filled(v, given, net) for v in value)
    if isinstance(value, dict):
        return {key: _filled(v, given, net) for key, v in value.items()}
    if isinstance(value, slice):
        return slice(*(_filled(v, given, net) for v in (value.start, value.stop, value.step)))
    return value
