"""Loss pieces that several methods share. Pure functions; one value per example, reduced by the caller."""

from __future__ import annotations

import torch
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


def kl_at(zs: Tensor, zt: Tensor, temperatures: Tensor) -> Tensor:
    """`kl` at each of T temperatures at once. zs, zt: [B, C] float; temperatures: [T] → [T, B] nats."""
    log_s, log_t = (F.log_softmax(z / temperatures[:, None, None], dim=2) for z in (zs, zt))
    return temperatures[:, None].square() * (log_t.exp() * (log_t - log_s)).sum(dim=2)


def masked_kl(zs: Tensor, zt: Tensor, keep: Tensor, tau: float) -> Tensor:
    """τ²·KL of the kept classes, renormalised; 0 where none is kept. zs, zt: [B, C]; keep: [B, C] bool → [B] nats."""
    none = ~keep.any(dim=1)
    left_out = ~(keep | none[:, None])  # an empty row is computed whole, since its softmax would be 0/0
    log_s, log_t = (F.log_softmax((z / tau).masked_fill(left_out, -torch.inf), dim=1) for z in (zs, zt))
    divergence = (log_t.exp() * (log_t - log_s).masked_fill(left_out, 0.0)).sum(dim=1)
    return tau**2 * divergence.masked_fill(none, 0.0)


def standardise(z: Tensor) -> Tensor:
    """(z - mean) / (std + 1e-7) over the classes, the unbiased std. z: [B, C ≥ 2] float → [B, C].

    Logit standardisation, arXiv 2403.01427.

    A constant row gives zeros, and no gradient of 1e7: its std of 0 is not differentiated.
    """
    variance, mean = torch.var_mean(z, dim=1, keepdim=True)
    centred, flat = z - mean, variance == 0
    std = variance.masked_fill(flat, 1.0).sqrt()
    return torch.where(flat, centred.detach(), centred / (std + 1e-7))


def swap(z: Tensor, y: Tensor) -> Tensor:
    """z with the values at y and at the largest entry exchanged. z: [B, C] float; y: [B] int64 → [B, C].

    Swapped logit distillation, arXiv 2504.20108: the label becomes the answer, and no value is lost.
    """
    top = z.argmax(dim=1, keepdim=True)
    both = torch.cat([y[:, None], top], dim=1)
    return z.scatter(1, both, z.gather(1, both.flip(1)))
