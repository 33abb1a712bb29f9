"""Whether a model that was cut into stem, stages and head is still that model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bench.models.adapted import Adapted
from bench.models.base import evaluating


def faithful(network: Adapted, size: int) -> bool:
    """Does the network give the model's own logits in both modes, and every tail leave its map as it was?"""
    x = torch.randn(2, network.in_channels, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), evaluating(network), torch.random.fork_rng(devices=[]):
        logits, out = _same_draws(network, network.net, x), _same_draws(network, network, x)
        good = _close(out.logits, logits) and out.pooled.ndim == 2 and all(f.ndim == 4 for f in out.feats)
        for i, f in enumerate(out.feats if good else ()):
            before = f._version
            good = good and _close(network.tail(i, f), logits) and f._version == before
        if good:
            network.train()
            good = _close(_same_draws(network, network, x).logits, _same_draws(network, network.net, x))
    return good


def _same_draws(network: Adapted, run: nn.Module, x: Tensor) -> Any:
    """The module's answer under one fixed seed, every buffer put back after it."""
    buffers = {name: t.clone() for name, t in network.net.named_buffers()}
    torch.default_generator.manual_seed(0)
    answer = run(x)
    for name, t in network.net.named_buffers():
        t.copy_(buffers[name])
    return answer


def _close(a: object, b: object) -> bool:
    both = isinstance(a, Tensor) and isinstance(b, Tensor) and a.shape == b.shape
    return both and torch.allclose(a, b, rtol=1e-4, atol=1e-5)  # type: ignore[arg-type]
