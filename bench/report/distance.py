"""How far ours are from what others published, where protocol and data are theirs.

A number is of one recipe of a method: it stands beside rows that keep to their recipe, and beside no others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from bench.report import stats
from bench.report.published import BEST, LAST, LITERATURE, RULES, UNSAID, plain

METRICS = {LAST: stats.TOP1, BEST: "test/top1_best_epoch_on_test", UNSAID: stats.TOP1}
"""Ours that is compared with a number of each rule."""


PROTOCOL = {
    "epochs": 240,
    "batch_size": 64,
    "optimizer": "sgd",
    "momentum": 0.9,
    "nesterov": False,
    "weight_decay": 0.0005,
    "schedule": "step",
    "milestones": [150, 180, 210],
    "gamma": 0.1,
    "warmup_epochs": 0,
    "precision": "float32",
}
"""What `published.LITERATURE` stands for."""
SLOWER = ("MobileNetV2", "ShuffleV1", "ShuffleV2")  # at a learning rate of 0.01, all others at 0.05
IMAGES = {"train": 50_000, "test": 10_000}  # CIFAR-100's; what is carved from train for validation counts as train


def departures(protocol: Mapping[str, Any], data: Mapping[str, Any], student: str) -> list[str]:
    """In what a run is not the literature's, as 'epochs 14 (240)'; empty where it is. data: as a record has it."""
    rate = (protocol.get("lr_of") or {}).get(student, protocol.get("lr"))
    train, test = (data.get("train") or 0) + (data.get("validation") or 0), data.get("test") or 0
    both = {name: (protocol.get(name), theirs) for name, theirs in PROTOCOL.items()}
    both |= {"lr": (rate, 0.01 if student in SLOWER else 0.05), "data": (plain(data.get("name", "")), "cifar100")}
    both |= {"train images": (train, IMAGES["train"]), "test images": (test, IMAGES["test"])}
    ours = {name: list(value) if isinstance(value, tuple) else value for name, (value, _) in both.items()}
    return [f"{name} {ours[name]} ({theirs})" for name, (_, theirs) in both.items() if ours[name] != theirs]


def beside(
    frame: pd.DataFrame, published: pd.DataFrame, protocol: Mapping[str, Any], data: Mapping[str, Any]
) -> pd.DataFrame:
    """One row per row of the suite that keeps to its recipe and different number that was published of it.

    Pair, label, reported, selection, protocol, source, note, n, ours (by the same choice of epoch; of the last where
    theirs is not said), half (95 % t interval), distance (ours - reported, percentage points; NaN where protocol or
    data are not the same). Comparable numbers first, then those of the last epoch. frame: one row per run; published:
    `published.read`; protocol, data: as recorded. Empty where nothing is published.
    """
    runs = stats.usable(frame)
    runs = runs.assign(recipe=runs["recipe"].fillna("paper"), dataset=runs["dataset"].map(plain))
    own = runs["method"].where(runs["recipe"] == "paper", runs["method"] + "(" + runs["recipe"].astype(str) + ")")
    tuned = runs["tuned"].fillna(False).astype(bool) if "tuned" in runs else False
    kept = runs[(runs["label"] == own) & ~tuned]
    asked = kept[["dataset", "pair", "label", "method", "recipe"]].drop_duplicates(ignore_index=True)
    asked["row"] = asked.index
    out = asked.merge(published.rename(columns={"recipe": "of"}), on=["dataset", "pair", "method"])
    out = out[out["of"].isna() | (out["of"] == out["recipe"])]
    columns = ["pair", "label", "reported", "selection", "protocol", "source", "note", "n", "ours", "half", "distance"]
    if out.empty:
        return pd.DataFrame(columns=columns)
    out = out.merge(pd.concat([_measured(kept, rule) for rule in RULES]), on=["pair", "label", "selection"], how="left")
    same = {pair: not departures(protocol, data, str(pair).partition("->")[2]) for pair in out["pair"].unique()}
    comparable = out["pair"].map(same).astype(bool) & (out["protocol"] == LITERATURE)
    out["distance"] = (out["ours"] - out["reported"]).where(comparable)
    out = out.assign(other=~comparable, rule=out["selection"].map(RULES.index))
    out = out.sort_values(["row", "other", "rule"], kind="stable")
    return out.drop_duplicates(["pair", "label", "reported"], ignore_index=True)[columns]  # sources copy each other


def remark(protocol: Mapping[str, Any], data: Mapping[str, Any], pairs: Iterable[object]) -> str:
    """Why there are no distances to published numbers, or what they are conditional on."""
    found = {name: None for pair in pairs for name in departures(protocol, data, str(pair).partition("->")[2])}
    if found:
        return (
            "No distances: protocol or data are not those of the published tables. In brackets what theirs are: "
            f"{', '.join(found)}."
        )
    held = int(data.get("validation") or 0)
    theirs = f" Theirs train on all {IMAGES['train']:,} images, {held:,} of ours are held out for validation."
    return (
        f"Ours are compared by the same choice of epoch, of the last one where theirs is not said.{theirs * bool(held)}"
        " ± is of ours alone: how far theirs vary is mostly not published."
    )


def chosen(rows: pd.DataFrame) -> pd.DataFrame:
    """The number that stands in the table, one per pair and label: the first of `beside`."""
    return rows.drop_duplicates(["pair", "label"], ignore_index=True)


def _measured(kept: pd.DataFrame, rule: str) -> pd.DataFrame:
    """Pair, label, selection, n, ours, half under one rule."""
    metric = METRICS[rule]
    if metric not in kept or not kept[metric].notna().any():
        return pd.DataFrame(columns=["pair", "label", "selection", "n", "ours", "half"])
    return stats.summary(kept, metric).rename(columns={"mean": "ours"}).assign(selection=rule).drop(columns="sd")
