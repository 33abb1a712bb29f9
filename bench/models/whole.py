"""A classifier that is not cut: its logits, the vector before them, and maps that are watched as they pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from bench.errors import UserError
from bench.models.adapted import Adapted, catch_input, catch_output, caught
from bench.models.base import Tap, evaluating
from bench.models.cuts import grid_of
from bench.models.graph import Layout
from methods.base import Out


class Whole(Adapted):
    """A network of which methods see the logits and, where a linear layer gives these, the pooled vector.

    stages: modules whose outputs are shown as the maps of stages; the stem is what enters the first of them, or that
    one where the images enter it. No map goes on from there, so there are no tails.
    """

    has_tails = False

    def __init__(
        self, arch: str, in_channels: int, size: int, n_classes: int, net: nn.Module, stages: Sequence[str] = ()
    ) -> None:
        super().__init__(arch, in_channels, size, n_classes, net, 0)
        self.linear, self.taps, self.layouts = "", tuple[tuple[str, str], ...](), tuple[Layout, ...]()
        entered, calls = self._watched_call(stages)
        if entered:
            self.linear = entered[-1]
            net.get_submodule(self.linear).register_forward_pre_hook(catch_input)
        if stages:
            self._show(stages, calls)

    def _watched_call(self, stages: Sequence[str]) -> tuple[list[str], Counter[str]]:
        """The linear layers that a vector enters, in order, and how often each stage is called."""
        entered, calls = list[str](), Counter[str]()

        def note(name: str) -> Callable[..., None]:
            return lambda module, args: entered.append(name) if args and args[0].ndim == 2 else None

        def count(name: str) -> Callable[..., None]:
            return lambda module, args: calls.update([name])

        linears = [(name, m) for name, m in self.net.named_modules() if isinstance(m, nn.Linear)]
        handles = [m.register_forward_pre_hook(note(name)) for name, m in linears]
        handles += [self.net.get_submodule(name).register_forward_pre_hook(count(name)) for name in stages]
        _answer(self)
        for handle in handles:
            handle.remove()
        return entered, calls

    def _show(self, stages: Sequence[str], calls: Counter[str]) -> None:
        """Have the maps of the stages caught in every forward pass from now on."""
        if wrong := [name for name in stages if calls[name] != 1]:
            raise UserError(
                f"'{self.arch}': its forward calls stage '{wrong[0]}' {calls[wrong[0]]} times; name modules that it"
                " calls once"
            )
        first = self.net.get_submodule(stages[0])
        before = first.register_forward_pre_hook(catch_input)
        for name in stages:
            self.net.get_submodule(name).register_forward_hook(catch_output)
        _answer(self)
        taps = [(stages[0], "input"), *((name, "output") for name in stages)]
        maps = [caught(self.net, *tap) for tap in taps]
        if self.linear and self.linear != stages[0]:
            caught(self.net, self.linear)
        found = [grid[1] if (grid := grid_of(self.net, f)) else None for f in maps]
        if wrong := [name for name, layout in zip(stages, found[1:], strict=True) if layout is None]:
            raise UserError(
                f"'{self.arch}': stage '{wrong[0]}' gives no map; name modules that give [B, D, H, W], or tokens"
                " [B, N, D] of a square"
            )
        if found[0] is None or maps[0].shape[1:] == (self.in_channels, self.size, self.size):
            before.remove()
            taps, found = taps[1:], found[1:]
        self.taps, self.layouts = tuple(taps), tuple(layout for layout in found if layout)
        self.relu, self.n_stages = (False,) * len(taps), len(taps) - 1
        self.activations = self.last_norms = ("",) * len(taps)

    def forward(self, x: Tensor) -> Out:
        logits = self.net(x)
        pooled = caught(self.net, self.linear) if self.linear else logits.new_zeros(len(x), 0)
        maps = [caught(self.net, *tap) for tap in self.taps]
        feats = tuple(layout.to_map(f) for layout, f in zip(self.layouts, maps, strict=True))
        return Out(logits, feats, (None,) * len(feats), pooled)

    def stem(self, x: Tensor) -> Tap:
        raise ValueError(f"{self.arch} is not cut into stages")

    def stage(self, i: int, f: Tensor) -> Tap:
        raise ValueError(f"{self.arch} is not cut into stages")

    def head(self, f: Tensor) -> tuple[Tensor, Tensor]:
        raise ValueError(f"{self.arch} is not cut into stages")


def _answer(network: Adapted) -> None:
    """One forward pass of the module itself on two images, in eval mode."""
    with torch.no_grad(), evaluating(network):
        network.net(torch.zeros(2, network.in_channels, network.size, network.size))
