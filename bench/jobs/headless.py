"""Which methods look at a teacher's logits: asked of the method itself, on made-up taps."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from methods.base import Dims, Method, NetDims, NetworkView, Out, Progress, Refusal

MOST = 8  # images, where a method does not ask for full batches


def check_without_logits(method: Method, shapes: Dims) -> None:
    """Raises `Refusal` for a method that reads the logits of a teacher whose head is ignored."""
    phases = [(method.needs, method.loss)]
    if method.pretrain_share:
        phases.append((method.pretrain_needs or method.needs, method.pretrain_loss))
    for needs, loss in phases:
        n = shapes.batch_size if needs.full_batches else min(MOST, shapes.batch_size)
        taps = tuple(tap for tap in needs.taps if tap not in ("logits", "tail"))
        t = NetworkView({view: _zeros(shapes.teacher, n, shapes.n_classes) for view in needs.views}, taps)
        s = NetworkView(
            {view: _zeros(shapes.student, n, shapes.n_classes) for view in needs.views}, needs.taps, _no_tail
        )
        y = torch.arange(n) % shapes.n_classes
        try:
            loss(s, t, y, Progress(1, 10, torch.Generator().manual_seed(0), torch.arange(n)))
        except AttributeError as error:
            if "'logits'" in str(error) or "'tail'" in str(error):
                name = type(method).name()
                raise Refusal(
                    f"{name} reads the teacher's logits, and teacher_head: ignore leaves none; give the teacher a head"
                    " for these classes (finetune, class_map), or name a method that looks at maps"
                ) from None
        except Exception:  # a fault that has nothing to do with the head: the run ends by it, if it is one
            continue


def _zeros(dims: NetDims, n: int, n_classes: int) -> Out:
    def made(shape: Iterable[int]) -> Tensor:
        return torch.zeros(n, *shape, requires_grad=True)

    preacts = tuple(None if shape is None else made(shape) for shape in dims.preacts)
    return Out(made([n_classes]), tuple(made(shape) for shape in dims.feats), preacts, made([dims.pooled]))


def _no_tail(i: int, f: Tensor, **options: object) -> Tensor:
    raise NotImplementedError("made-up taps go on to no logits")
