"""A classifier as the graph of its own forward, cut where a single tensor goes on: stem, stages and head.

For networks that are no plain chain of modules: transformers, mixers, and what writes its pooling out by hand. The
graph is data (names of modules, functions and tensors), so that a copy of the network stands alone.
"""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate

from bench.models.adapted import Adapted
from bench.models.base import Tap, evaluating
from bench.models.chain import NAMED, SPREAD, STAGE, NoChain
from methods.base import Out

SAME_SIZE_STAGES = 4  # of a network whose maps have one size throughout: its blocks in so many equal groups
MOST_PREFIX_TOKENS = 8  # class token, distillation token, registers


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


# --------------------------------------------------------------------------------------------- from a module to steps


def graphs(net: nn.Module, in_channels: int, size: int, stages: Sequence[str]) -> Iterator[tuple[Steps, Cuts]]:
    """The network's steps and where they are cut, by each way of looking into its modules.

    stages: modules that end the stages; without, they are found. Raises what tracing or running the steps does.
    """
    images = torch.zeros(2, in_channels, size, size), torch.zeros(3, in_channels, size, size)
    for opened in _openings(net, stages):
        steps = {mode: _steps(net, opened, mode, images) for mode in (True, False)}
        if [step.name for step in steps[True]] != [step.name for step in steps[False]]:
            raise NoChain("its forward takes other ways in training")
        yield steps, _cuts(net, steps[False], in_channels, size, stages)


def _openings(net: nn.Module, stages: Sequence[str]) -> list[set[str]]:
    """Modules whose forward is looked into: what holds a named stage, containers, what most of the weights lie in, and
    what holds the last layer; without the latter where that fails."""
    weights = {name: sum(p.numel() for p in m.parameters()) for name, m in net.named_modules()}
    last = [name for name, m in net.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1:]
    above = {name for name in weights if any(stage.startswith(f"{name}.") for stage in stages)}
    plain = {name for name, m in net.named_modules() if isinstance(m, nn.Sequential)}
    parents = {name for name, m in net.named_modules() if any(True for _ in m.children())}
    large = {name for name in parents if weights[name] > weights[""] / 2 and not STAGE.fullmatch(name)}
    ends = {name for name in weights if any(end.startswith(f"{name}.") for end in last)}
    return [({""} | above | plain | large | more) - {*stages} for more in (ends, set[str]())]


class _Tracer(fx.Tracer):
    """Traces a forward while it runs on two batches of zeros: a number that both give, such as a map's height, is that
    number and no step; only what depends on the batch is one."""

    def __init__(self, net: nn.Module, opened: set[str], images: tuple[Tensor, Tensor]) -> None:
        super().__init__(param_shapes_constant=True)
        self.net, self.opened, self.images = net, opened, images
        self.values: dict[fx.Node, tuple[Any, Any]] = {}
        self.running = False  # for its values, which is not traced

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        return forward(*args, **kwargs) if self.running else super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        return attr_val if self.running else super().getattr(attr, attr_val, parameter_proxy_cache)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name not in self.opened

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *more: Any, **how: Any) -> Any:
        proxy = super().create_proxy(kind, target, args, kwargs, *more, **how)
        node = proxy.node
        if kind == "placeholder":
            default = node.args[0] if node.args else None
            self.values[node] = (default, default) if len(self.values) else self.images
        elif kind != "output":
            first, second = self.values[node] = (self._value(node, 0), self._value(node, 1))
            if isinstance(first, int) and first == second:
                self.graph.erase_node(node)
                return first
        return proxy

    def _value(self, node: fx.Node, which: int) -> Any:
        args, kwargs = map_aggregate(
            (node.args, dict(node.kwargs)), lambda a: self.values[a][which] if isinstance(a, fx.Node) else a
        )
        self.running = True
        try:
            if node.op == "get_attr":
                return operator.attrgetter(str(node.target))(self.net)
            return called(self.net, node.op, node.target, args, kwargs)
        finally:
            self.running = False


