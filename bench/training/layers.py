"""What methods go by that look at a trained teacher's features: how much knowledge each stage offers (`layers: auto`),
and how alike its classes are."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.data import Data, Split
from bench.models.base import Network
from bench.seeds import generator
from bench.training.evaluate import plain
from methods.logit_free import add_products, quality_of_products
from methods.wkd_l import class_similarity

SAMPLES = 5000  # of the training split, at most
LARGEST = 262_144  # numbers of a map; larger ones are max-pooled
ROOM = 250_000_000  # numbers of maps held at a time (1 GB); what does not fit takes another pass over the images
BATCH = 100
ALIKE = 32  # images of every class whose maps are compared, at most

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


@torch.no_grad()
def relations(teacher: Network, data: Data) -> Tensor:
    """[C, C] likeness of the classes' last maps, on the CPU; every class is shown by as many images."""
    size = math.prod(teacher.dims().feats[-1])
    room = max(2, ROOM // (data.n_classes * size))
    n = min(ALIKE, room, int(data.train.y.bincount(minlength=data.n_classes).min()))
    chosen = torch.cat(_of_classes(data.train.y, n))
    maps = [teacher(x).feats[-1].float() for x in plain(Split(data.train.x[chosen], data.train.y[chosen]), data, BATCH)]
    rows = torch.cat(maps).flatten(2).mT  # [images, pixels, channels]
    return class_similarity(rows.reshape(data.n_classes, -1, rows.shape[2])).cpu()


def _sample(y: Tensor) -> Tensor:
    """At most SAMPLES positions, drawn once and for all, as many of every class as there are to share."""
    return torch.cat(_of_classes(y, max(2, SAMPLES // int(y.max() + 1)))).sort().values


def _of_classes(y: Tensor, n: int) -> list[Tensor]:
    """At most n positions of every class, drawn once and for all."""
    order = torch.randperm(len(y), generator=generator("layers")).to(y.device)
    return [order[y[order] == c][:n] for c in y.unique().tolist()]


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
