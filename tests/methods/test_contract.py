"""What every method promises, asked of each file that lies in methods/."""

from __future__ import annotations

import inspect
import sys
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

import methods
from bench import models
from bench.models.base import Network
from bench.seeds import fork_rng
from methods.base import Dims, Method, Needs, NetworkView, Out, Progress, Refusal

NAMES = methods.names()
N, C, SIZE = 40, 5, 8


def network(name: str, n_classes: int = C) -> Network:
    with fork_rng("contract", name):
        return models.build(name, in_channels=1, size=SIZE, n_classes=n_classes)


class Scene:
    """A pair, a method on it, and a batch."""

    def __init__(self, name: str, *, n_classes: int = C, batch: int = 8, **changes: Any) -> None:
        self.kind = methods.get(name)
        self.hp = self.kind.resolve("a->b", overrides=changes)
        try:
            self.pair("resnet14w6", n_classes, batch)
        except Refusal:  # it compares networks of equal channels alone
            self.pair("resnet14w4", n_classes, batch)
        train_y = self.dims.train_y
        draw = torch.Generator().manual_seed(1)
        self.index = torch.randperm(N, generator=draw)[:batch]
        self.y = train_y[self.index]
        self.x = torch.randn(batch, 1, SIZE, SIZE, generator=draw)

    def pair(self, teacher: str, n_classes: int, batch: int) -> None:
        self.student, self.teacher = network("resnet8w4", n_classes).train(), network(teacher, n_classes).eval()
        self.teacher.requires_grad_(False)
        train_y = torch.arange(N) % n_classes
        shapes = self.student.dims(), self.teacher.dims()
        self.dims = Dims(*shapes, n_classes, batch, train_y, lambda: (0.1, 0.4, 0.3, 0.2))
        self.kind.check(self.dims)
        with fork_rng("contract", "method"):
            self.method = self.kind(self.dims, **self.hp)

    def predicts_otherwise(self) -> bool:
        """Does the student answer through more than its own classifier?"""
        return self.kind.predict is not Method.predict

    def outs(self, x: Tensor, net: Network) -> dict[str, Out]:
        return {view: net(x) for view in self.kind.needs.views}

    def terms(
        self,
        order: Tensor | None = None,
        dtype: torch.dtype | None = None,
        scale: float = 1.0,
        before: bool = False,
    ) -> dict[str, Tensor]:
        order = torch.arange(len(self.y)) if order is None else order
        needs = (before and self.method.pretrain_needs) or self.kind.needs
        s, t = self.outs(self.x[order], self.student), {}
        if needs.teacher:
            with torch.no_grad():
                t = self.outs(self.x[order], self.teacher)
        if dtype is not None:
            s, t = ({v: cast(o, dtype, scale) for v, o in outs.items()} for outs in (s, t))
        at = Progress(2, 10, torch.Generator().manual_seed(3), self.index[order] if needs.index else None)
        return (self.method.pretrain_loss if before else self.method.loss)(
            NetworkView(s, needs.taps, self.student.tail),
            NetworkView(t, needs.taps, self.teacher.tail),
            self.y[order],
            at,
        )


def cast(out: Out, dtype: torch.dtype, scale: float) -> Out:
    """The same answer in half precision, with logits that reach ±scale."""
    logits = scale * out.logits / out.logits.abs().max()
    return Out(
        logits.to(dtype),
        tuple(f.to(dtype) for f in out.feats),
        tuple(p if p is None else p.to(dtype) for p in out.preacts),
        out.pooled.to(dtype),
    )


def test_there_are_methods() -> None:
    assert {"vanilla", "kd", "block_kd", "sld", "logit_free"} <= set(NAMES) and len(NAMES) >= 35


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_is(name: str) -> None:
    kind = methods.get(name)
    assert kind.name() == name
    assert kind.paper.title and kind.paper.authors and (kind.paper.year > 2000 or name == "vanilla")
    keywords = inspect.signature(kind.__init__).parameters
    assert [k for k, p in keywords.items() if p.kind is p.KEYWORD_ONLY] == list(kind.space)
    assert "paper" in kind.recipes
    for recipe in kind.recipes.values():
        assert recipe.values.keys() == kind.space.keys() and recipe.source
        for pair in ["", *recipe.pairs]:
            assert kind.resolve(pair, next(k for k, v in kind.recipes.items() if v is recipe)) == recipe.for_pair(pair)
        assert all(10 < top1 < 100 and "->" in where for where, top1 in recipe.reported.items())
    assert all(text.endswith(".") for text in kind.deviations)


def test_every_file_opens_with_a_sentence_of_its_own() -> None:
    """A copied file tells the wrong method's story until its first line is written anew."""
    first = {
        name: (sys.modules[methods.get(name).__module__].__doc__ or "").strip().partition("\n")[0] for name in NAMES
    }
    assert [name for name, line in first.items() if not line.endswith(".") or len(line.split()) < 4] == []
    told = Counter(first.values())
    assert [name for name, line in first.items() if told[line] > 1] == []


@pytest.mark.parametrize("name", NAMES)
def test_what_it_does_not_know_is_refused(name: str) -> None:
    kind = methods.get(name)
    with pytest.raises(Refusal, match="no recipe"):
        kind.resolve("", "papr")
    with pytest.raises(Refusal, match="no hyper-parameter"):
        kind.resolve("", overrides={"no_such": 1})