def _steps(net: nn.Module, opened: set[str], mode: bool, images: tuple[Tensor, Tensor]) -> tuple[Step, ...]:
    """The steps of a forward in one mode, up to its output: a single tensor. Leaves the network as it was."""
    buffers = {name: t.clone() for name, t in net.named_buffers()}
    with torch.no_grad(), evaluating(net), torch.random.fork_rng(devices=[]):
        net.train(mode)
        try:
            nodes = list(_Tracer(net, opened, images).trace(net).nodes)
        finally:
            for name, t in net.named_buffers():
                t.copy_(buffers[name])
            for name in [name for name in vars(net) if name.startswith("_tensor_constant")]:
                delattr(net, name)  # what fx leaves there of a tensor that is no parameter: it would stay on its device
    if any(node.op == "get_attr" and str(node.target).startswith("_tensor_constant") for node in nodes):
        raise NoChain("a tensor of its own enters its forward, which is no parameter or buffer")
    inputs = [node for node in nodes if node.op == "placeholder"]
    stands: dict[fx.Node, Any] = {node: Held(str(node.target)) for node in nodes if node.op == "get_attr"}
    stands |= {node: node.args[0] if node.args else None for node in inputs[1:]} | {inputs[0]: Value(INPUT)}

    def plain(argument: Any) -> Any:
        return map_aggregate(argument, lambda a: stands.get(a, Value(a.name)) if isinstance(a, fx.Node) else a)

    if not isinstance(nodes[-1].args[0], fx.Node):
        raise NoChain("it gives more than logits")
    called = [node for node in nodes if node.op.startswith("call_")]
    return tuple(Step(n.name, n.op, n.target, plain(n.args), dict(plain(n.kwargs))) for n in called if _matters(n))


def _matters(node: fx.Node) -> bool:
    """Has a call a use? Shapes of which only constant numbers were read have none."""
    return node.op == "call_module" or bool(node.users)


def _cuts(net: nn.Module, steps: tuple[Step, ...], in_channels: int, size: int, stages: Sequence[str]) -> Cuts:
    with torch.no_grad(), evaluating(net):
        values = _probe(net, steps, in_channels, size)
    alone = _alone(steps)
    grids = {k: grid for k in alone if (grid := grid_of(net, values[k]))}
    vectors = [k for k in alone if _is_vector(values[k]) and _has_weights(net, steps[k:])]
    pooled = vectors[-1] if vectors else 0
    first_vector = next((k for k in alone if _is_vector(values[k])), len(steps))
    maps = {k: grid for k, grid in grids.items() if k < first_vector and _has_weights(net, steps[k:])}
    ends = _named_ends(steps, maps, stages) if stages else _found_ends(net, steps, maps)
    if len(ends) < 2:
        raise NoChain("no stages can be told apart")
    return Cuts(tuple(ends), tuple(maps[k][1] for k in ends), pooled)


def _probe(net: nn.Module, steps: tuple[Step, ...], in_channels: int, size: int) -> list[Any]:
    """What comes before each step, and at the end: of images of the spread size where the network takes them."""
    for side in (SPREAD, size):
        try:
            return run(net, steps, {INPUT: torch.zeros(2, in_channels, side, side)})
        except (RuntimeError, AssertionError, ValueError):
            if side == size:
                raise
    raise AssertionError


def _alone(steps: tuple[Step, ...]) -> list[int]:
    """Where nothing goes on but what the last step gave: k stands for the cut after k steps."""
    last = {name: k for k, step in enumerate(steps) for name in step.uses()}
    alone, live = [], {INPUT}
    for k, step in enumerate(steps, start=1):
        live = {name for name in {*live, step.name} if last.get(name, -1) >= k}
        if live == {step.name}:
            alone.append(k)
    return alone


