"""Contrastive representation distillation: know an image's teacher embedding from those of other classes' images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.base import Dims, Float, Int, Method, Needs, NetworkView, Paper, Progress, Recipe, Refusal
from methods.functional import cross_entropy

WHOLE = 16
"""Score an embedding against the whole memory up to N = WHOLE·(K + 1) rows, gather rows beyond.

The product with the whole memory costs N/(K + 1) times the multiplications, but reads each row once and writes B·N
numbers; gathering writes, keeps and re-reads B·(K + 1)·d numbers, 0.5 GB for the paper's B = 64, K = 16384, d = 128.
"""


def crd_logits(e: Tensor, memory: Tensor, pick: Tensor, *, tau: float) -> Tensor:
    """M[pick]·e/τ. e: [B, d] float, unit length; memory: [N, d]; pick: [B, K + 1] int64 → [B, K + 1], at most 1/τ."""
    if len(memory) <= WHOLE * pick.shape[1]:
        return (e / tau @ memory.T).gather(1, pick)
    return torch.einsum("bd,bkd->bk", e / tau, memory[pick])


def crd_loss(v: Tensor, z: Tensor, *, n: int, eps: float = 1e-7) -> Tensor:
    """-log h(positive) - Σ log(1 - h(negative)) with h(u) = u/(u + K/N), u = exp(v)/Z. arXiv 1910.10699, §3.

    v: [B, K + 1] float, the positive first; z: [] float, the constant Z; n: examples N in the memory → [B] nats.
    """
    log_u = v - z.log()  # the positive's log u is never the logarithm of an underflown u
    c = (v.shape[1] - 1) / n
    total = torch.log(log_u.exp() + (c + eps))
    positive = log_u[:, 0] - total[:, 0]
    negative = torch.log(torch.full_like(z, c)) - total[:, 1:]
    return -positive - negative.sum(dim=1)


def crd_partition(v: Tensor, *, n: int) -> Tensor:
    """Z = N·mean(exp v), the estimate of the first batch. v: [B, K + 1] → [] float."""
    return n * v.exp().mean()


def draw_negatives(y: Tensor, train_y: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """k training examples of other classes for every row, without replacement, each set as likely as any other.

    y: [B] int64; train_y: [N] int64 → [B, k] int64, order arbitrary. The k smallest of N uniform keys are a uniform
    sample without replacement; examples of the row's own class get a key that is never among them.
    """
    keys = torch.rand(len(y), len(train_y), generator=generator, device=y.device)
    keys.masked_fill_(train_y[None, :] == y[:, None], 2.0)
    return keys.topk(k, dim=1, largest=False, sorted=False).indices


class CRD(Method):
    paper = Paper(
        title="Contrastive Representation Distillation",
        authors="Tian, Krishnan, Isola",
        venue="ICLR",
        year=2020,
        url="https://arxiv.org/abs/1910.10699",
        code="github.com/HobbitLong/RepDistiller @ b84f547 crd/criterion.py, crd/memory.py",
        licence="BSD-2-Clause",
    )
    needs = Needs(taps=("logits", "pooled"), index=True)
    space = {
        "ce": Float(0.0, 1.0, tune=False),
        "crd": Float(0.02, 20.0, log=True),
        "tau": Float(0.02, 1.0, log=True),
        "dim": Int(8, 1024, log=True, tune=False),
        "nce_k": Int(1, 1_000_000, log=True, tune=False),
        "momentum": Float(0.0, 1.0, tune=False),
    }
    recipes = {
        "paper": Recipe(
            values={"ce": 1.0, "crd": 0.8, "tau": 0.07, "dim": 128, "nce_k": 16384, "momentum": 0.5},
            source="RepDistiller @ b84f547 scripts/run_cifar_distill.sh, train_student.py (mode 'exact')",
            selection="last-epoch",
            reported={
                "cifar100/wrn_40_2->wrn_16_2": 75.48,
                "cifar100/wrn_40_2->wrn_40_1": 74.14,
                "cifar100/resnet56->resnet20": 71.16,
                "cifar100/resnet110->resnet20": 71.46,
                "cifar100/resnet110->resnet32": 73.48,
                "cifar100/resnet32x4->resnet8x4": 75.51,
                "cifar100/vgg13->vgg8": 73.94,
                "cifar100/vgg13->MobileNetV2": 69.73,
                "cifar100/ResNet50->MobileNetV2": 69.11,
                "cifar100/ResNet50->vgg8": 74.30,
                "cifar100/resnet32x4->ShuffleV1": 75.11,
                "cifar100/resnet32x4->ShuffleV2": 75.65,
                "cifar100/wrn_40_2->ShuffleV1": 76.05,
            },
        ),
    }
    deviations = (
        "Negatives are drawn on the device from the member's own stream, not by the data loader; the distribution is"
        " the same: without replacement from other classes, independent for every example of a batch.",
        "K is at most the number of training examples outside the largest class, so that small data sets can be used;"
        " the constant K/N follows the K that is used.",
        "An embedding of length zero stays zero, where the reference code divides by zero.",
    )

    memory_s: Tensor
    memory_t: Tensor
    z_s: Tensor
    z_t: Tensor
    train_y: Tensor

    def __init__(self, dims: Dims, *, ce: float, crd: float, tau: float, dim: int, nce_k: int, momentum: float) -> None:
        super().__init__(dims)
        self.ce, self.crd, self.tau, self.momentum = ce, crd, tau, momentum
        self.n = dims.n_train
        self.k = min(nce_k, _available(dims))
        self.embed_s = nn.Linear(dims.student.pooled, dim)
        self.embed_t = nn.Linear(dims.teacher.pooled, dim)
        bound = (3 / dim) ** 0.5  # unit length on average
        for name in ("memory_s", "memory_t"):
            self.register_buffer(name, torch.empty(self.n, dim).uniform_(-bound, bound))
        for name in ("z_s", "z_t"):
            self.register_buffer(name, torch.zeros(()))  # 0: not yet set; the first batch sets it for good
        self.register_buffer("train_y", dims.train_y.clone(), persistent=False)

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        negatives = draw_negatives(y, self.train_y, self.k, at.generator)
        pick = torch.cat([at.index[:, None], negatives], dim=1)
        return {
            "ce": self.ce * cross_entropy(s.logits, y).mean(),
            "crd": self.crd * self.contrast(s.pooled, t.pooled, pick).mean(),
        }

    def contrast(self, hs: Tensor, ht: Tensor, pick: Tensor) -> Tensor:
        """Both directions' loss, then the batch enters the memories. hs, ht: [B, D]; pick: [B, K + 1] → [B] nats."""
        es, et = F.normalize(self.embed_s(hs)), F.normalize(self.embed_t(ht))
        memory_s, memory_t = self.memory_s.clone(), self.memory_t.clone()  # the backward pass needs them as they are
        vs = crd_logits(es, memory_t, pick, tau=self.tau)
        vt = crd_logits(et, memory_s, pick, tau=self.tau)
        with torch.no_grad():
            # a choice on the device: no step waits for the host to learn whether Z is set
            self.z_s.copy_(torch.where(self.z_s > 0, self.z_s, crd_partition(vs, n=self.n)))
            self.z_t.copy_(torch.where(self.z_t > 0, self.z_t, crd_partition(vt, n=self.n)))
            self._remember(self.memory_s, pick[:, 0], es)
            self._remember(self.memory_t, pick[:, 0], et)
        return crd_loss(vs, self.z_s, n=self.n) + crd_loss(vt, self.z_t, n=self.n)

    def _remember(self, memory: Tensor, index: Tensor, e: Tensor) -> None:
        """This batch enters the memory, in place: a recorded step goes on writing where it wrote."""
        memory.index_copy_(0, index, F.normalize(self.momentum * memory[index] + (1 - self.momentum) * e))

    @classmethod
    def check(cls, dims: Dims) -> None:
        if _available(dims) < 1:
            raise Refusal("crd contrasts an example with those of other classes; this training set has one class")


def _available(dims: Dims) -> int:
    """Negatives that every training example has: all examples outside the largest class."""
    return dims.n_train - int(dims.train_y.bincount().max())
