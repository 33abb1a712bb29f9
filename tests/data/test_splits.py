from __future__ import annotations

import numpy as np
import pytest
import torch

from bench.data import splits
from bench.errors import UserError
from tests.data.conftest import read
from tests.prose import Prose, numbers

RNG = np.random.default_rng(0)
EVEN = RNG.permutation(np.repeat(np.arange(10), 50))
UNEVEN = RNG.permutation(np.repeat(np.arange(5), [200, 100, 40, 8, 2]))
NAMES = tuple("abcdefghij")


@pytest.mark.parametrize("y", [EVEN, UNEVEN], ids=["even", "uneven"])
@pytest.mark.parametrize("n", [10, 37, 120, 350])
def test_every_prefix_is_stratified(y: np.ndarray, n: int) -> None:
    order = splits.stratified_order(y, "x", 0)
    assert sorted(order) == list(range(len(y)))
    got = np.bincount(y[order[:n]], minlength=y.max() + 1)
    share = np.bincount(y) * n / len(y)
    assert (got >= 1).all()
    assert np.abs(got - share).max() <= (0.999 if y is EVEN else 2)


def test_train_and_validation_are_disjoint_deterministic_and_nested() -> None:
    train, validation, rest = splits.carve(EVEN, NAMES, 50, 200, 0)
    assert (np.bincount(EVEN[validation]) == 5).all() and (np.bincount(EVEN[train]) == 20).all()
    assert sorted([*train, *validation, *rest]) == list(range(500))
    for a, b in zip((train, validation, rest), splits.carve(EVEN, NAMES, 50, 200, 0), strict=True):
        assert (a == b).all() and (np.diff(a) > 0).all()
    fewer, same, _ = splits.carve(EVEN, NAMES, 50, 123, 0)
    assert set(fewer) < set(train) and (same == validation).all()
    assert set(splits.carve(EVEN, NAMES, 30, None, 0)[1]) < set(validation)
    assert (splits.carve(EVEN, NAMES, 50, 200, 1)[1] != validation).any()


def test_no_train_size_takes_all_that_remains() -> None:
    train, validation, rest = splits.carve(EVEN, NAMES, 50, None, 0)
    assert len(train) == 450 and not set(train) & set(validation) and len(rest) == 0


def test_test_subset() -> None:
    assert (splits.subset(EVEN, None) == np.arange(500)).all()
    assert set(splits.subset(EVEN, 100)) < set(splits.subset(EVEN, 210))
    assert (np.bincount(EVEN[splits.subset(EVEN, 100)]) == 10).all()


@pytest.mark.parametrize(
    ("validation", "train", "mend", "shown"),
    [
        (9, None, "set validation to 10", [9, 10, 10]),
        (50, 9, "set train to 10", [9, 10, 10]),
        (50, 451, "set train to at most 450", [50, 451, 500, 450]),
        (500, None, "set validation to at most 490", [500, 500, 490]),
        (495, 10, "set validation to at most 490", [495, 10, 500, 490]),
    ],
    ids=["validation", "train", "both", "all", "no room"],
)
def test_impossible_sizes(validation: int, train: int | None, mend: str, shown: list[float], prose: Prose) -> None:
    with pytest.raises(UserError, match=mend) as error:
        splits.carve(EVEN, NAMES, validation, train, 0)
    assert numbers(str(error.value)) == shown
    prose(str(error.value))


def test_classes_that_cannot_be_split(prose: Prose) -> None:
    with pytest.raises(UserError, match="class 'd'") as absent:
        splits.carve(np.arange(30) % 3, "abcd", 10, None, 0)
    with pytest.raises(UserError, match="class 'b'") as used_up:
        splits.carve(np.array([0] * 30 + [1]), "ab", 10, None, 0)
    with pytest.raises(UserError, match=r"test: 501 .* 500") as too_many:
        splits.subset(EVEN, 501)
    for error in (absent, used_up, too_many):
        prose(str(error.value))


def test_digits_show_every_image_once() -> None:
    from sklearn.datasets import load_digits

    data = read(source="digits")
    assert (len(data.train), len(data.validation), len(data.test)) == (300, 300, 1197)
    seen = torch.cat([data.train.x, data.validation.x, data.test.x]).flatten(1)
    truth = torch.from_numpy(np.rint(load_digits().images * 255 / 16).astype(np.uint8)).flatten(1)
    assert sorted(map(tuple, seen.tolist())) == sorted(map(tuple, truth.tolist()))
    assert data.train.x.shape == (300, 1, 8, 8) and data.train.x.max() == 255
    for split in (data.train, data.validation):
        counts = split.y.bincount()
        assert counts.min() >= 28 and counts.max() <= 32
