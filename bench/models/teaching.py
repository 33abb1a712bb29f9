"""A teacher as students see it: with images as it expects them, without a head, or as the mean of several networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.models.base import Network
from methods.base import Out


@dataclass(frozen=True)
class ExpectedInput:
    """Normalised by these numbers of each channel (of the range 0 to 1), and so many pixels wide and high."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int

    def record(self) -> dict[str, Any]:
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


class InputChange(nn.Module):
    """From [B, C, H, W] as the data are normalised to what a teacher expects; a grey image is repeated in its channels,
    each normalised by its own numbers."""

    scale: Tensor
    shift: Tensor

    def __init__(self, data: ExpectedInput, teacher: ExpectedInput) -> None:
        super().__init__()
        self.data = data
        mean, std, own_mean, own_std = (
            torch.tensor(numbers)[:, None, None] for numbers in (data.mean, data.std, teacher.mean, teacher.std)
        )
        self.register_buffer("scale", std / own_std, persistent=False)
        self.register_buffer("shift", (mean - own_mean) / own_std, persistent=False)
        self.size = teacher.size

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.scale + self.shift
        if x.shape[-1] == self.size:
            return x
        return F.interpolate(x, (self.size, self.size), mode="bilinear", antialias=True, align_corners=False)


def change_input(network: Network, data: ExpectedInput, teacher: ExpectedInput) -> None:
    """Have the network change its images from now on."""
    network.input_change = InputChange(data, teacher)
    network.register_forward_pre_hook(_change)


def _change(network: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (network.input_change(args[0]), *args[1:])  # type: ignore[operator]


def ignore_head(network: Network) -> None:
    """Have the network show its maps and pooled vector alone: its logits are empty, [B, 0], and no map goes on."""
    network.has_head = network.has_tails = False
    network.register_forward_hook(_without_logits)


def _without_logits(network: nn.Module, args: object, out: Out) -> Out:
    return replace(out, logits=out.logits[:, :0])


class Ensemble(Network):
    """Several networks as one teacher: its softmax at temperature tau is the mean of theirs. It shows logits alone."""

    has_tails = False

    def __init__(self, networks: Sequence[Network], tau: float) -> None:
        first, change = networks[0], getattr(networks[0], "input_change", None)
        names = " + ".join(network.arch for network in networks)
        channels, size = (len(change.data.mean), change.data.size) if change else (first.in_channels, first.size)
        super().__init__(names, channels, size, first.n_classes, ())
        self.networks, self.tau = nn.ModuleList(networks), tau

    def forward(self, x: Tensor) -> Out:
        logs = torch.stack([(network(x).logits.float() / self.tau).log_softmax(1) for network in self.networks])
        logits = self.tau * (logs.logsumexp(0) - torch.tensor(float(len(logs))).log().item())
        return Out(logits, (), (), logits.new_zeros(len(x), 0))
