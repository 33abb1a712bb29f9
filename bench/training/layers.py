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
from bench.training.evaluate import unaugmented_batches
from methods.logit_free import add_products, quality_of_products
from methods.wkd_l import class_similarity

MAX_SAMPLES = 5000  # of the training split, at most
MAX_MAP_SIZE = 262_144  # numbers of a map; larger ones are max-pooled
MAX_NUMBERS_IN_MEMORY = 250_000_000  # of maps (1 GB); what does not fit takes another pass over the images
BATCH_SIZE = 100
IMAGES_PER_CLASS = 32  # whose maps are compared, at most

Slice = tuple[int, int, int]
"""A stage, and the first and last (exclusive) of its flattened map's columns."""


def stage_qualities(teacher: Network, data: Data) -> list[dict[str, float]]:
    """Separation, information, efficiency and Q of the stem (stage 0) and every stage, on so many training images."""
    index = _sample_positions(data.train.y)
    split = Split(data.train.x[index], data.train.y[index])
    widths = [f.shape[1] for f in next(_flattened_maps(teacher, Split(split.x[:1], split.y[:1]), data))]
    products, out = torch.empty(0), []
    for slices in _split_into_passes(widths, max(1, MAX_NUMBERS_IN_MEMORY // len(index))):
        features = _features(teacher, split, data, slices)
        for stage, first, last in slices:
            if first == 0:
                products = torch.zeros(len(index), len(index), dtype=torch.float64, device=split.y.device)
            add_products(products, features.pop(0))
            if last == widths[stage]:
                values = quality_of_products(products, split.y, n=len(data.train), width=last)
                row = {"stage": float(stage), "images": float(len(index))}
                out.append(row | {name: value.item() for name, value in values.items()})
    return out


def quality(teacher: Network, data: Data) -> tuple[float, ...]:
    """Q of the stem and every stage."""
    return tuple(row["quality"] for row in stage_qualities(teacher, data))


@torch.no_grad()
def relations(teacher: Network, data: Data) -> Tensor:
    """[C, C] likeness of the classes' last maps, on the CPU; every class is shown by as many images."""
    size = math.prod(teacher.dims().feats[-1])
    room = max(2, MAX_NUMBERS_IN_MEMORY // (data.n_classes * size))
    n = min(IMAGES_PER_CLASS, room, int(data.train.y.bincount(minlength=data.n_classes).min()))
    chosen = torch.cat(_of_classes(data.train.y, n))
    maps = [
        teacher(x).feats[-1].float()
        for x in unaugmented_batches(Split(data.train.x[chosen], data.train.y[chosen]), data, BATCH_SIZE)
    ]
    rows = torch.cat(maps).flatten(2).mT  # [images, pixels, channels]
    return class_similarity(rows.reshape(data.n_classes, -1, rows.shape[2])).cpu()


def _sample_positions(y: Tensor) -> Tensor:
    """At most MAX_SAMPLES positions, drawn once and for all, as many of every class as there are to share."""
    return torch.cat(_of_classes(y, max(2, MAX_SAMPLES // int(y.max() + 1)))).sort().values


def _of_classes(y: Tensor, n: int) -> list[Tensor]:
    """At most n positions of every class, drawn once and for all."""
    order = torch.randperm(len(y), generator=generator("layers")).to(y.device)
    return [order[y[order] == c][:n] for c in y.unique().tolist()]


def _split_into_passes(widths: list[int], columns_per_pass: int) -> list[list[Slice]]:
    """All columns of all stages in order, cut into passes of at most `room` columns."""
    passes: list[list[Slice]] = [[]]
    columns_left = columns_per_pass
    for stage, width in enumerate(widths):
        first = 0
        while first < width:
            if columns_left == 0:
                passes.append([])
                columns_left = columns_per_pass
            last = min(width, first + columns_left)
            passes[-1].append((stage, first, last))
            columns_left -= last - first
            first = last
    return passes


def _features(teacher: Network, split: Split, data: Data, slices: list[Slice]) -> list[Tensor]:
    """[M, last - first] float32 of every slice."""
    out = [torch.empty(len(split), last - first, device=split.y.device) for _, first, last in slices]
    done = 0
    for maps in _flattened_maps(teacher, split, data):
        for target, (stage, first, last) in zip(out, slices, strict=True):
            target[done : done + len(maps[stage])] = maps[stage][:, first:last]
        done += len(maps[0])
    return out


@torch.no_grad()
def _flattened_maps(teacher: Network, split: Split, data: Data) -> Iterator[list[Tensor]]:
    """The flattened maps of stem and stages, batch by batch."""
    for x in unaugmented_batches(split, data, BATCH_SIZE):
        yield [_pool_and_flatten(f) for f in teacher(x).feats]


def _pool_and_flatten(f: Tensor) -> Tensor:
    while f[0].numel() > MAX_MAP_SIZE:
        f = F.max_pool2d(f, 2)
    return f.flatten(1).float()
