"""Softmax regression representation learning: the student's last map must serve the teacher's own classifier."""

from __future__ import annotations

from torch import Tensor, nn

from methods.adapters import BatchNorm, match_sizes, require_stages
from methods.base import Dims, Float, Method, Needs, NetworkView, Paper, Progress, Recipe
from methods.functional import cross_entropy
from methods.kd import kd_loss


def feature_statistics(fs: Tensor, ft: Tensor) -> Tensor:
    """Mean squared difference of the maps' spatial means. fs, ft: [B, D, H, W] float → [B]. ICLR 2021, L_FM."""
    return (fs.mean(dim=(2, 3)) - ft.mean(dim=(2, 3))).square().mean(dim=1)


def softmax_regression(zst: Tensor, zt: Tensor) -> Tensor:
    """Mean squared difference of logits. ICLR 2021, L_SR.

    zst: [B, C] float, what the teacher's classifier says of the student's map; zt: [B, C] float → [B].
    """
    return (zst - zt).square().mean(dim=1)


class Connector(nn.Module):
    """1x1 convolution without bias → BN → ReLU, into the teacher's channels. The ReLU only where the map has one."""

    def __init__(self, n_in: int, n_out: int, *, relu: bool) -> None:
        super().__init__()
        self.conv, self.bn, self.relu = nn.Conv2d(n_in, n_out, 1, bias=False), BatchNorm(n_out), relu
        nn.init.normal_(self.conv.weight, 0.0, (2 / n_out) ** 0.5)

    def forward(self, f: Tensor) -> Tensor:
        f = self.bn(self.conv(f))
        return f.relu() if self.relu else f


class SRRL(Method):
    paper = Paper(
        title="Knowledge Distillation via Softmax Regression Representation Learning",
        authors="Yang, Martinez, Bulat, Tzimiropoulos",
        venue="ICLR",
        year=2021,
        url="https://openreview.net/forum?id=ZzwDy_wiWv",
        code="github.com/jingyang2017/KD_SRRL @ d2e802f distiller_zoo/AIN.py, train_imagenet_distillation.py",
        licence="MIT",
    )
    needs = Needs(taps=("logits", "feats", "tail"), tails=("teacher",))
    space = {
        "ce": Float(0.0, 1.0, tune=False),
        "kd": Float(0.0, 10.0, tune=False),
        "tau": Float(1.0, 20.0, log=True, tune=False),  # of kd
        "fm": Float(0.01, 100.0, log=True),
        "sr": Float(0.01, 100.0, log=True),
    }
    recipes = {
        "paper": Recipe(
            values={"ce": 1.0, "kd": 0.0, "tau": 4.0, "fm": 1.0, "sr": 1.0},
            source="KD_SRRL @ d2e802f train_imagenet_distillation.py (ImageNet; no CIFAR-100 setting is public)",
            selection="best-epoch-on-test",
            reported={"imagenet/resnet34->resnet18": 71.73, "imagenet/resnet50->mobilenet": 72.49},
        ),
        "simkd-repo": Recipe(
            values={"ce": 1.0, "kd": 1.0, "tau": 4.0, "fm": 1.0, "sr": 1.0},
            source="github.com/DefangChen/SimKD @ 2b389c3 scripts/run_distill.sh, README (a term of KD beside it)",
            selection="best-epoch-on-test",
            reported={"cifar100/resnet32x4->resnet8x4": 75.39},
        ),
    }
    deviations = (
        "The connector works on the last map, as in the authors' code; SimKD's repository puts it behind the pooling.",
        "The larger of two maps is pooled to the smaller first; the authors' networks have maps of one size.",
        "The teacher's classifier is its head behind the last stage; where that map is no ReLU's output (wide residual"
        " networks), the head begins with BatchNorm and ReLU, and the connector ends without one.",
    )

    def __init__(self, dims: Dims, *, ce: float, kd: float, tau: float, fm: float, sr: float) -> None:
        super().__init__(dims)
        self.ce, self.kd, self.tau, self.fm, self.sr = ce, kd, tau, fm, sr
        self.last = dims.teacher.n_stages
        self.connector = Connector(dims.student.feats[-1][0], dims.teacher.feats[-1][0], relu=dims.teacher.relu[-1])

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        fs, ft = match_sizes(s.feats[-1], t.feats[-1])
        f = self.connector(fs)
        terms = {
            "ce": self.ce * cross_entropy(s.logits, y).mean(),
            "fm": self.fm * feature_statistics(f, ft).mean(),
            "sr": self.sr * softmax_regression(t.tail(self.last, f), t.logits).mean(),
        }
        if self.kd:
            terms["kd"] = self.kd * kd_loss(s.logits, t.logits, tau=self.tau).mean()
        return terms

    @classmethod
    def check(cls, dims: Dims) -> None:
        require_stages("srrl", dims)
