"""What runs on a GPU stays there: no mix of devices and no wait for the host, asked on a machine without one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

import methods
from bench import data as datasets
from bench import models
from bench.data import augment, strong
from bench.data.spec import DigitsSpec
from bench.models.base import Network
from bench.seeds import fork_rng, generator
from bench.suite.protocol import Protocol
from bench.training.clock import Clock
from bench.training.cohort import Cohort
from bench.training.evaluate import logits_of, metrics, unaugmented_batches
from bench.training.member import Member
from bench.training.rng import MemberRNG
from methods.base import Dims, Method, NetDims, NetworkView, Progress
from methods.kd import KD
from tests.training.no_gpu import NoGpu

GPU = torch.device("cuda")
DIGITS = DigitsSpec(source="digits", train=90, validation=60, test=100)
PROTOCOL = Protocol(epochs=4, batch_size=16, precision="bfloat16")
ONE_OF_EACH = (
    *("resnet8x4", "ResNet50", "wrn_16_1", "vgg8", "MobileNetV2", "ShuffleV1", "ShuffleV2"),
    *("torchvision/resnet18", "timm/resnet18"),
)
MODE = NoGpu()  # one for all: it remembers what shapes an operation gives


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A device "cuda" that runs forward passes and optimisers. What asks the driver is answered without it.

    No generator of "cuda" can be made without a driver, so a member's stream is one of the CPU: on the device that a
    method names, it draws numbers without values, and those need no seed.
    """
    monkeypatch.setattr(
        "bench.training.member.MemberRNG", lambda device, *parts: MemberRNG(torch.device("cpu"), *parts)
    )
    monkeypatch.setattr("bench.training.cohort.Clock", lambda device: Clock(torch.device("cpu")))
    monkeypatch.setattr(Member, "contain_errors", lambda member, when, alone: nullcontext())  # an error ends the test
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)
    kept = (augment._scale_and_shift, augment._fill_colour)  # a later test must not be given tensors without values
    for function in kept:
        function.cache_clear()
    with MODE:
        yield
    for function in kept:
        function.cache_clear()


@cache
def digits(device: str) -> datasets.Data:
    return datasets.load(DIGITS, torch.device(device))


@cache
def teacher() -> tuple[NetDims, Network]:
    network = build("resnet14w4").requires_grad_(False).eval()
    return network.dims(), network.to(GPU)


def build(name: str) -> Network:
    with fork_rng("devices"):
        return models.build(name, in_channels=1, size=8, n_classes=10)


def cohort_of(kind: type[Method]) -> Cohort:
    """One student on the device; its method is made before, since it may read while it is made."""
    student, (taught, network), y = build("resnet8w4"), teacher(), digits("cpu").train.y
    method = kind(Dims(student.dims(), taught, 10, 16, y, lambda: (0.1, 0.4, 0.3, 0.2)), **kind.resolve(""))
    member = Member(kind.name(), student, method, PROTOCOL, GPU, "devices")
    member.train_step.memory = 1  # it is counted by addresses, which these tensors have none of
    return Cohort(digits("cuda"), PROTOCOL, network, [member], 0)


def take_steps(cohort: Cohort, patch: pytest.MonkeyPatch) -> None:
    """A step with zero gradients in the last epoch, and where another loss comes earlier, one with that."""
    (member,) = cohort.members

    def backward(loss: Tensor, **_: Any) -> None:
        assert loss.device.type == "cuda" and loss.requires_grad
        for p in (p for group in member.train_step.optimizer.param_groups for p in group["params"]):
            p.grad = torch.zeros_like(p)

    patch.setattr(Tensor, "backward", backward)
    for epoch in [*range(-member.pretrain_epochs + 1, 1), *([1] if member.method.ramp_end else []), PROTOCOL.epochs]:
        member.epoch = epoch - 1
        batch = next(cohort.data.batches(0, 1, member.needs.views, 16))
        cohort.step([member], batch, epoch)


