"""What holds of every network: tails, dims, BatchNorm statistics, sizes, names, initial weights."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from bench.errors import UserError
from bench.models import Network, build, names, state_hash
from bench.models.adapted import is_rectified

SMALL = (  # one of each family, the lightest first
    *("resnet8", "resnet8x4", "resnet8w4", "ResNet18", "ResNet50", "wrn_16_1", "wrn_10_2", "vgg8", "vgg13"),
    *("MobileNetV2", "ShuffleV1", "ShuffleV2"),
)
LIGHT = ("resnet8w4", "wrn_10_1", "vgg8", "MobileNetV2", "ShuffleV1", "ShuffleV2")


def lively(name: str, size: int = 32, n_classes: int = 100) -> Network:
    """The network in float64 with running statistics and affine terms that are not the trivial ones."""
    torch.manual_seed(0)
    net = build(name, size=size, n_classes=n_classes).double()
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            assert m.running_mean is not None and m.running_var is not None
            m.running_mean.normal_(0, 0.1)
            m.running_var.uniform_(0.8, 1.2)
            nn.init.normal_(m.bias, 0, 0.1)
    return net


def images(net: Network, b: int = 2) -> Tensor:
    return torch.randn(b, net.in_channels, net.size, net.size, generator=torch.Generator().manual_seed(1)).double()


def snapshot(net: nn.Module) -> dict[str, Tensor]:
    return {name: t.clone() for name, t in net.state_dict().items()}


def unchanged(net: nn.Module, before: dict[str, Tensor]) -> bool:
    return all(torch.equal(t, before[name]) for name, t in net.state_dict().items())


def test_there_are_23() -> None:
    assert len(set(names())) == 23


@pytest.mark.parametrize("name", names())
@torch.no_grad()
def test_tails_give_the_logits(name: str) -> None:
    net = lively(name, size=16, n_classes=7).eval()
    out = net(images(net))
    for i, f in enumerate(out.feats):
        maps: list[torch.Tensor] = []
        torch.testing.assert_close(net.tail(i, f, maps=maps), out.logits, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(tuple(maps), out.feats[i + 1 :], rtol=1e-12, atol=1e-12)
    for bad in (-1, net.n_stages + 1):
        with pytest.raises(ValueError, match="there are 0 to"):
            net.tail(bad, out.feats[0])


@pytest.mark.parametrize("name", names())
def test_dims_are_the_shapes_and_change_nothing(name: str) -> None:
    net = build(name, in_channels=1, size=8, n_classes=4)
    first = next(net.children())
    first.eval()  # a mode of its own must survive
    before, modes = snapshot(net), [m.training for m in net.modules()]
    rng = torch.get_rng_state()
    dims = net.dims()
    assert unchanged(net, before) and modes == [m.training for m in net.modules()]
    assert torch.equal(rng, torch.get_rng_state())
    with torch.no_grad():
        out = net.eval()(torch.zeros(3, 1, 8, 8))
    assert dims.feats == tuple(tuple(f.shape[1:]) for f in out.feats) and dims.n_stages == net.n_stages
    assert dims.preacts == tuple(None if p is None else tuple(p.shape[1:]) for p in out.preacts)
    assert dims.pooled == out.pooled.shape[1] and dims.relu == net.relu and out.logits.shape == (3, 4)


@pytest.mark.parametrize("name", SMALL)
def test_relu_flags_and_preacts(name: str) -> None:
    net = lively(name, size=16)
    out = net.eval()(images(net).requires_grad_())
    assert net.relu == tuple(is_rectified(f) for f in out.feats)
    for f, p, relu in list(zip(out.feats, out.preacts, net.relu, strict=True))[1:]:
        if relu and p is not None:
            assert torch.equal(p.relu(), f) and p.min() < 0


@pytest.mark.parametrize("name", SMALL)
def test_running_statistics_move_once_per_forward(name: str) -> None:
    net = build(name, size=16)
    net.train()(torch.randn(4, 3, 16, 16)).logits.sum().backward()
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and all(int(m.num_batches_tracked or 0) == 1 for m in norms)
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize("name", LIGHT)
@pytest.mark.parametrize("train", [False, True])
def test_batch_statistics_leave_the_state_alone(name: str, train: bool) -> None:
    net = lively(name, size=16).train(train)
    with torch.no_grad():
        f = copy.deepcopy(net).train()(images(net, 4)).feats[1]
        logits = copy.deepcopy(net).train().tail(1, f)
    before, modes = snapshot(net), [m.training for m in net.modules()]
    f = f.requires_grad_()
    got = net.tail(1, f, batch_stats=True)
    torch.testing.assert_close(got, logits, rtol=1e-12, atol=1e-12)
    assert unchanged(net, before) and modes == [m.training for m in net.modules()]
    assert all(m.track_running_stats for m in net.modules() if isinstance(m, nn.BatchNorm2d))
    got.square().sum().backward()
    assert f.grad is not None and f.grad.abs().max() > 0
    with pytest.raises(RuntimeError, match=r"channels|elements"):
        net.tail(1, torch.zeros(2, 5, 4, 4).double(), batch_stats=True)
    assert unchanged(net, before) and modes == [m.training for m in net.modules()]


@pytest.mark.parametrize("name", LIGHT)
def test_gradient_reaches_every_tap_through_its_tail(name: str) -> None:
    net = lively(name, size=16).eval()
    for i, f in enumerate(net(images(net)).feats):
        f = f.detach().requires_grad_()
        kept = f.detach().clone()
        net.tail(i, f).square().sum().backward()
        assert f.grad is not None and f.grad.abs().max() > 0 and torch.equal(f, kept)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(("channels", "size"), [(1, 8), (1, 28), (3, 64), (3, 1)])
@torch.no_grad()
def test_sizes(name: str, channels: int, size: int) -> None:
    net = build(name, in_channels=channels, size=size, n_classes=5).eval()
    out = net(torch.randn(2, channels, size, size))
    assert out.logits.shape == (2, 5) and out.logits.isfinite().all()
    assert (net.in_channels, net.size, net.n_classes, net.arch) == (channels, size, 5, name)


def test_parametrised_widths() -> None:
    assert [f[0] for f in build("resnet8w4").dims().feats] == [4, 4, 8, 16]
    assert [f[0] for f in build("resnet14x2").dims().feats] == [16, 32, 64, 128]
    assert [f[0] for f in build("wrn_10_3").dims().feats] == [16, 48, 96, 192]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("resnet21", "6n\\+2.*20 and 26"),
        ("resnet2", "8 and 14"),
        ("resnet34", "32 and 38; ImageNet's is torchvision/resnet34"),
        ("resnet21x4", "20 and 26"),
        ("wrn_17_2", "6n\\+4.*16 and 22"),
        ("wrn_4_2", "10 and 16"),
        ("resnet8x0", "no network"),
        ("ResNet34", "did you mean 'ResNet"),
        ("Vgg13", "did you mean 'vgg13'"),
        ("", "no network ''"),
    ],
)
def test_wrong_names(name: str, says: str) -> None:
    with pytest.raises(UserError, match=says) as error:
        build(name)
    assert "\n" not in str(error.value)


def test_wrong_inputs() -> None:
    for kind in ({"size": 0}, {"in_channels": -1}, {"n_classes": 0}, {"size": 8.0}, {"n_classes": True}):
        with pytest.raises(UserError, match="whole number from 1"):
            build("resnet8", **kind)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="no packaged weights"):
        build("resnet8", pretrained=True)


def test_weights_come_from_the_global_generator_alone() -> None:
    hashes = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        hashes.append(state_hash(build("ShuffleV2", n_classes=10)))
    assert hashes[0] == hashes[1] != hashes[2] and len(hashes[0]) == 64


def test_initial_spread() -> None:
    torch.manual_seed(0)
    for name in ("resnet8", "wrn_16_1", "vgg8", "MobileNetV2"):
        for m in build(name).modules():
            if isinstance(m, nn.Conv2d) and m.groups == 1 and m.weight.numel() > 5000:
                want = math.sqrt(2 / (m.kernel_size[0] * m.kernel_size[1] * m.out_channels))
                assert m.weight.std().item() == pytest.approx(want, rel=0.05)
            elif isinstance(m, nn.Linear) and name in ("vgg8", "MobileNetV2"):
                assert m.weight.std().item() == pytest.approx(0.01, rel=0.05) and not m.bias.any()


def test_state_hash_sees_everything_but_the_device() -> None:
    net = build("resnet8w4")
    first = state_hash(net)
    assert first == state_hash(copy.deepcopy(net)) != state_hash(copy.deepcopy(net).half())
    buffer = next(b for b in net.buffers() if b.dtype == torch.int64)
    buffer += 1
    assert state_hash(net) != first
