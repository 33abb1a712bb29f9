"""Whether a model that was cut into stem, stages and head is still that model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bench.errors import UserError
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


def check_classifier(name: str, net: nn.Module, in_channels: int, size: int, n_classes: int) -> None:
    """Raise `UserError` where a module of one's own does not give logits for images, or not in training."""
    images = f"two images of {in_channels}x{size}x{size}"
    for mode in (False, True):
        with torch.no_grad(), evaluating(net), torch.random.fork_rng(devices=[]):
            net.train(mode)
            try:
                logits = _same_draws(net, net, torch.zeros(2, in_channels, size, size))
            except Exception as error:  # whatever its forward does wrong
                reason = " ".join(f"{type(error).__name__}: {error}".split())[:120]
                raise UserError(f"'{name}' cannot take {images} ({reason}); set data.size to what it takes") from None
        if not isinstance(logits, Tensor) or logits.shape != (2, n_classes):
            given = list(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
            raise UserError(
                f"'{name}' gives {given} for {images}{' in training' * mode}; a classifier's forward returns the logits"
                f" alone, [2, {n_classes}]: let its constructor take num_classes"
            )


def _same_draws(holder: nn.Module, run: nn.Module, x: Tensor) -> Any:
    """The module's answer under one fixed seed, every buffer put back after it."""
    buffers = {name: t.clone() for name, t in holder.named_buffers()}
    torch.default_generator.manual_seed(0)
    answer = run(x)
    for name, t in holder.named_buffers():
        t.copy_(buffers[name])
    return answer


def _close(a: object, b: object) -> bool:
    both = isinstance(a, Tensor) and isinstance(b, Tensor) and a.shape == b.shape
    return both and torch.allclose(a, b, rtol=1e-4, atol=1e-5)  # type: ignore[arg-type]
