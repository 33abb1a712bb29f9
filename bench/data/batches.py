"""The order in which examples are seen, and what the students of a step share of the data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Some training images as every student of a step is shown them, on the device."""

    views: dict[str, Tensor]  # by name, [B, C, H, W] float32, augmented and normalised
    y: Tensor  # [B] int64 labels
    index: Tensor  # [B] int64, places in the training split
    step: int  # of its epoch, from 0
    epoch_progress: float  # share of the epoch that was over before it, in [0, 1)
    remake: Callable[[], Batch]  # makes the same pixels once more, where somebody has written into these

    def __len__(self) -> int:
        return len(self.y)


def batches(n: int, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Index tensors [B] int64 on the CPU: each of n examples once, in an order drawn from the CPU generator.

    The last batch may be smaller, as in the literature; but a single leftover joins the batch before it, since
    BatchNorm cannot learn from one example.
    """
    if n < 1 or batch_size < 1:
        raise ValueError(f"batches take at least one example and a batch size of at least 1, got {n} and {batch_size}")
    order = torch.randperm(n, generator=generator)
    starts = range(0, n, batch_size)[: n_batches(n, batch_size)]
    for start in starts:
        yield order[start:] if start == starts[-1] else order[start : start + batch_size]


def n_batches(n: int, batch_size: int) -> int:
    """How many batches an epoch has."""
    joins_previous = n > batch_size > 1 and n % batch_size == 1
    return -(-n // batch_size) - joins_previous
