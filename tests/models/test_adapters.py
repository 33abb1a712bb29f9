"""torchvision and timm classifiers: the same taps, or one line that says why not."""

import copy
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from bench.errors import UserError
from bench.models import build, load_state, state_hash

CHEAP = ("torchvision/resnet18", "torchvision/mobilenet_v2", "torchvision/shufflenet_v2_x0_5")


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("torchvision/resnet18", [64, 64, 128, 256, 512]),
        ("torchvision/mobilenet_v2", [16, 24, 32, 96, 1280]),
        ("torchvision/vgg11_bn", [64, 128, 256, 512, 512]),
        ("torchvision/densenet121", [64, 128, 256, 512, 1024]),
        ("torchvision/swin_t", [96, 192, 384, 768]),
        ("timm/resnet18", [64, 64, 128, 256, 512]),
        ("timm/convnext_atto", [40, 40, 80, 160, 320]),
        ("torchvision/squeezenet1_1", [64, 128, 256, 512]),
        ("timm/levit_128s", [128, 128, 256, 384]),
        ("timm/ghostnet_050", [8, 12, 20, 56, 480]),
        ("timm/test_vit", [2 * 64] * 5),  # patches, and the class token in every place
        ("timm/test_vit_relpos", [96] * 5),  # no class token
        ("timm/deit_tiny_distilled_patch16_224", [3 * 192] * 5),
    ],
)
def test_taps_and_tails(name: str, channels: list[int]) -> None:
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    torch.manual_seed(0)
    net = build(name, size=32, n_classes=7)
    assert net.training
    before = {k: t.clone() for k, t in net.state_dict().items()}
    assert [f[0] for f in net.dims().feats] == channels and net.dims().relu == net.relu
    assert all(torch.equal(t, before[k]) for k, t in net.state_dict().items())
    large = name == "torchvision/vgg11_bn"  # 129 million parameters: slow to widen
    net.eval().to(torch.float32 if large else torch.float64)
    net.requires_grad_(False)
    x = torch.randn(2, 3, 32, 32, dtype=torch.float32 if large else torch.float64)
    eps = 1e-5 if large else 1e-12
    out = net(x)
    assert out.logits.shape == (2, 7) and len(out.preacts) == len(channels)
    torch.testing.assert_close(out.logits, net.net(x), rtol=eps, atol=eps)  # type: ignore[operator]
    for i, f in enumerate(out.feats):
        f = f.detach().requires_grad_()
        logits = net.tail(i, f)
        torch.testing.assert_close(logits, out.logits, rtol=eps, atol=eps)
        logits.square().sum().backward()
        assert f.grad is not None and f.grad.abs().max() > 0


@pytest.mark.parametrize("name", CHEAP)
def test_statistics_move_once_and_not_at_all_with_the_batch_s(name: str) -> None:
    net = build(name, in_channels=1, size=32, n_classes=4)
    f = net(torch.randn(4, 1, 32, 32)).feats[1].detach()
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and all(int(m.num_batches_tracked or 0) == 1 for m in norms)
    before = state_hash(net)
    assert net.tail(1, f, batch_stats=True).shape == (4, 4) and state_hash(net) == before


def test_a_copy_stands_alone() -> None:
    net = build("torchvision/resnet18", n_classes=3).eval()
    twin = copy.deepcopy(net)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
        assert not net(x).logits.any() and twin(x).logits.any()


def test_the_library_s_own_state_loads(tmp_path) -> None:  # type: ignore[no-untyped-def]
    net, other = (build("torchvision/shufflenet_v2_x0_5", n_classes=3) for _ in range(2))
    torch.save(net.net.state_dict(), tmp_path / "x.pth")  # type: ignore[union-attr,operator]
    load_state(other, tmp_path / "x.pth")
    assert state_hash(other) == state_hash(net)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("torchvision/resnet18", [False, True, True, True, True]),  # the stem's map is a max-pool's
        ("timm/test_resnet", [False, True, True, True, True]),
        ("torchvision/resnet50", [False, True, True, True, True]),
        ("timm/mobilenetv1_100", [True] * 5),
        ("torchvision/mobilenet_v2", [False, False, False, False, True]),  # linear bottlenecks
    ],
)
def test_maps_before_their_relu(name: str, shown: list[bool]) -> None:
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    torch.manual_seed(0)
    net = build(name, size=64, n_classes=3)
    twin = copy.deepcopy(net).eval()
    net.eval()
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.normal_(m.bias)
    x = torch.randn(2, 3, 64, 64)
    out, dims = net(x), net.dims()
    assert [p is not None for p in out.preacts] == shown == [n is not None for n in dims.norms]
    for i, (p, f) in enumerate(zip(out.preacts, out.feats, strict=True)):
        if p is not None:
            assert net.relu[i] and p.min() < 0
            assert torch.equal(torch.clamp(p, 0, 6 if "mobilenet" in name else None), f)
            norm = net.norms()[i]
            assert norm is not None and norm.num_features == f.shape[1]
    assert not [n for m in net.modules() for n in vars(m) if n.startswith("caught")]  # no graph is held
    assert not torch.equal(twin(x).logits, out.logits)


def test_the_last_norm_of_a_residual_block_is_that_before_the_sum() -> None:
    net = build("torchvision/resnet18", n_classes=3)
    assert [id(n) for n in net.norms()[1:]] == [
        id(getattr(net.net, f"layer{i}")[1].bn2)  # type: ignore[union-attr]
        for i in range(1, 5)
    ]


def test_a_fixed_size_is_built_at_the_data_s() -> None:
    pytest.importorskip("timm")
    assert build("timm/deit_tiny_patch16_224", size=48).dims().feats[0] == (2 * 192, 3, 3)
    assert build("torchvision/vit_b_16", size=32).dims().feats[0] == (2 * 768, 2, 2)


@pytest.mark.parametrize("name", ["timm/levit_128s", "timm/test_vit", "torchvision/resnet18"])
def test_what_is_loaded_answers(name: str, tmp_path: Path) -> None:
    """Nothing is left of the first weights, with which the network was checked."""
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    a, b = (build(name, size=32, n_classes=3) for _ in range(2))
    for net in (a, b):
        net.dims()
    torch.save(a.net.state_dict(), tmp_path / "a.pth")  # type: ignore[union-attr,operator]
    load_state(b, tmp_path / "a.pth")
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(a.eval()(x).logits, b.eval()(x).logits)


def test_building_draws_weights_and_nothing_else() -> None:
    import torchvision

    torch.manual_seed(3)
    net = build("torchvision/mobilenet_v2", n_classes=5)
    after = torch.rand(1)
    torch.manual_seed(3)
    plain = torchvision.models.mobilenet_v2(num_classes=5)
    assert torch.equal(after, torch.rand(1))
    assert state_hash(net.net) == state_hash(plain)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "size", "says"),
    [
        ("torchvision/vgg11_bn", 16, r"16x16 .*32x32"),
        ("torchvision/resnet19", 32, "'resnet19'; did you mean 'resnet1"),
        ("timm/resnet19", 32, "'resnet19'; did you mean"),
        ("timm/vit_tiny_patch16_224", 8, r"cannot take 8x8 images; set data\.size"),
        ("torchvision/", 32, "no torchvision network ''"),
    ],
)
def test_refusals(name: str, size: int, says: str) -> None:
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    with pytest.raises(UserError, match=says) as error:
        build(name, size=size)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_timm_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"pip install kdbench\[timm\]"):
        build("timm/resnet18")