@pytest.mark.parametrize("name", NAMES)
def test_gradient_reaches_student_and_adapters_and_never_the_teacher(name: str) -> None:
    scene = Scene(name, batch=32)
    before = models.state_hash(scene.teacher)
    for phase in (True, False) if scene.method.pretrain_share else (False,):
        terms = scene.terms(before=phase)
        assert all(term.ndim == 0 and term.isfinite() for term in terms.values())
        torch.stack(list(terms.values())).sum().backward()
    student = dict(scene.student.named_parameters())
    answers = [key for key, p in student.items() if p.grad is None]
    assert all(p.grad.isfinite().all() for p in student.values() if p.grad is not None)
    assert not answers or (scene.predicts_otherwise() and answers == ["fc.weight", "fc.bias"])
    for key, parameter in scene.method.named_parameters():
        assert parameter.grad is not None, key
    moved = [k for k, p in scene.method.named_parameters() if p.grad is not None and p.grad.abs().max() > 0]
    still = {k for k, _ in scene.method.named_parameters()} - set(moved)
    assert all(k.rpartition(".")[2] == "bias" and "conv" in k for k in still), still  # before a BN: exactly zero
    assert models.state_hash(scene.teacher) == before and all(p.grad is None for p in scene.teacher.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_inputs_stay_as_they_were(name: str) -> None:
    scene = Scene(name)
    out = scene.student(scene.x)
    copies = [t.clone() for t in (out.logits, *out.feats, out.pooled)]
    needs = scene.kind.needs
    with torch.no_grad():
        taught = scene.outs(scene.x, scene.teacher) if needs.teacher else {}
    at = Progress(2, 10, torch.Generator().manual_seed(3), scene.index if needs.index else None)
    s = NetworkView(dict.fromkeys(needs.views, out), needs.taps, scene.student.tail)
    scene.method.loss(s, NetworkView(taught, needs.taps, scene.teacher.tail), scene.y, at)
    assert all(torch.equal(a, b) for a, b in zip(copies, (out.logits, *out.feats, out.pooled), strict=True))


def test_what_was_not_declared_cannot_be_read() -> None:
    out = network("resnet8w4")(torch.zeros(2, 1, SIZE, SIZE))
    seen = NetworkView({"weak": out}, ("logits",))
    for tap in ("feats", "pooled", "preacts", "tail"):
        with pytest.raises(AttributeError, match="not declared"):
            getattr(seen, tap)
    with pytest.raises(KeyError, match="not declared"):
        seen["strong"]
    with pytest.raises(AttributeError, match="not declared"):
        _ = Progress(1, 1, torch.Generator()).index
    with pytest.raises(Refusal, match="did you mean 'logits'"):
        Needs(taps=("logit",))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "semckd"])  # its layers read a batch by place
def test_the_order_of_a_batch_means_nothing(name: str) -> None:
    changes = {"nce_k": 10**6} if name == "crd" else {}  # all other classes' examples: no draw is left to chance
    order = torch.tensor([3, 1, 7, 0, 6, 2, 5, 4])
    a, b = Scene(name, **changes).terms(), Scene(name, **changes).terms(order)
    for key in a:
        assert a[key].item() == pytest.approx(b[key].item(), rel=2e-4), key


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_with_extreme_logits_stays_finite(name: str, dtype: torch.dtype) -> None:
    scene = Scene(name)
    terms = scene.terms(dtype=dtype, scale=60.0)
    assert all(term.isfinite() and term.dtype == torch.float32 for term in terms.values())
    sum(terms.values(), torch.zeros(())).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in scene.student.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_two_classes_work(name: str) -> None:
    assert all(term.isfinite() for term in Scene(name, n_classes=2).terms().values())


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_one_works(name: str) -> None:
    try:
        scene = Scene(name, batch=1)
    except Refusal as refusal:
        assert name in str(refusal) and "batch" in str(refusal)
        return
    scene.student.eval()  # the student's own BatchNorm is not the method's affair
    assert all(term.isfinite() for term in scene.terms().values())


@pytest.mark.parametrize("name", NAMES)
def test_saved_and_restored_it_goes_on_identically(name: str) -> None:
    first, second = Scene(name), Scene(name)
    first.terms()
    second.student.load_state_dict(first.student.state_dict())
    with torch.no_grad():
        for parameter in second.method.parameters():
            parameter.zero_()
    second.method.load_state_dict(first.method.state_dict())
    a, b = first.terms(), second.terms()
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_a_file_holds_one_method(monkeypatch: pytest.MonkeyPatch) -> None:
    import methods.kd as module

    class Second(module.KD):
        pass

    Second.__module__ = module.__name__
    monkeypatch.setattr(module, "Second", Second, raising=False)
    with pytest.raises(Refusal, match="holds 2 methods"):
        methods.get("kd")


def test_one_class_is_refused() -> None:
    dims = Scene("kd").dims
    alone = Dims(dims.student, dims.teacher, 1, 8, torch.zeros(N, dtype=torch.int64))
    for name in ("dkd", "crd", "nkd", "dist", "lskd", "lskd_sld"):
        with pytest.raises(Refusal, match="class"):
            methods.get(name).check(alone)
