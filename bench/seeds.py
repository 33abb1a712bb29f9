"""Named seeds: a seed is a hash of what it is for, so that adding one use never shifts another."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def seed(*parts: object) -> int:
    """A 63-bit seed from named parts, e.g. `seed("order", run_seed, epoch)`. Leave the method out of what all share."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(*parts: object, device: str | torch.device = "cpu") -> torch.Generator:
    """A generator seeded by named parts."""
    return torch.Generator(device=device).manual_seed(seed(*parts))


@contextmanager
def fork_rng(*parts: object) -> Iterator[None]:
    """torch's global generator seeded by named parts inside the block, and put back after it (initial weights)."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed(*parts))
        yield
