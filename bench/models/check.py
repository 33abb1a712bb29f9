"""Whether a chain of a model's modules is that model, and which of its maps a ReLU gave."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bench.models.base import evaluating
from bench.models.chain import Chained


def faithful(chained: Chained, size: int) -> bool:
    """Does the chain give the model's own logits in both modes, and every tail leave its map as it was?"""
    x = torch.randn(2, chained.in_channels, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), evaluating(chained), torch.random.fork_rng(devices=[]):
        logits, out = _same_draws(chained, chained.net, x), _same_draws(chained, chained, x)
        good = _close(out.logits, logits) and out.pooled.ndim == 2 and all(f.ndim == 4 for f in out.feats)
        for i, f in enumerate(out.feats if good else ()):
            before = f._version
            good = good and _close(chained.tail(i, f), logits) and f._version == before
        if good:
            chained.train()
            good = _close(_same_draws(chained, chained, x).logits, _same_draws(chained, chained.net, x))
    return good


def _same_draws(chained: Chained, run: nn.Module, x: Tensor) -> Any:
    """The module's answer under one fixed seed, every buffer put back after it."""
    buffers = {name: t.clone() for name, t in chained.net.named_buffers()}
    torch.default_generator.manual_seed(0)
    answer = run(x)
    for name, t in chained.net.named_buffers():
        t.copy_(buffers[name])
    return answer


def _close(a: object, b: object) -> bool:
    both = isinstance(a, Tensor) and isinstance(b, Tensor) and a.shape == b.shape
    return both and torch.allclose(a, b, rtol=1e-4, atol=1e-5)  # type: ignore[arg-type]


def rectified_taps(chained: Chained, size: int) -> tuple[bool, ...]:
    """Which maps come out of a ReLU (or a max-pool of one), as autograd recorded it."""
    with evaluating(chained):
        out = chained(torch.zeros(2, chained.in_channels, size, size, requires_grad=True))
    return tuple(is_rectified(f) for f in out.feats)


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
