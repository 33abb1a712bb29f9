"""Stratified subsets: deterministic, nested, every class present."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from bench.errors import UserError
from bench.seeds import generator


def stratified_order(y: np.ndarray, *parts: object) -> np.ndarray:
    """A permutation of the examples whose every prefix is stratified, drawn by the named seed. y: [N] → [N].

    The j-th example drawn of a class with n stands at j/n, ties in random order. So each prefix holds of every class
    its share, rounded up or down; a shorter prefix lies in a longer one; the first K examples show all K classes.
    """
    shuffled = torch.randperm(len(y), generator=generator(*parts)).numpy()
    by_class = shuffled[np.argsort(y[shuffled], kind="stable")]
    _, first, count = np.unique(y[by_class], return_index=True, return_counts=True)
    place = (np.arange(len(y)) - np.repeat(first, count)) / np.repeat(count, count)
    rank = np.empty(len(y), np.int64)
    rank[shuffled] = np.arange(len(y))
    return by_class[np.lexsort((rank[by_class], place))]


def carve(
    y: np.ndarray, classes: Sequence[str], validation: int, train: int | None, split_seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions of train, validation and the rest in the train split, each ascending and disjoint. validation: 0 where
    the source has its own."""
    _require_classes(y, classes)
    for name, count in (("validation", validation), ("train", train)):
        if count and count < len(classes):
            raise UserError(f"{name}: {count} images for {len(classes)} classes; set {name} to {len(classes)} or more")
    if validation + (train or len(classes)) > len(y):
        requested = {"validation": validation, "train": train}
        words = " and ".join(f"{name}: {count}" for name, count in requested.items() if count)
        raise UserError(f"{words} asked of {len(y)} images; {_remedy(len(y), len(classes), validation)}")
    drawn = stratified_order(y, "split", split_seed, "validation")
    validation_index, remaining = drawn[:validation], np.sort(drawn[validation:])
    remaining = remaining[stratified_order(y[remaining], "split", split_seed, "train")]
    train_index, rest = remaining[:train], remaining[train:] if train is not None else remaining[:0]
    if missing := sorted(set(range(len(classes))) - set(np.unique(y[train_index]).tolist())):
        raise UserError(
            f"class '{classes[missing[0]]}' has no image left for train; set validation lower, or add images of it"
        )
    return np.sort(train_index), np.sort(validation_index), np.sort(rest)


def subset(y: np.ndarray, count: int | None, split: str = "test") -> np.ndarray:
    """Positions of a stratified subset of an official split, whatever `split_seed`: seeds must not move the exam."""
    if count is None:
        return np.arange(len(y))
    if count > len(y):
        raise UserError(f"{split}: {count} asked, that split holds {len(y)} images; set {split} to at most {len(y)}")
    return np.sort(stratified_order(y, "split", split)[:count])


def _require_classes(y: np.ndarray, classes: Sequence[str]) -> None:
    if missing := sorted(set(range(len(classes))) - set(np.unique(y).tolist())):
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise UserError(
            f"class '{classes[missing[0]]}'{more} has no image in the train split; add some or take it off the classes"
        )


def _remedy(n: int, n_classes: int, validation: int) -> str:
    remaining = n - validation
    if remaining >= n_classes:
        return f"set train to at most {remaining}"
    return f"set validation to at most {n - n_classes}" if n >= 2 * n_classes else "there are too few images to split"
