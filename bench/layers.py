"""How much knowledge each stage of a teacher offers, by the geometry of its features: what `layers: auto` goes by."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.data import Data
from bench.evaluate import plain
from bench.models.base import Network
from bench.seeds import generator
from methods.logit_free import knowledge_quality

SAMPLES = 5000  # of the training split, at most
LARGEST = 262_144  # numbers of a map; larger ones are max-pooled


def rows(teacher: Network, data: Data) -> list[dict[str, float]]:
    """Separation, information, efficiency and Q of the stem (stage 0) and every stage, on the training split."""
    chosen = _sample(data.train.y)
    features = _features(teacher, data, chosen)
    y = data.train.y[chosen]
    out = []
    for stage, f in enumerate(features):
        values = knowledge_quality(f, y, n=len(data.train))
        out.append({"stage": float(stage), **{name: value.item() for name, value in values.items()}})
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


@torch.no_grad()
def _features(teacher: Network, data: Data, chosen: Tensor) -> list[Tensor]:
    split = type(data.train)(data.train.x[chosen], data.train.y[chosen])
    parts = [[_flat(f) for f in teacher(x).feats] for x in plain(split, data, 500)]
    return [torch.cat(stage) for stage in zip(*parts, strict=True)]


def _flat(f: Tensor) -> Tensor:
    while f[0].numel() > LARGEST:
        f = F.max_pool2d(f, 2)
    return f.flatten(1).float()
