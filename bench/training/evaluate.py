"""From logits to numbers. Every example is counted once, whatever the batch size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.data import Data, Split
from bench.data.augment import apply_view, draw_view
from bench.suite.protocol import Protocol
from bench.training.precision import autocast, set_torch_backends

MIN_CLASSES_FOR_TOP5 = 11  # classes; below, top-5 says nothing


@torch.no_grad()
def logits_of(predict: Callable[[Tensor], Tensor], split: Split, data: Data, batch_size: int) -> Tensor:
    """[N, C] float32 logits of every example of a split, in order. `predict` maps normalised images to logits."""
    parts = [predict(images).float() for images in unaugmented_batches(split, data, batch_size)]
    return torch.cat(parts)


def network_logits(network: nn.Module, split: Split, data: Data, protocol: Protocol) -> Tensor:
    """The same of a bare network, in the protocol's precision. Every accuracy of a teacher comes from here."""
    set_torch_backends(protocol)
    with autocast(protocol, split.x.device):
        return logits_of(lambda x: network(x).logits, split, data, protocol.eval_batch_size)


def unaugmented_batches(split: Split, data: Data, batch_size: int) -> Iterator[Tensor]:
    """The split's images normalised and in batches, without augmentation."""
    for x in split.x.split(batch_size):
        yield apply_view(x, draw_view("plain", len(x), data.size, None, pad=0, flip=False), data.mean, data.std)


def correctness(logits: Tensor, y: Tensor) -> Tensor:
    """[N] bool: is the largest logit the label's? logits: [N, C]; y: [N] int64."""
    return logits.argmax(dim=1) == y


@dataclass(frozen=True)
class Predictions:
    """What a student said of every image of a split, beside the label and the teacher's word. All [N], on the CPU."""

    label: np.ndarray  # the data's, uint16
    guess: np.ndarray  # uint16
    confidence: np.ndarray  # of the guess, float32
    teacher_guess: np.ndarray | None
    teacher_confidence: np.ndarray | None

    @classmethod
    def of(cls, logits: Tensor, y: Tensor, teacher: Tensor | None) -> Predictions:
        own = _guess_and_confidence(logits)
        other = (None, None) if teacher is None else _guess_and_confidence(teacher)
        return cls(y.cpu().numpy().astype(np.uint16), *own, *other)

    def arrays(self) -> dict[str, np.ndarray]:
        """By name, without what is not known."""
        return {name: array for name, array in vars(self).items() if array is not None}


def _guess_and_confidence(logits: Tensor) -> tuple[np.ndarray, np.ndarray]:
    confidence, guess = logits.softmax(dim=1).max(dim=1)
    return guess.cpu().numpy().astype(np.uint16), confidence.float().cpu().numpy()


def calibration_error(logits: Tensor, y: Tensor, bins: int = 15) -> Tensor:
    """Expected calibration error in [0, 1], equal-width confidence bins (Guo et al. 2017, arXiv 1706.04599, eq. 3)."""
    confidence, guess = logits.softmax(dim=1).max(dim=1)
    bin_index = (confidence * bins).long().clamp(max=bins - 1)
    gap = torch.zeros(bins, device=logits.device, dtype=confidence.dtype)
    gap.index_add_(0, bin_index, (guess == y).to(confidence.dtype) - confidence)
    return gap.abs().sum() / len(y)


def metrics(logits: Tensor, y: Tensor, teacher: Tensor | None = None) -> dict[str, float]:
    """Accuracy and calibration of [N, C] logits, and closeness to the teacher's logits where there are any.

    top1, top5, ece, agreement in %; nll and kl (teacher ‖ student, τ = 1) in nats per example.
    """
    if len(y) == 0:
        raise ValueError("metrics of an empty split")
    out = {
        "top1": 100 * correctness(logits, y).float().mean(),
        "nll": F.cross_entropy(logits, y),
        "ece": 100 * calibration_error(logits, y),
    }
    if logits.shape[1] >= MIN_CLASSES_FOR_TOP5:
        out["top5"] = 100 * (logits.topk(5, dim=1).indices == y[:, None]).any(dim=1).float().mean()
    if teacher is not None:
        out["agreement"] = 100 * (logits.argmax(dim=1) == teacher.argmax(dim=1)).float().mean()
        log_s, log_t = logits.log_softmax(dim=1), teacher.log_softmax(dim=1)
        out["kl"] = (log_t.exp() * (log_t - log_s)).sum(dim=1).mean()
    return dict(zip(out, torch.stack(list(out.values())).tolist(), strict=True))  # one transfer for all
