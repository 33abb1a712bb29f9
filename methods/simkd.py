"""SimKD: project the student's last map onto the teacher's, and let the teacher's classifier answer."""

from __future__ import annotations

from torch import Tensor, nn

from methods.adapters import BatchNorm, match_sizes, require_stages
from methods.base import Dims, Float, Int, Method, Needs, NetworkView, Paper, Progress, Recipe
from methods.fitnet import fitnet_loss


class Projector(nn.Module):
    """1x1 → 3x3 → 1x1 convolutions without bias, each with BN and ReLU; the middle is C_t / factor wide.

    `relu`: end in a ReLU, as the maps that are matched do.
    """

    def __init__(self, n_in: int, n_out: int, factor: int, *, relu: bool) -> None:
        super().__init__()
        mid = max(1, n_out // factor)
        self.conv1, self.bn1 = nn.Conv2d(n_in, mid, 1, bias=False), BatchNorm(mid)
        self.conv2, self.bn2 = nn.Conv2d(mid, mid, 3, padding=1, bias=False), BatchNorm(mid)
        self.conv3, self.bn3 = nn.Conv2d(mid, n_out, 1, bias=False), BatchNorm(n_out)
        self.relu = relu

    def forward(self, f: Tensor) -> Tensor:
        f = self.bn2(self.conv2(self.bn1(self.conv1(f)).relu())).relu()
        f = self.bn3(self.conv3(f))
        return f.relu() if self.relu else f


class SimKD(Method):
    paper = Paper(
        title="Knowledge Distillation with the Reused Teacher Classifier",
        authors="Chen, Mei, Zhang, Wang, Feng, Chen",
        venue="CVPR",
        year=2022,
        url="https://arxiv.org/abs/2203.14001",
        code="github.com/DefangChen/SimKD @ 2b389c3 models/util.py",
        licence="-",
    )
    needs = Needs(taps=("feats", "tail"), tails=("teacher",))
    space = {"mse": Float(0.01, 100.0, log=True), "factor": Int(1, 16, tune=False)}
    recipes = {
        "paper": Recipe(
            values={"mse": 1.0, "factor": 2},
            source="SimKD @ 2b389c3 scripts, models/util.py",
            selection="best-epoch-on-test",
            reported={
                "cifar100/resnet32x4->resnet8x4": 78.08,
                "cifar100/resnet32x4->vgg8": 75.76,
                "cifar100/resnet32x4->ShuffleNetV2_1.5x": 79.54,
            },
        ),
    }
    deviations = (
        "The teacher's classifier is its head behind the last stage; where that map is no ReLU's output (wide residual"
        " networks), the head begins with BatchNorm and ReLU, and the projector ends without one.",
    )

    def __init__(self, dims: Dims, *, mse: float, factor: int) -> None:
        super().__init__(dims)
        self.mse, self.last, self.teacher = mse, dims.teacher.n_stages, dims.teacher.feats[-1]
        self.projector = Projector(dims.student.feats[-1][0], self.teacher[0], factor, relu=dims.teacher.relu[-1])

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        fs, ft = match_sizes(s.feats[-1], t.feats[-1])
        return {"mse": self.mse * fitnet_loss(self.projector(fs), ft).mean()}

    def predict(self, s: NetworkView, t: NetworkView) -> Tensor:
        like = s.feats[-1].new_zeros(1, 1, *self.teacher[1:])
        return t.tail(self.last, self.projector(match_sizes(s.feats[-1], like)[0]))

    @classmethod
    def check(cls, dims: Dims) -> None:
        require_stages("simkd", dims)
