"""The steps of a network's forward, as torch.fx sees them."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate

from bench.models.base import evaluating
from bench.models.chain import STAGE, NoChain
from bench.models.graph import INPUT, Held, Step, Value, called


def openings(net: nn.Module, stages: Sequence[str]) -> list[set[str]]:
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


def steps_of(net: nn.Module, opened: set[str], mode: bool, images: tuple[Tensor, Tensor]) -> tuple[Step, ...]:
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
