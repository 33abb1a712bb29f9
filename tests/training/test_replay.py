"""A step that is recorded once and replayed gives what the step gives, so that a GPU can replay it.

Recorded are the operations of forward pass, loss and backward pass; what Python computed stays in the recording as it
was. A recording is replayed on other batches, with other weights, in other epochs of its phase and with other draws.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx import Node
from torch.fx.experimental.proxy_tensor import make_fx

import methods
from bench import data as datasets
from bench import models
from bench.data import Batch, Data
from bench.data.spec import DigitsSpec
from bench.models.base import Network
from bench.seeds import fork_rng
from bench.suite.protocol import Protocol
from bench.training.rng import MemberRNG
from bench.training.step import TrainStep
from methods.base import Dims, Method, NetworkView, Out, Progress
from methods.combine import sum_class
from methods.kd import KD

CPU = torch.device("cpu")
PROTOCOL = Protocol(epochs=240, batch_size=16)  # the published schedule: every ramp has epochs within it
REPLAYS = 5
READS_BACK = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}

Learn = Callable[..., tuple[dict[str, Tensor], list[Tensor]]]


@pytest.fixture(autouse=True)
def quick_recorder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the copies of shapes that nobody here reads, and that take the recorder half its time."""
    monkeypatch.setattr("torch.fx.experimental.proxy_tensor.extract_val", lambda value, **_: None)


@cache
def digits() -> Data:
    return datasets.load(DigitsSpec(source="digits", train=96, validation=60, test=100), CPU)


@cache
def batches() -> list[Batch]:
    out = list(digits().batches(0, 1, ("strong", "weak"), PROTOCOL.batch_size))
    assert len(out) == 1 + REPLAYS
    return out


def build(name: str) -> Network:
    with fork_rng("replay"):
        return models.build(name, in_channels=1, size=8, n_classes=10)


@cache
def teacher() -> Network:
    return build("resnet8w4").requires_grad_(False).eval()  # equal channels: a pair for every method


def step_of(kind: type[Method], network: str) -> TrainStep:
    student = build(network).train()
    dims = Dims(student.dims(), teacher().dims(), 10, 16, digits().train.y, lambda: (0.1, 0.4, 0.3, 0.2))
    with fork_rng("replay", "method"):
        method = kind(dims, **kind.resolve("")).train()
    return TrainStep(student, method, PROTOCOL, CPU, MemberRNG(CPU, "replay"), Counter())


def phases(step: TrainStep) -> dict[tuple[bool, str], list[int]]:
    """Epochs by the phase of training that they belong to."""
    out: dict[tuple[bool, str], list[int]] = {}
    for epoch in range(1 - step.pretrain_epochs, PROTOCOL.epochs + 1):
        name = step.method.phase(epoch, PROTOCOL.epochs) if epoch > 0 else ""
        out.setdefault((epoch < 1, name), []).append(epoch)
    return out


def spread(epochs: list[int]) -> list[int]:
    """From the first to the last, with most of them early, where ramps are."""
    return [epochs[round(len(epochs) ** (k / REPLAYS)) - 1] for k in range(REPLAYS + 1)]


def parameters(step: TrainStep) -> list[torch.nn.Parameter]:
    return [*step.network.parameters(), *step.method.parameters()]


