"""What there is to choose from, as plain rows."""

from __future__ import annotations

import inspect
import pkgutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import cache
from typing import Any

import torch
import yaml

import methods as registry
from bench import models
from bench.models import Network
from bench.seeds import drawing_from, generator
from bench.suite import suite as suites
from methods.base import Dims, Method, Needs, Recipe, Refusal

ARXIV = "https://arxiv.org/abs/"

DATASETS = (
    (
        "digits",
        "scikit-learn's handwritten digits: 1,797 images of 8×8, 10 classes; nothing to fetch",
        "source: digits",
    ),
    (
        "parquet",
        "any image classification set in the Hugging Face parquet layout",
        "source: parquet, path: <folder of shards>",
    ),
    ("torchvision", "CIFAR10, CIFAR100, FashionMNIST", "source: torchvision, name: CIFAR100, download: true"),
    (
        "image_folder",
        "train/<class>/*, test/<class>/* and perhaps val/<class>/*",
        "source: image_folder, path: <folder>, size: 64",
    ),
)


STANDARD = ("resnet32x4", "resnet8x4")
"""Teacher and student that costs are counted on: the pair of CIFAR-100 that most papers report."""


def methods(names: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """All that the methods declare, and what they cost on the standard pair. names: by default every method."""
    return [_method(name, registry.get(name)) for name in (registry.names() if names is None else names)]


def methods_brief() -> list[dict[str, Any]]:
    """The columns that fit a terminal; builds no network."""
    rows = []
    for name in registry.names():
        m = registry.get(name)
        sees, first = _sees(m.needs), _sees(m.pretrain_needs) if m.pretrain_needs else []
        rows.append(
            {
                "method": name,
                "year": m.paper.year or "",
                "venue": m.paper.venue,
                "sees": sees + [f"{what} (before)" for what in first if what not in sees],
                "tuned": [key for key, knob in m.space.items() if knob.tune],
                "recipes": list(m.recipes),
                "arXiv": m.paper.url.removeprefix(ARXIV) if m.paper.url.startswith(ARXIV) else "",
            }
        )
    return rows


def cited(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """By method, what a report says of it without loading it: paper, deviations, what its recipes are said to give."""
    out = {}
    for name in dict.fromkeys(names):
        m = registry.get(name)
        said = {
            key: {"selection": r.selection, "source": r.source, "reported": dict(r.reported)}
            for key, r in m.recipes.items()
        }
        out[name] = {**asdict(m.paper), "deviations": list(m.deviations), "recipes": said}
    return out


def built_in() -> tuple[str, ...]:
    """Names of the methods that lie in this project's folder: no plug-ins."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(registry.__path__) if m.name not in registry.SHARED))


def _method(name: str, m: type[Method]) -> dict[str, Any]:
    about = inspect.getdoc(sys.modules.get(m.__module__)) or ""
    paper, default = m.paper, m.recipes["paper"]
    before = float(default.values.get("before", 0.0))
    return {
        "method": name,
        "about": about.partition("\n")[0],
        "title": paper.title,
        "authors": paper.authors,
        "year": paper.year or None,
        "venue": paper.venue,
        "paper": paper.url,
        "code": paper.code,
        "licence": paper.licence,
        "teacher": m.needs.teacher,
        "sees": _sees(m.needs),
        "before": before,
        "sees_before": _sees(m.pretrain_needs or m.needs) if before else [],
        **_cost(m),  # type: ignore[arg-type]  # a class is hashable
        "defaults": dict(default.values),
        "space": {key: {"range": str(knob), "tuned": knob.tune} for key, knob in m.space.items()},
        "recipes": [_recipe(key, recipe) for key, recipe in m.recipes.items()],
        "deviations": list(m.deviations),
    }


def _sees(needs: Needs) -> list[str]:
    """What a method must see, besides the labels and the student's logits on the weak view."""
    views = [f"view {view}" for view in needs.views if view != "weak"]
    others = ["index"] * needs.index + ["full batches"] * needs.full_batches
    return [*(needs.taps if needs.teacher else ()), *views, *others]


def _recipe(name: str, recipe: Recipe) -> dict[str, Any]:
    return {
        "name": name,
        "source": recipe.source,
        "selection": recipe.selection,
        "values": dict(recipe.values),
        "pairs": {pair: dict(changes) for pair, changes in recipe.pairs.items()},
        "results": len(recipe.reported),
        "standard": recipe.reported.get(f"cifar100/{'->'.join(STANDARD)}"),
        "reported": dict(recipe.reported),
    }


@cache
def _networks() -> tuple[Network, Network, Dims]:
    """Teacher and student of the standard pair, and what a method is sized by on CIFAR-100."""
    with drawing_from("catalogue"):
        teacher, student = (models.build(name, in_channels=3, size=32, n_classes=100) for name in STANDARD)
    return teacher, student, Dims(student.dims(), teacher.dims(), 100, 64, torch.arange(50_000) % 100)


@cache
def _cost(m: type[Method]) -> dict[str, Any]:
    """Parameters besides the student's, in training and at inference, or why the method refuses the standard pair."""
    teacher, student, dims = _networks()
    try:
        m.check(dims)
        with drawing_from("catalogue", m.name()):
            method = m(dims, **m.resolve("->".join(STANDARD)))
    except Refusal as refusal:
        note = str(refusal).partition(";")[0]
        return {"extra_parameters": None, "inference_parameters": None, "note": f"refuses the standard pair: {note}"}
    return {
        "extra_parameters": sum(p.numel() for p in method.parameters()),
        "inference_parameters": _at_inference(method, student, teacher),
        "note": "; ".join(f"{key} {value}" for key, value in method.facts.items()),
    }


def _at_inference(method: Method, student: Network, teacher: Network) -> int:
    """Parameters of method and teacher that the deployed student's logits depend on."""
    if type(method).predict is Method.predict:
        return 0
    from bench.models.student import Student

    others = [*method.parameters(), *teacher.parameters()]
    x = torch.rand(2, 3, 32, 32, generator=generator("catalogue", "images"))
    used = torch.autograd.grad(Student(student, method, teacher).eval()(x).sum(), others, allow_unused=True)
    return sum(p.numel() for p, gradient in zip(others, used, strict=True) if gradient is not None)


def networks() -> list[dict[str, Any]]:
    rows = []
    for name in models.names():
        network = models.build(name)
        rows.append(
            {"network": name, "parameters": sum(p.numel() for p in network.parameters()), "stages": network.n_stages}
        )
    rows.append(
        {
            "network": "torchvision/<name>, timm/<name>, hf/<name>, path/to/file.py:Name",
            "parameters": "",
            "stages": "found by probing",
        }
    )
    return rows


def datasets() -> list[dict[str, Any]]:
    return [dict(zip(("source", "what", "in a suite"), row, strict=True)) for row in DATASETS]


def suites_() -> list[dict[str, Any]]:
    rows = []
    for name, path in suites.available().items():
        raw = yaml.safe_load(path.read_text())
        rows.append(
            {
                "suite": name,
                "about": raw.get("about", ""),
                "methods": len(raw["methods"]),
                "pairs": len(raw["pairs"]),
                "seeds": raw["seeds"],
            }
        )
    return rows
