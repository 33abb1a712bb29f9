from __future__ import annotations

import pytest
import torch

from bench.data.batches import batches, n_batches
from bench.seeds import generator


@pytest.mark.parametrize("n", [1, 2, 3, 63, 64, 65, 66, 127, 128, 129, 300])
@pytest.mark.parametrize("size", [1, 2, 64])
def test_every_example_is_seen_once(n: int, size: int) -> None:
    got = list(batches(n, size, generator(n)))
    assert sorted(torch.cat(got).tolist()) == list(range(n))
    assert len(got) == n_batches(n, size)
    assert all(b.dtype == torch.int64 for b in got)
    if size > 1 and n > 1:
        assert min(map(len, got)) > 1 and max(map(len, got)) <= size + 1


def test_leftovers() -> None:
    assert [len(b) for b in batches(130, 64, generator(0))] == [64, 64, 2]
    assert [len(b) for b in batches(129, 64, generator(0))] == [64, 65]


def test_order_follows_the_generator() -> None:
    a, b, c = (torch.cat(list(batches(100, 7, generator("order", k)))) for k in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c) and a.tolist() != list(range(100))


def test_nothing_to_see() -> None:
    with pytest.raises(ValueError, match="at least one example"):
        list(batches(0, 4, generator(0)))
