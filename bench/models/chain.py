"""A classifier as a chain of its own modules: unrolled into steps, grouped into stem, stages and head, and checked."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.models.adapted import Adapted
from bench.models.base import Tap, evaluating

SPREAD = 224  # the size at which every stage of these models shows itself as a halving
STAGE = re.compile(r"^((?:layer|stage|s|trunk_output\.block|stages\.|layers\.)\d+)(?:\.|$)")
NAMED = ("layer1", "stage1", "stage2", "s1", "trunk_output.block1", "stages.0", "layers.0")
Module = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Step:
    """One module of the chain, or a little glue that the model's own forward writes out by hand."""

    name: str
    run: Module
    last_axis: bool = False  # does it give [B, H, W, D]?


@dataclass(frozen=True)
class Plan:
    parts: tuple[tuple[Step, ...], ...]  # stem, stage 1..n
    head: tuple[Step, ...]  # ends in the linear layer


class NoChain(Exception):
    """Why a model's steps cannot be chained."""


class Chained(Adapted):
    """A model run as a chain of steps; the model itself, `net`, holds the parameters."""

    def __init__(self, arch: str, in_channels: int, size: int, n_classes: int, net: nn.Module, plan: Plan) -> None:
        super().__init__(arch, in_channels, size, n_classes, net, len(plan.parts))
        self.parts = tuple(tuple(step.run for step in part) for part in plan.parts)
        self.pool = tuple(step.run for step in plan.head[:-1])
        self.linear = (plan.head[-1].run,)  # in a tuple, so that it is registered once, inside `net`
        self.last_axis = tuple(part[-1].last_axis for part in plan.parts)

    def stem(self, x: Tensor) -> Tap:
        return self._part(0, x), self._preact(0)

    def stage(self, i: int, f: Tensor) -> Tap:
        return self._part(i, self._own_layout(i - 1, f)), self._preact(i)

    def head(self, f: Tensor) -> tuple[Tensor, Tensor]:
        pooled = _chain(self.pool, self._own_layout(self.n_stages, f))
        return self.linear[0](pooled), pooled

    def _part(self, i: int, f: Tensor) -> Tensor:
        f = _chain(self.parts[i], f)
        return f.permute(0, 3, 1, 2) if self.last_axis[i] else f

    def _own_layout(self, i: int, f: Tensor) -> Tensor:
        return f.permute(0, 2, 3, 1) if self.last_axis[i] else f


def _chain(steps: tuple[Module, ...], f: Tensor) -> Tensor:
    for step in steps:
        f = step(f)
    return f


def plan(net: nn.Module, in_channels: int, rectified: bool) -> Plan:
    """The chain's groups, found by running the steps on one image of the spread size."""
    linears = [(n, m) for n, m in net.named_modules() if isinstance(m, nn.Linear)]
    if not linears:
        raise NoChain("it does not end in a linear layer")
    steps = _unroll(net, "", linears[-1][0])
    while steps and steps[-1].name != linears[-1][0]:
        if not isinstance(steps[-1].run, nn.Flatten | nn.Identity):
            raise NoChain("it does not end in a linear layer")
        steps.pop()
    with torch.no_grad(), evaluating(net):
        return _group(*_trace(steps, torch.zeros(1, in_channels, SPREAD, SPREAD), rectified))


def _unroll(module: nn.Module, name: str, linear: str) -> list[Step]:
    """The module's steps in order: containers of plain order, and what holds the last linear layer, opened up."""
    plain = isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward
    if isinstance(module, nn.Identity):
        return []
    if not (plain or name == "" or linear.startswith(name + ".")):
        return [Step(name, module)]
    return [s for n, child in module.named_children() for s in _unroll(child, f"{name}.{n}" if name else n, linear)]


def _trace(steps: list[Step], f: Tensor, rectified: bool) -> tuple[list[Step], list[tuple[int, ...]]]:
    """The steps with their glue, and the shape after each ([B, D, H, W], or [B, D])."""
    done: list[Step] = []
    shapes: list[tuple[int, ...]] = []
    for k, step in enumerate(steps):
        if f.ndim == 4 and (width := _flat_width(steps[k:])):
            for glue in _glue(f, width, rectified):
                f = glue.run(f)
                done.append(glue)
                shapes.append(tuple(f.shape))
        f = step.run(f)
        if not isinstance(f, Tensor) or f.ndim not in (2, 4):
            raise NoChain("its layers do not give feature maps")
        b, h, w, d = (*f.shape, 0, 0)[:4]
        last_axis = f.ndim == 4 and h == w != d
        done.append(replace(step, last_axis=last_axis))
        shapes.append((b, d, h, w) if last_axis else tuple(f.shape))
    return done, shapes


def _flat_width(steps: list[Step]) -> int:
    """The width of the linear layer that comes next, with nothing but dropout before it; otherwise 0."""
    for step in steps:
        if isinstance(step.run, nn.Linear):
            return step.run.in_features
        if not isinstance(step.run, nn.Dropout):
            return 0
    return 0


def _glue(f: Tensor, width: int, rectified: bool) -> list[Step]:
    first = [Step("", F.relu)] if rectified else []
    if f[0].numel() == width:
        return [*first, Step("", _flatten)]
    return [*first, Step("", _mean)]


def _flatten(f: Tensor) -> Tensor:
    return f.flatten(1)


def _mean(f: Tensor) -> Tensor:
    return f.mean((2, 3))


def _group(steps: list[Step], shapes: list[tuple[int, ...]]) -> Plan:
    """Stages by the library's own names where it has them, else one per halving of the map; the rest is the head."""
    body = next(k for k, shape in enumerate(shapes) if len(shape) == 2 or shape[2] == 1)
    names = [m[1] if (m := STAGE.match(s.name)) else "" for s in steps[:body]]
    first = next((k for k, n in enumerate(names) if n in NAMED), 0)
    if first > 0:
        last = max(k for k, n in enumerate(names) if n)
        ends = [k + 1 for k in range(first, last) if names[k + 1] and names[k + 1] != names[k]]
        ends = [first, *ends, last + 1]
    else:
        ends = [k for k in range(1, body) if shapes[k][2] != shapes[k - 1][2]] + [body]
        while len(ends) > 1 and not any(_has_weights(s) for s in steps[ends[-2] : ends[-1]]):
            ends.pop()
    parts = tuple(tuple(steps[a:b]) for a, b in zip([0, *ends], ends, strict=False))
    if len(parts) < 2 or not all(parts):
        raise NoChain("no stages can be told apart")
    for k in ends:  # what follows a tap must not overwrite it
        if k < len(steps) and getattr(steps[k].run, "inplace", False):
            setattr(steps[k].run, "inplace", False)  # noqa: B010
    return Plan(parts, tuple(steps[ends[-1] :]))


def _has_weights(step: Step) -> bool:
    return isinstance(step.run, nn.Module) and any(True for _ in step.run.parameters())
