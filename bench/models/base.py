"""What every network offers: its taps (stem, stages, pooled vector, logits) and its tails."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bench.errors import UserError
from bench.memory import physical_memory_bytes
from methods.base import NetDims, Out, Shape

IMAGENET = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
"""Names that people know from ImageNet, where they are other networks than CIFAR's of 6n + 2 layers."""


def affordable(name: str, parameters: float) -> None:
    """Refuse, before it is built, a network whose training cannot fit this machine's memory."""
    room = physical_memory_bytes()
    if (need := 16 * parameters) > room:  # bytes: weights, gradients, momentum, the best epoch's weights
        raise UserError(
            f"network '{name}' has {parameters:.1e} parameters: its training takes {need / 2**30:,.0f} GiB, and this"
            f" machine has {room / 2**30:,.0f}; take a narrower one"
        )


Tap = tuple[Tensor, Tensor | None]
"""A feature map and the same map before its last ReLU (None where there is none)."""


class Network(nn.Module):
    """A classifier of [B, in_channels, size, size] images: stem, stages 1..n_stages, head.

    A subclass gives `stem`, `stage`, `head`, and in `relu` whether each map (stem, stage 1..n) is a ReLU's output.
    """

    has_tails = True  # can a map go on to the logits?
    fast_in_channels_last = True  # see bench.models.fast
    has_head = True  # are its logits of the data's classes?
    prefix = ""  # what our state-dict names have in front of the public checkpoints' names

    def __init__(self, arch: str, in_channels: int, size: int, n_classes: int, relu: tuple[bool, ...]) -> None:
        super().__init__()
        self.arch, self.in_channels, self.size, self.n_classes = arch, in_channels, size, n_classes
        self.relu = relu
        self.n_stages = len(relu) - 1

    def stem(self, x: Tensor) -> Tap:
        raise NotImplementedError

    def stage(self, i: int, f: Tensor) -> Tap:
        """Stage i in 1..n on the map of stage i-1 (0: the stem)."""
        raise NotImplementedError

    def head(self, f: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, C] and the pooled vector [B, D] of the last stage's map."""
        raise NotImplementedError

    def norms(self) -> tuple[nn.BatchNorm2d | None, ...]:
        """The BatchNorm in front of the last ReLU of stem and stages, where the network knows it."""
        return (None,) * (self.n_stages + 1)

    def forward(self, x: Tensor) -> Out:
        taps = [self.stem(x)]
        for i in range(1, self.n_stages + 1):
            taps.append(self.stage(i, taps[-1][0]))
        feats, preacts = zip(*taps, strict=True)
        logits, pooled = self.head(feats[-1])
        return Out(logits, feats, preacts, pooled)

    def tail(self, i: int, f: Tensor, *, batch_stats: bool = False, maps: list[Tensor] | None = None) -> Tensor:
        """Logits [B, C] of a map f shaped like feats[i], through stages i+1..n and the head.

        With `batch_stats`, BatchNorms use the batch's own statistics and leave their running ones alone. `maps` takes
        what stages i+1..n give on the way.
        """
        if not 0 <= i <= self.n_stages:
            raise ValueError(f"tap {i} of {self.arch}; there are 0 to {self.n_stages}")
        if batch_stats:
            with batch_statistics(self):
                return self.tail(i, f, maps=maps)
        for j in range(i + 1, self.n_stages + 1):
            f, _ = self.stage(j, f)
            if maps is not None:
                maps.append(f)
        return self.head(f)[0]

    def dims(self) -> NetDims:
        """Shapes of the taps, from a batch of two zero images. Changes neither state nor mode."""
        out = self._probe()
        return NetDims(
            feats=tuple(_shape(f) for f in out.feats),
            preacts=tuple(None if p is None else _shape(p) for p in out.preacts),
            relu=self.relu,
            pooled=out.pooled.shape[1],
            tails=self.has_tails,
            head=self.has_head,
            norms=tuple(
                None if norm is None else (norm.weight.detach().clone(), norm.bias.detach().clone())
                for norm in self.norms()
            ),
        )

    @torch.no_grad()
    def _probe(self) -> Out:
        like = next(self.parameters())
        with evaluating(self):
            return self(torch.zeros(2, self.in_channels, self.size, self.size, dtype=like.dtype, device=like.device))


def _shape(f: Tensor) -> Shape:
    _, channels, height, width = f.shape
    return channels, height, width


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Eval mode inside the block; each module's own mode after it."""
    modes = [(m, m.training) for m in net.modules()]
    net.eval()
    try:
        yield
    finally:
        net.train(modes[0][1])  # a module may drop by it what it kept for eval mode (LeViT's biases)
        for m, mode in modes:
            m.training = mode


@contextmanager
def batch_statistics(net: nn.Module) -> Iterator[None]:
    """Every BatchNorm uses its batch's statistics inside the block; no running buffer moves."""
    norms = [(m, m.training, m.track_running_stats) for m in net.modules() if isinstance(m, _BatchNorm)]
    for m, *_ in norms:
        m.training, m.track_running_stats = True, False
    try:
        yield
    finally:
        for m, training, track in norms:
            m.training, m.track_running_stats = training, track


def nearest_depths(name: str, depth: int, step: int, rest: int, least: int) -> UserError:
    """The refusal of a depth that is not step·n + rest."""
    low = max(least, depth - (depth - rest) % step)
    near = f"{low} and {low + step}"
    library = f"; ImageNet's is torchvision/{name}" if name in IMAGENET else ""
    depths = f"its depth must be {step}n+{rest}, at least {least}; the nearest are {near}"
    return UserError(f"no network '{name}': {depths}{library}")


def fan_out_normal(net: nn.Module, linear_std: float | None) -> None:
    """Convolutions N(0, 2/(k·k·out)), zero biases; linear weights N(0, linear_std²), or torch's own where None."""
    for m in net.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.normal_(m.weight, 0.0, math.sqrt(2 / (m.kernel_size[0] * m.kernel_size[1] * m.out_channels)))
            if m.bias is not None:
                nn.init.zeros_(m.bias)
        elif isinstance(m, nn.Linear):
            if linear_std is not None:
                nn.init.normal_(m.weight, 0.0, linear_std)
            nn.init.zeros_(m.bias)