def learner(step: TrainStep, batch: Batch, at: Progress, pretraining: bool) -> Learn:
    """A step up to its optimiser, of what changes from step to step: the loss terms, and every gradient that a backward
    pass gives."""

    def learn(
        views: dict[str, Tensor], y: Tensor, index: Tensor, outputs: dict[str, dict[str, Any]], share: Tensor
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        gradients: list[Any] = []
        handles = [p.register_post_accumulate_grad_hook(lambda p: gradients.append(p.grad)) for p in parameters(step)]
        step.optimizer.zero_grad(set_to_none=True)
        shown = replace(batch, views=views, y=y, index=index)
        now = replace(at, _index=None if at._index is None else index, _share=share)
        answers = {view: Out(**taps) for view, taps in outputs.items()}
        terms = step.forward_backward(shown, answers, teacher(), now, pretraining)
        for handle in handles:
            handle.remove()
        return dict(terms), gradients

    return learn


def changing(step: TrainStep, batch: Batch, epoch: int, pretraining: bool) -> tuple[Progress, tuple[Any, ...]]:
    """Where a step stands, and what a recording of it is given."""
    at, views = step.progress(batch, epoch, pretraining), {v: batch.views[v] for v in step.needs(pretraining).views}
    with torch.no_grad():
        outputs = {view: vars(teacher()(x)) for view, x in views.items()}
    return at, (views, batch.y, batch.index, outputs, at.share)


def reads_back(node: Node) -> bool:
    """Does the operation need a value of the device on the host?"""
    tags = set(getattr(node.target, "tags", ()))
    if "aten.index" in str(node.target):  # its shape depends on values where it is a mask
        return any(i.meta["tensor_meta"].dtype == torch.bool for i in node.all_input_nodes[1:] if i.meta)
    return bool(tags & READS_BACK) or "aten._linalg_" in str(node.target)  # these ask whether they have converged


def check_replay(kind: type[Method], network: str = "resnet8w4", atol: float = 1e-6) -> None:
    """Two equal students, of which one learns by replaying, are equal in all that they compute and remember."""
    eager, replayed = step_of(kind, network), step_of(kind, network)
    for (pretraining, _), epochs in phases(eager).items():
        recording: Learn | None = None
        for batch, epoch in zip(batches(), spread(epochs), strict=True):
            at, given = changing(eager, batch, epoch, pretraining)
            with eager.rng.use(epoch, batch.step):
                expected = learner(eager, batch, at, pretraining)(*given)
            at, given = changing(replayed, batch, epoch, pretraining)
            with replayed.rng.use(epoch, batch.step):
                if recording is None:
                    recording = make_fx(learner(replayed, batch, at, pretraining), _allow_non_fake_inputs=True)(*given)
                    read = [str(node.target) for node in recording.graph.nodes if reads_back(node)]  # type: ignore[attr-defined]
                    assert not read, f"it reads back: {read}"
                else:
                    got = recording(*given)
                    torch.testing.assert_close(got, expected, rtol=1e-6, atol=atol)
            with torch.no_grad():
                for p in (*parameters(eager), *parameters(replayed)):
                    p.mul_(1.01)
    for a, b in ((eager.network, replayed.network), (eager.method, replayed.method)):
        torch.testing.assert_close(a.state_dict(), b.state_dict(), rtol=1e-6, atol=atol)


@pytest.mark.parametrize("name", methods.names())
def test_a_recorded_step_replays(name: str) -> None:
    kind = methods.get(name)
    if not kind.eager_because:
        return check_replay(kind)
    assert len(kind.eager_because.split()) > 3
    with pytest.raises(AssertionError, match="reads back"):  # a declaration that is not needed costs speed
        check_replay(kind)


FAMILIES = ("resnet8x4", "ResNet50", "vgg8", "MobileNetV2", "ShuffleV1", "ShuffleV2")
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in (*FAMILIES, "torchvision/resnet18", "timm/resnet18")]


@pytest.mark.parametrize("name", ["wrn_16_1", *SLOW])
def test_every_family_of_networks_replays(name: str) -> None:
    """Of 8 x 8 images, deep maps are one pixel, and their BatchNorm magnifies what is left of rounding."""
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    check_replay(KD, name, atol=1e-5)


def test_a_sum_has_the_phases_of_its_parts() -> None:
    kind = sum_class((methods.get("sld_single"), methods.get("fsp")))
    step = step_of(kind, "resnet8w4")
    assert [(before, len(epochs)) for (before, _), epochs in phases(step).items()] == [
        (True, step.pretrain_epochs),
        (False, 150),
        (False, 90),
    ]
    check_replay(kind)


class WithBuffer(KD):
    seen: Tensor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer("seen", torch.zeros(()))


class Rebinding(WithBuffer):
    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        self.seen = self.seen + 1
        return super().loss(s, t, y, at)


class Counting(KD):
    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        return {name: at.epoch * term for name, term in super().loss(s, t, y, at).items()}


class Switching(KD):
    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        terms = super().loss(s, t, y, at)
        return terms if at.epoch < 100 else {**terms, "kd": terms["kd"].square()}


class Masking(KD):
    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        return {"ce": s.logits[y > 2].mean()}


class Drawing(KD):
    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        noise = torch.randn(s.logits.shape, generator=torch.Generator().manual_seed(at.epoch))
        return {"ce": (s.logits * noise).mean()}


class Asking(KD):
    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        return {"ce": s.logits.mean() / s.logits.detach().max().item()}


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (Rebinding, "not close"),
        (Counting, "not close"),
        (Switching, "not close"),
        (Drawing, "not close"),
        (Masking, "reads back"),
        (Asking, "item|value out of a tracing tensor"),
    ],
)
def test_a_step_that_does_not_replay_is_found(kind: type[KD], says: str) -> None:
    with pytest.raises((AssertionError, RuntimeError), match=says):
        check_replay(kind)
