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
from bench.seeds import fork_rng, generator
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


STANDARD_PAIR = ("resnet32x4", "resnet8x4")
"""Teacher and student that costs are counted on: the pair of CIFAR-100 that most papers report."""


def methods(names: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """All that the methods declare, and what they cost on the standard pair. names: by default every method."""
    return [_method_row(name, registry.get(name)) for name in (registry.names() if names is None else names)]


def methods_brief() -> list[dict[str, Any]]:
    """The columns that fit a terminal; builds no network."""
    rows = []
    for name in registry.names():
        method = registry.get(name)
        inputs = _required_inputs(method.needs)
        pretrain_inputs = _required_inputs(method.pretrain_needs) if method.pretrain_needs else []
        rows.append(
            {
                "method": name,
                "year": method.paper.year or "",
                "venue": method.paper.venue,
                "sees": inputs + [f"{tap} (before)" for tap in pretrain_inputs if tap not in inputs],
                "tuned": [key for key, knob in method.space.items() if knob.tune],
                "recipes": list(method.recipes),
                "arXiv": method.paper.url.removeprefix(ARXIV) if method.paper.url.startswith(ARXIV) else "",
            }
        )
    return rows


def method_citations(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """By method, what a report says of it without loading it: paper, deviations, what its recipes are said to give."""
    out = {}
    for name in dict.fromkeys(names):
        method = registry.get(name)
        recipes = {
            key: {"selection": r.selection, "source": r.source, "reported": dict(r.reported)}
            for key, r in method.recipes.items()
        }
        out[name] = {**asdict(method.paper), "deviations": list(method.deviations), "recipes": recipes}
    return out


def built_in_methods() -> tuple[str, ...]:
    """Names of the methods that lie in this project's folder: no plug-ins."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(registry.__path__) if m.name not in registry.NOT_METHODS))


def _method_row(name: str, method: type[Method]) -> dict[str, Any]:
    docstring = inspect.getdoc(sys.modules.get(method.__module__)) or ""
    paper, default = method.paper, method.recipes["paper"]
    pretrain_share = float(default.values.get("before", 0.0))
    return {
        "method": name,
        "about": docstring.partition("\n")[0],
        "title": paper.title,
        "authors": paper.authors,
        "year": paper.year or None,
        "venue": paper.venue,
        "paper": paper.url,
        "code": paper.code,
        "licence": paper.licence,
        "teacher": method.needs.teacher,
        "sees": _required_inputs(method.needs),
        "before": pretrain_share,
        "sees_before": _required_inputs(method.pretrain_needs or method.needs) if pretrain_share else [],
        **_parameter_counts(method),  # type: ignore[arg-type]  # a class is hashable
        "defaults": dict(default.values),
        "space": {key: {"range": str(knob), "tuned": knob.tune} for key, knob in method.space.items()},
        "recipes": [_recipe_row(key, recipe) for key, recipe in method.recipes.items()],
        "deviations": list(method.deviations),
    }


def _required_inputs(needs: Needs) -> list[str]:
    """What a method must see, besides the labels and the student's logits on the weak view."""
    views = [f"view {view}" for view in needs.views if view != "weak"]
    others = ["index"] * needs.index + ["full batches"] * needs.full_batches
    return [*(needs.taps if needs.teacher else ()), *views, *others]


def _recipe_row(name: str, recipe: Recipe) -> dict[str, Any]:
    return {
        "name": name,
        "source": recipe.source,
        "selection": recipe.selection,
        "values": dict(recipe.values),
        "pairs": {pair: dict(changes) for pair, changes in recipe.pairs.items()},
        "results": len(recipe.reported),
        "standard": recipe.reported.get(f"cifar100/{'->'.join(STANDARD_PAIR)}"),
        "reported": dict(recipe.reported),
    }


@cache
def _standard_networks() -> tuple[Network, Network, Dims]:
    """Teacher and student of the standard pair, and what a method is sized by on CIFAR-100."""
    with fork_rng("catalogue"):
        teacher, student = (models.build(name, in_channels=3, size=32, n_classes=100) for name in STANDARD_PAIR)
    return teacher, student, Dims(student.dims(), teacher.dims(), 100, 64, torch.arange(50_000) % 100)


@cache
def _parameter_counts(method_class: type[Method]) -> dict[str, Any]:
    """Parameters besides the student's, in training and at inference, or why the method refuses the standard pair."""
    teacher, student, dims = _standard_networks()
    try:
        method_class.check(dims)
        with fork_rng("catalogue", method_class.name()):
            method = method_class(dims, **method_class.resolve("->".join(STANDARD_PAIR)))
    except Refusal as refusal:
        note = str(refusal).partition(";")[0]
        return {"extra_parameters": None, "inference_parameters": None, "note": f"refuses the standard pair: {note}"}
    return {
        "extra_parameters": sum(p.numel() for p in method.parameters()),
        "inference_parameters": _inference_parameters(method, student, teacher),
        "note": "; ".join(f"{key} {value}" for key, value in method.facts.items()),
    }


def _inference_parameters(method: Method, student: Network, teacher: Network) -> int:
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


def list_suites() -> list[dict[str, Any]]:
    rows = []
    for name, path in suites.built_in_suites().items():
        raw = yaml.safe_load(path.read_text())
        rows.append(
            {
                "suite": name,
                "about": raw.get("about", ""),
                "methods": len(raw["methods"]),
                "pairs": len(raw["pairs"]),
                "seeds": raw["seeds"],
                "teacher of each": (raw.get("teacher") or {}).get("each", "suite"),
            }
        )
    return rows