def grid_of(net: nn.Module, f: object) -> tuple[int, Layout] | None:
    """The side of a map's grid, and how the map lies; None where the value is no map of a square."""
    if not isinstance(f, Tensor) or f.ndim not in (3, 4):
        return None
    if f.ndim == 4:
        _, a, b, c = f.shape
        if b == c:
            return b, Layout("map")
        return (a, Layout("last_axis")) if a == b else None
    n, told = f.shape[1], getattr(net, "num_prefix_tokens", None)
    side = math.isqrt(n - told) if isinstance(told, int) and told < n else 0
    if side and side * side == n - told:  # type: ignore[operator]  # an int, by the line above
        return side, Layout("tokens", told)  # type: ignore[arg-type]
    side = math.isqrt(n)
    return (side, Layout("tokens", n - side * side)) if n - side * side <= MOST_PREFIX_TOKENS else None


def _is_vector(f: object) -> bool:
    return isinstance(f, Tensor) and f.ndim in (2, 4) and f.shape[2:] in ((), (1, 1))


def _has_weights(net: nn.Module, steps: Sequence[Step]) -> bool:
    called = [step.target for step in steps if step.op == "call_module"]
    return any(True for name in called for _ in net.get_submodule(name).parameters())


Maps = Mapping[int, tuple[int, Layout]]
"""By cut, the grid's side and the layout."""


def _named_ends(steps: tuple[Step, ...], maps: Maps, stages: Sequence[str]) -> list[int]:
    """The cuts after the named modules; the stem is what comes before the first, or that one where nothing does."""
    calls = [step.target if step.op == "call_module" else "" for step in steps]
    ends = [calls.index(name) + 1 if calls.count(name) == 1 else -1 for name in stages]
    if wrong := [name for name, k in zip(stages, ends, strict=True) if k not in maps]:
        raise NoChain(f"'{wrong[0]}' gives no map, or not the only tensor that goes on")
    before = max((k for k in maps if k < ends[0]), default=0)
    return [before, *ends] if before else ends


def _found_ends(net: nn.Module, steps: tuple[Step, ...], maps: Maps) -> list[int]:
    """Stages by the library's own names where it has them, else by the maps' sizes, else blocks in equal groups."""
    named = {k: m[1] for k, s in enumerate(steps, start=1) if s.op == "call_module" and (m := STAGE.match(s.target))}
    if len({*named.values()}) > 1 and next(iter(named.values())) in NAMED:
        first = min(named)
        ends = [max(k for k in maps if k < first)] if any(k < first for k in maps) else []
        for stage in dict.fromkeys(named.values()):
            own = [k for k in named if named[k] == stage]
            after = min((k for k in named if k > own[-1]), default=own[-1] + 1)
            ends += [k for k in maps if own[0] <= k < after][-1:]
        return ends
    cuts = sorted(maps)
    ends = [a for a, b in pairwise(cuts) if maps[a][0] != maps[b][0]] + cuts[-1:]
    while len(ends) > 1 and not _has_weights(net, steps[ends[-2] : ends[-1]]):
        ends.pop()
    groups = _equal_groups(net, steps, cuts)
    return groups if len(ends) < 3 and len(groups) > len(ends) else ends


def _equal_groups(net: nn.Module, steps: tuple[Step, ...], cuts: list[int]) -> list[int]:
    """The network's blocks, modules of the kind that comes most often, in groups of as many; the stem lies before."""
    kinds = {k: type(net.get_submodule(steps[k - 1].target)) for k in cuts if steps[k - 1].op == "call_module"}
    kinds = {k: kind for k, kind in kinds.items() if _has_weights(net, steps[k - 1 : k])}
    if not kinds:
        return []
    most = Counter(kinds.values()).most_common(1)[0][0]
    blocks = [k for k in cuts if kinds.get(k) is most]
    n, before = min(SAME_SIZE_STAGES, len(blocks)), [k for k in cuts if k < blocks[0]]
    return before[-1:] + [blocks[math.ceil(len(blocks) * i / n) - 1] for i in range(1, n + 1)]
