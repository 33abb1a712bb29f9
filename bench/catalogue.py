"""What there is to choose from, as plain rows."""

from __future__ import annotations

from typing import Any

import yaml

import methods as registry
from bench import models
from bench import suite as suites

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
    ("image_folder", "train/<class>/* and test/<class>/*", "source: image_folder, path: <folder>, size: 64"),
)


def methods() -> list[dict[str, Any]]:
    rows = []
    for name in registry.names():
        m = registry.get(name)
        rows.append(
            {
                "method": name,
                "year": m.paper.year or "",
                "venue": m.paper.venue,
                "sees": [*m.needs.taps, *(f"view {v}" for v in m.needs.views if v != "weak")]
                if m.needs.teacher
                else [],
                "tuned": [key for key, knob in m.space.items() if knob.tune],
                "recipes": list(m.recipes),
                "paper": m.paper.url,
            }
        )
    return rows


def networks() -> list[dict[str, Any]]:
    rows = []
    for name in models.names():
        network = models.build(name)
        rows.append(
            {"network": name, "parameters": sum(p.numel() for p in network.parameters()), "stages": network.n_stages}
        )
    rows.append({"network": "torchvision/<name>, timm/<name>", "parameters": "", "stages": "found by probing"})
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
