"""How much knowledge each stage of a teacher offers, by the geometry of its features: what `layers: auto` goes by."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.data import Data, Split
from bench.models.base import Network
from bench.seeds import generator
from bench.training.evaluate import plain
from methods.logit_free import add_products, quality_of_products

SAMPLES = 5000  # of the training split, at most
LARGEST = 262_144  # numbers of a map; larger ones are max-pooled
ROOM = 250_000_000  # numbers of maps held at a time (1 GB); what does not fit takes another pass over the images
BATCH = 100

Slice = tuple[int, int, int]
"""A stage, and the first and last (exclusive) of its flattened map's columns."""


def rows(teacher: Network, data: Data) -> list[dict[str, float]]:
    """Separation, information, efficiency and Q of the stem (stage 0) and every stage, on so many training images."""
    chosen = _sample(data.train.y)
    split = Split(data.train.x[chosen], data.train.y[chosen])
    widths = [f.shape[1] for f in next(_maps(teacher, Split(split.x[:1], split.y[:1]), data))]
    products, out = torch.empty(0), []
    for slices in _passes(widths, max(1, ROOM // len(chosen))):
        held = _features(teacher, split, data, slices)
        for stage, first, last in slices:
            if first == 0:
                products = torch.zeros(len(chosen), len(chosen), dtype=torch.float64, device=split.y.device)
            add_products(products, held.pop(0))
            if last == widths[stage]:
                values = quality_of_products(products, split.y, n=len(data.train), width=last)
                row = {"stage": float(stage), "images": float(len(chosen))}
                out.append(row | {name: value.item() for name, value in values.items()})
    return out


def quality(teacher: Network, data: Data) -> tuple[float, ...]:
    """Q of the stem and every stage."""
    return tuple(row["quality"] for row in rows(teacher, data))


def _sample(y: Tensor) -> Tensor:
    """At most SAMPLES positions, drawn once and for all, as many of every class as there are to share."""
    order = torch.randperm(len(y), generator=generator("layers")).to(y.device)
    per_class = max(2, SAMPLES // int(y.max() + 1))
    taken = [order[y[order] == c][:per_class] for c in y.unique().tolist()]
    return torch.cat(taken).sort().values


def _passes(widths: list[int], room: int) -> list[list[Slice]]:
    """All columns of all stages in order, cut into passes of at most `room` columns."""
    out: list[list[Slice]] = [[]]
    left = room
    for stage, width in enumerate(widths):
        first = 0
        while first < width:
            if left == 0:
                out.append([])
                left = room
            last = min(width, first + left)
            out[-1].append((stage, first, last))
            left -= last - first
            first = last
    return out


def _features(teacher: Network, split: Split, data: Data, slices: list[Slice]) -> list[Tensor]:
    """[M, last - first] float32 of every slice."""
    out = [torch.empty(len(split), last - first, device=split.y.device) for _, first, last in slices]
    done = 0
    for maps in _maps(teacher, split, data):
        for to, (stage, first, last) in zip(out, slices, strict=True):
            to[done : done + len(maps[stage])] = maps[stage][:, first:last]
        done += len(maps[0])
    return out


@torch.no_grad()
def _maps(teacher: Network, split: Split, data: Data) -> Iterator[list[Tensor]]:
    """The flattened maps of stem and stages, batch by batch."""
    for x in plain(split, data, BATCH):
        yield [_flat(f) for f in teacher(x).feats]


def _flat(f: Tensor) -> Tensor:
    while f[0].numel() > LARGEST:
        f = F.max_pool2d(f, 2)
    return f.flatten(1).float()
