"""FitNets: regress a middle feature map of the student onto the teacher's."""

from __future__ import annotations

from torch import Tensor, nn

from methods.adapters import BatchNorm, Size, is_double, require_stages, shrink, smaller
from methods.base import Dims, Float, Int, Method, Needs, NetworkView, Paper, Progress, Recipe, Refusal, Shape
from methods.functional import cross_entropy


def fitnet_loss(fs: Tensor, ft: Tensor) -> Tensor:
    """Mean squared difference of two maps. fs, ft: [B, D, H, W] float → [B]. arXiv 1412.6550, §2."""
    return (fs - ft).square().flatten(1).mean(dim=1)


class Regressor(nn.Module):
    """conv → BN (→ ReLU) from the student's shape to the teacher's.

    Halves or doubles by a strided or transposed convolution; shrinks by a valid convolution with a kernel of
    1 + H_s - H_t (1x1 for equal sizes). Where the teacher's map is larger by another factor, its map is pooled.
    """

    def __init__(self, student: Shape, teacher: Shape, *, relu: bool = True) -> None:
        super().__init__()
        (c_s, *hw_s), (c_t, *hw_t) = student, teacher
        hs, ht = (hw_s[0], hw_s[1]), (hw_t[0], hw_t[1])
        self.size: Size = smaller(hs, ht)  # where neither map is reached by a convolution, both are pooled to this
        self.conv: nn.Module
        if is_double(hs, ht):
            self.conv = nn.Conv2d(c_s, c_t, 3, stride=2, padding=1)
        elif is_double(ht, hs):
            self.conv, self.size = nn.ConvTranspose2d(c_s, c_t, 4, stride=2, padding=1), ht
        elif hs[0] >= ht[0] and hs[1] >= ht[1]:
            self.conv = nn.Conv2d(c_s, c_t, (1 + hs[0] - ht[0], 1 + hs[1] - ht[1]))
        else:
            self.conv = nn.Conv2d(c_s, c_t, 3, padding=1)
        self.bn, self.relu = BatchNorm(c_t), relu

    def forward(self, fs: Tensor) -> Tensor:
        f = self.bn(self.conv(fs))
        return shrink(f.relu() if self.relu else f, self.size)


class FitNet(Method):
    paper = Paper(
        title="FitNets: Hints for Thin Deep Nets",
        authors="Romero, Ballas, Kahou, Chassang, Gatta, Bengio",
        venue="ICLR",
        year=2015,
        url="https://arxiv.org/abs/1412.6550",
        code="github.com/HobbitLong/RepDistiller @ b84f547 distiller_zoo/FitNet.py",
        licence="BSD-2-Clause",
    )
    needs = Needs(taps=("logits", "feats"))
    space = {
        "ce": Float(0.0, 1.0, tune=False),
        "mse": Float(1.0, 1000.0, log=True),
        "hint": Int(1, 5, tune=False),  # the stage that is regressed, in both networks
    }
    recipes = {
        "paper": Recipe(
            values={"ce": 1.0, "mse": 100.0, "hint": 2},
            source="RepDistiller @ b84f547 scripts/run_cifar_distill.sh, train_student.py (one joint stage)",
            selection="last-epoch",
            reported={
                "cifar100/wrn_40_2->wrn_16_2": 73.58,
                "cifar100/wrn_40_2->wrn_40_1": 72.24,
                "cifar100/resnet56->resnet20": 69.21,
                "cifar100/resnet110->resnet20": 68.99,
                "cifar100/resnet110->resnet32": 71.06,
                "cifar100/resnet32x4->resnet8x4": 73.50,
                "cifar100/vgg13->vgg8": 71.02,
                "cifar100/vgg13->MobileNetV2": 64.14,
                "cifar100/ResNet50->MobileNetV2": 63.16,
                "cifar100/ResNet50->vgg8": 70.69,
                "cifar100/resnet32x4->ShuffleV1": 73.59,
                "cifar100/resnet32x4->ShuffleV2": 73.54,
                "cifar100/wrn_40_2->ShuffleV1": 73.73,
            },
        ),
    }
    deviations = (
        "The paper trains in two stages, the hint first and distillation after it; like the reference code, we train"
        " hint and labels jointly in one stage, without the KL term.",
        "The regressor ends in a ReLU as in the reference code, also where the teacher's map is not the output of a"
        " ReLU (wide residual networks, MobileNetV2) and its negative values cannot be reached.",
        "Where the teacher's map is larger by another factor than 2, the reference code has no regressor; we convolve"
        " 3x3 and pool the teacher's map, as the SimKD repository does.",
        "A batch of one example on a 1x1 map is normalised by running statistics, where the reference code stops.",
    )

    def __init__(self, dims: Dims, *, ce: float, mse: float, hint: int) -> None:
        super().__init__(dims)
        stages = min(dims.student.n_stages, dims.teacher.n_stages)
        if hint > stages:
            raise Refusal(f"fitnet.hint is {hint}; this pair has stages 1 to {stages} in common")
        self.ce, self.mse, self.hint = ce, mse, hint
        self.regressor = Regressor(dims.student.feats[hint], dims.teacher.feats[hint])

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        ft = shrink(t.feats[self.hint], self.regressor.size)
        return {
            "ce": self.ce * cross_entropy(s.logits, y).mean(),
            "mse": self.mse * fitnet_loss(self.regressor(s.feats[self.hint]), ft).mean(),
        }

    @classmethod
    def check(cls, dims: Dims) -> None:
        require_stages("fitnet", dims)
