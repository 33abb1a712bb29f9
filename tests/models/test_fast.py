"""The forms of a network that compute faster give what the network gives."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from bench.models import Network, build, names
from bench.models.fast import folded_copy, use_fast_layout
from tests.models.test_networks import LIGHT, images, lively

ON_AVX2 = """
import torch
from torch import nn
from bench.models import build
from bench.models.fast import use_fast_layout

def gradients(conv, x, layout):
    x, weight = (t.detach().clone(memory_format=layout).requires_grad_() for t in (x, conv.weight))
    conv._conv_forward(x, weight, conv.bias).square().sum().backward()
    return x.grad, weight.grad

for name in ("resnet8", "resnet8w8", "resnet8w4", "resnet8w3", "wrn_10_1", "MobileNetV2", "ShuffleV1", "ShuffleV2"):
    network = build(name, size=16, n_classes=7)
    use_fast_layout(network)
    seen = []
    for m in network.modules():
        if isinstance(m, nn.Conv2d):
            m.register_forward_hook(lambda m, inputs, out: seen.append((m, inputs[0])))
    stem = network(torch.randn(8, 3, 16, 16)).feats[0]
    fast = not stem.is_contiguous()
    assert fast == (name not in ("resnet8w4", "resnet8w3")), name
    for conv, x in seen if fast else []:
        for p, q in zip(*(gradients(conv, x, to) for to in (torch.contiguous_format, torch.channels_last))):
            assert (q - p).abs().max() <= 1e-4 * p.abs().max(), (name, conv)
"""


@torch.no_grad()
def shows_channels_last(network: Network) -> bool:
    return not network(torch.zeros(2, 3, network.size, network.size)).feats[0].is_contiguous()


@pytest.mark.parametrize(
    ("name", "fast"), [("resnet20", True), ("resnet8w8", True), ("resnet8w4", False), ("vgg8", False)]
)
def test_layout_by_the_network_alone(name: str, fast: bool) -> None:
    """Four channels into a strided 1x1 convolution are not safe; VGG is slower in it."""
    network = build(name, size=16, n_classes=7)
    use_fast_layout(network)
    assert shows_channels_last(network) is fast


def test_gradients_are_those_of_the_standard_layout_without_avx512() -> None:
    """On AVX2, oneDNN 3.12 writes past its buffers in some channels_last convolutions: the rule keeps clear of them."""
    old = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", ON_AVX2], env=old, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("name", names())
@torch.no_grad()
def test_a_folded_copy_shows_the_same_taps(name: str) -> None:
    network = lively(name, size=16, n_classes=7).float().eval()
    before = {key: t.clone() for key, t in network.state_dict().items()}
    folded = folded_copy(network)
    x = images(network).float()
    a, b = network(x), folded(x)
    for p, q in zip(
        (a.logits, a.pooled, *a.feats, *a.preacts), (b.logits, b.pooled, *b.feats, *b.preacts), strict=True
    ):
        assert (p is None) == (q is None)
        if p is not None and q is not None:
            torch.testing.assert_close(q, p, rtol=0, atol=1e-5 * float(p.abs().max()))
    norms = [m for m in folded.modules() if isinstance(m, nn.BatchNorm2d)]
    n_left = sum("forward" not in vars(m) for m in norms)
    assert n_left == (
        (len(norms) + 1) // 2 if name.startswith("wrn") else 0
    )  # a wide network's stand before convolutions
    assert all(torch.equal(t, before[key]) for key, t in network.state_dict().items())


class _ShowsConvolution(Network):
    """Its first map is a convolution's own answer, which a folded one does not give."""

    def __init__(self) -> None:
        super().__init__("shows", 3, 8, 5, relu=(False, True))
        self.conv, self.bn, self.fc = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Linear(8, 5)
        self.bn.running_mean = torch.randn(8)

    def stem(self, x: Tensor) -> tuple[Tensor, None]:
        return self.conv(x), None

    def stage(self, i: int, f: Tensor) -> tuple[Tensor, None]:
        return self.bn(f).relu(), None

    def head(self, f: Tensor) -> tuple[Tensor, Tensor]:
        return self.fc(f.mean((2, 3))), f.mean((2, 3))


def test_a_convolution_whose_own_answer_is_a_tap_stays() -> None:
    network, x = _ShowsConvolution().eval(), torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(folded_copy(network)(x).feats, network(x).feats)


def test_a_network_that_cannot_be_tried_answers_itself() -> None:
    network = build("resnet8", size=16, n_classes=7).eval()

    class Narrow(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if x.dtype != torch.float32:
                raise TypeError("float32 alone")
            return x

    network.add_module("conv1", nn.Sequential(network.get_submodule("conv1"), Narrow()))
    assert folded_copy(network) is network


@pytest.mark.parametrize("name", LIGHT)
def test_a_copy_of_the_state_goes_both_ways(name: str) -> None:
    """States, checkpoints and exported students know nothing of the layout."""
    fast, plain = build(name, size=16, n_classes=7), build(name, size=16, n_classes=7)
    use_fast_layout(fast)
    plain.load_state_dict(copy.deepcopy(fast.state_dict()))
    x = images(plain).float()
    torch.testing.assert_close(plain.eval()(x).logits, fast.eval()(x).logits, rtol=1e-4, atol=1e-4)