@pytest.mark.parametrize("name", methods.names())
def test_no_step_and_no_prediction_waits(name: str, gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    cohort = cohort_of(methods.get(name))
    take_steps(cohort, monkeypatch)
    (member,) = cohort.members
    kinds = set[torch.dtype]()
    member.network.register_forward_hook(lambda _, x, out: kinds.add(out.logits.dtype))
    member.train(False)
    logits = logits_of(lambda x: member.predict(x, cohort.teacher), cohort.data.validation, cohort.data, 60)
    assert logits.device.type == "cuda" and logits.shape == (60, 10) and kinds == {torch.bfloat16}


class Mixing(KD):
    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        return {"ce": (s.logits * torch.ones(s.logits.shape[1])).mean()}


class Asking(KD):
    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        terms = super().loss(s, t, y, at)
        return {**terms, "kd": terms["kd"] / terms["kd"].item()}


class Choosing(KD):
    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        return {"ce": s.logits[y > 2].mean()}


class Fetching(KD):
    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        counts = y.cpu().bincount(minlength=10)
        return {"ce": (s.logits * counts.to(y.device)).mean()}


@pytest.mark.parametrize(
    ("kind", "says"),
    [(Mixing, "cuda:0.*cpu"), (Asking, "_local_scalar_dense"), (Choosing, "nonzero"), (Fetching, "to the host")],
)
def test_a_method_that_waits_is_found(kind: type[KD], says: str, gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    cohort = cohort_of(kind)
    with pytest.raises(Exception, match=says):
        take_steps(cohort, monkeypatch)


def test_a_harness_that_waits_is_found(gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    cohort = cohort_of(KD)
    monkeypatch.setattr(Member, "_count", lambda member, terms, n: terms["ce"].tolist())
    with pytest.raises(Exception, match="_local_scalar_dense"):
        take_steps(cohort, monkeypatch)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("view", augment.VIEWS)
def test_no_view_waits(view: str, channels: int, gpu: None) -> None:
    n = 20 * len(strong.OPS)
    params = augment.draw_view(view, n, 8, generator(view), pad=1, flip=True)
    assert params.op is None or len(params.op.unique()) == len(strong.OPS)
    x = torch.zeros(n, channels, 8, 8, dtype=torch.uint8, device=GPU)
    out = augment.apply_view(x, params, (0.5,) * channels, (0.5,) * channels)
    assert out.device.type == "cuda" and out.shape == x.shape


OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in models.names() if name not in ONE_OF_EACH]


@pytest.mark.parametrize("name", [*ONE_OF_EACH, *OTHERS])
def test_no_network_waits(name: str, gpu: None) -> None:
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    net = models.build(name, n_classes=7).to(GPU)
    x = torch.zeros(4, 3, 32, 32, device=GPU)
    out = net(x)
    answers = out.logits, net.tail(0, out.feats[0], batch_stats=True), net.eval()(x).logits
    assert all(logits.device.type == "cuda" and logits.shape == (4, 7) for logits in answers)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many numbers each list held that the host asked the device for; it gets zeros."""
    lengths: list[int] = []

    def tolist(values: Tensor) -> list[float]:
        lengths.append(len(values))
        return [0.0] * len(values)

    monkeypatch.setattr(FakeTensor, "tolist", tolist)
    return lengths


def test_an_evaluation_reads_once(gpu: None, asked: list[int]) -> None:
    data = digits("cuda")
    images = list(unaugmented_batches(data.test, data, 30))
    assert [len(x) for x in images] == [30, 30, 30, 10] and {x.device.type for x in images} == {"cuda"}
    logits = torch.zeros(100, 20, device=GPU)
    assert len(metrics(logits, data.test.y, logits)) == 6 and asked == [6]


def test_an_epoch_reads_once(gpu: None, asked: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    cohort = cohort_of(KD)
    take_steps(cohort, monkeypatch)
    assert asked == []
    metrics_of_epoch: dict[str, float] = {}
    cohort.members[0].end_epoch(metrics_of_epoch, {})
    assert {"train/loss", "train/loss_ce", "train/loss_kd"} <= metrics_of_epoch.keys() and asked == [3]
