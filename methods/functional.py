"""Loss pieces that several methods share. Pure functions; one value per example, reduced by the caller."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def cross_entropy(zs: Tensor, y: Tensor) -> Tensor:
    """Cross entropy with the labels. zs: [B, C] float; y: [B] int64 → [B] nats."""
    return F.cross_entropy(zs, y, reduction="none")


def kl(zs: Tensor, zt: Tensor, tau: float | Tensor) -> Tensor:
    """τ²·KL(softmax(zt/τ) ‖ softmax(zs/τ)), the class sum. zs, zt: [B, C] float → [B] nats.

    Hinton, Vinyals, Dean 2015, arXiv 1503.02531, §2: the factor τ² keeps the gradient's size as τ grows.
    """
    log_s = F.log_softmax(zs / tau, dim=1)
    log_t = F.log_softmax(zt / tau, dim=1)
    # exp(log_t)·log_t is 0·(large) = 0 where the teacher's probability underflows: log_softmax is never -inf for
    # finite logits, so no 0·inf can arise.
    return tau**2 * (log_t.exp() * (log_t - log_s)).sum(dim=1)
