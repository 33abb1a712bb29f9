"""What adapted networks share: a module of somebody else's that holds the parameters, and tensors caught within it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bench.models.base import Network, evaluating
from methods.base import Out


class Adapted(Network):
    """A network that runs another module, `net`; where a ReLU gave a map, it shows the map before it."""

    prefix = "net."

    def __init__(self, arch: str, in_channels: int, size: int, n_classes: int, net: nn.Module, parts: int) -> None:
        super().__init__(arch, in_channels, size, n_classes, relu=(False,) * parts)
        self.net = net
        self.activations: tuple[str, ...] = ("",) * parts  # of each map, the ReLU module that gave it
        self.last_norms: tuple[str, ...] = ("",) * parts  # the BatchNorm before that ReLU

    def norms(self) -> tuple[nn.BatchNorm2d | None, ...]:
        return tuple(self.net.get_submodule(name) if name else None for name in self.last_norms)  # type: ignore[misc]

    def _preact(self, i: int) -> Tensor | None:
        """What entered the ReLU of map i in the forward pass just made."""
        return caught(self.net, self.activations[i]) if self.activations[i] else None


def show_preacts(network: Adapted) -> None:
    """Find which maps come out of a ReLU, and have the maps before those ReLUs kept from now on.

    A ReLU that wrote over its input no longer does: the numbers are the same.
    """
    gave: list[tuple[Tensor, str]] = []
    modules = {name: m for name, m in network.net.named_modules() if isinstance(m, nn.ReLU | nn.ReLU6)}

    def note(name: str) -> Callable[..., None]:
        return lambda module, args, out: gave.append((out, name))

    handles = [m.register_forward_hook(note(name)) for name, m in modules.items()]
    out = _probe(network)
    for handle in handles:
        handle.remove()
    network.relu = tuple(is_rectified(f) for f in out.feats)
    network.activations = tuple(next((name for made, name in gave if made is f), "") for f in out.feats)
    for name in {*network.activations} - {""}:
        modules[name].inplace = False
        modules[name].register_forward_pre_hook(catch_input)
    norms = {id(m.weight): name for name, m in network.net.named_modules() if isinstance(m, nn.BatchNorm2d)}
    network.last_norms = tuple("" if p is None else norms.get(_last_weight(p), "") for p in _probe(network).preacts)


def _probe(network: Network) -> Out:
    with evaluating(network):
        return network(torch.zeros(2, network.in_channels, network.size, network.size, requires_grad=True))


def is_rectified(f: Tensor) -> bool:
    """Was the tensor made by a ReLU or ReLU6, seen through max-pools and dropout's identity?"""
    node = f.grad_fn
    while node is not None and node.name().startswith("MaxPool"):
        node = node.next_functions[0][0]
    if node is None:
        return False
    return node.name().startswith("Relu") or (
        node.name().startswith("Hardtanh") and getattr(node, "_saved_min_val", None) == 0
    )


def _last_weight(f: Tensor) -> int:
    """The identity of the weight of the BatchNorm that gave the tensor, or the first term of a sum; 0: none did."""
    node: Any = f.grad_fn
    if node is not None and node.name().startswith("Add"):
        node = node.next_functions[0][0]
    if node is None or "BatchNorm" not in node.name():
        return 0
    return id(getattr(node.next_functions[1][0], "variable", None))


# ------------------------------------------------------------------------------- tensors caught inside a forward pass


def catch_input(module: nn.Module, args: tuple[Any, ...]) -> None:
    """A hook before a module's forward: keeps what enters it, on the module, so that a copy of it keeps its own."""
    module.caught_input = args[0]


def catch_output(module: nn.Module, args: object, out: Any) -> None:
    """A hook after it: keeps what it gives, of several things the first."""
    module.caught_output = out[0] if isinstance(out, tuple) else out


def caught(net: nn.Module, name: str, side: str = "input") -> Tensor:
    """The tensor that the module of that name has caught, its input or output; it is kept no longer."""
    module = net.get_submodule(name)
    tensor: Tensor = getattr(module, f"caught_{side}")
    delattr(module, f"caught_{side}")
    return tensor
