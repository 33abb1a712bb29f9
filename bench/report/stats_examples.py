"""Two methods example by example: does the same accuracy hide different errors?

Arrays are correctness: [S, N] bool, one row per seed, one column per test example, the same examples in the same order
for both methods. Everything here is about these very students and the examples that could have been drawn; what another
seed would give is said by the statistics over seeds (Dietterich 1998, Neural Computation 10(7), on the two questions).
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from bench.errors import UserError
from bench.report import stats

FILE = "predictions.npz"
NEEDED = ("label", "guess")
DRAWS = 10_000

NEGLIGIBLE = 1e-100  # a probability

Bools = NDArray[np.bool_]


class OtherExamples(ValueError):
    """Two runs were asked different test examples."""


@dataclass(frozen=True)
class Examples:
    """Counts are over examples and seeds (N * S in all); shares in %, differences A - B in percentage points."""

    n: int  # test examples
    seeds: int
    both: int  # right
    only_a: int  # right, and B wrong
    only_b: int
    neither: int
    disagree: float  # share on which exactly one of A and B, of the same seed, is right
    difference: float  # of the accuracies
    low: float  # 95 % bootstrap interval over examples
    high: float
    p: float  # exact McNemar
    across: float  # as `disagree`, A of one seed against B of another; NaN with one seed
    within: float  # as `across`, a method against itself, mean of both methods: what seeds alone do; NaN with one seed


def predictions(file: Path) -> dict[str, NDArray[np.generic]] | None:
    """The arrays of a run's predictions.npz, all [N]; None where there is no such file. `UserError` for damage."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error):
        raise UserError(f"{file}: not readable as predictions; run that student again with --rerun") from None
    shapes = {arrays[name].shape for name in NEEDED if name in arrays}
    if not set(NEEDED) <= arrays.keys() or len(shapes) != 1 or len(next(iter(shapes))) != 1:
        raise UserError(f"{file}: is to hold the arrays {' and '.join(NEEDED)}, one entry per test example each")
    return arrays


def correctness(runs: pd.DataFrame, a: str, b: str, files: Mapping[str, Path]) -> tuple[list[int], Bools, Bools]:
    """Seeds, and [S, N] correctness of a and of b, over the seeds of which both have left predictions.

    runs: of one pair; files: where a run's predictions are, by fingerprint (no entry, no file: that seed is left out).
    """
    by_seed = stats.usable(runs).pivot(index="seed", columns="label", values="fingerprint")
    both = {
        int(seed): [predictions(files[run]) for run in of_seed]
        for seed, *of_seed in by_seed.reindex(columns=[a, b]).itertuples(name=None)
        if set(of_seed) <= files.keys()
    }
    known = {seed: (one, two) for seed, (one, two) in both.items() if one is not None and two is not None}
    labels = [said["label"] for of_seed in known.values() for said in of_seed]
    if not all(np.array_equal(labels[0], label) for label in labels):
        raise OtherExamples(f"the runs of {a} and {b} were asked different test examples")
    right = np.array([[said["guess"] == labels[0] for said in of_seed] for of_seed in known.values()], dtype=bool)
    right = right if known else right.reshape(0, 2, 0)
    return list(known), right[:, 0], right[:, 1]


def examples(a: ArrayLike, b: ArrayLike) -> Examples:
    """All of the below in one. a, b: [S, N] or [N] bool."""
    one, two = _checked(a, b)
    size, (low, high) = one.size, bootstrap(one, two)
    both, only_a, only_b = (int(x.sum()) for x in (one & two, one & ~two, ~one & two))
    return Examples(
        n=one.shape[1],
        seeds=len(one),
        both=both,
        only_a=only_a,
        only_b=only_b,
        neither=size - both - only_a - only_b,
        disagree=100 * (only_a + only_b) / size,
        difference=100 * (only_a - only_b) / size,
        low=low,
        high=high,
        p=mcnemar(one, two),
        across=_off_diagonal(one, two),
        within=(_off_diagonal(one, one) + _off_diagonal(two, two)) / 2,
    )


def mcnemar(a: ArrayLike, b: ArrayLike) -> float:
    """Two-sided exact p-value of equal accuracy. a, b: [S, N] or [N] bool.

    One seed: McNemar's test by the binomial distribution of the discordant examples. Several: an example's answers are
    not independent over seeds, so the example is the unit and its net difference (right answers of A minus those of B,
    over seeds) changes sign at random; all signs are counted, by convolution. The exact form of McNemar's test for
    clustered pairs (Durkalski et al. 2003, Statistics in Medicine 22(15)). 1 where no example is discordant.
    """
    from scipy import stats as distributions  # here, for no report pays for its import

    one, two = _checked(a, b)
    net = one.sum(axis=0, dtype=int) - two.sum(axis=0, dtype=int)
    least, law = 0, np.ones(1)  # of the sum of |net| over the examples whose sign falls to A, from `least` on
    for size in range(1, len(one) + 1):
        count = int((np.abs(net) == size).sum())
        steps = np.zeros(size * count + 1)
        steps[::size] = distributions.binom.pmf(np.arange(count + 1), count, 0.5)
        likely = np.flatnonzero(steps > NEGLIGIBLE)  # the far tails are most of a long law, and of its time
        least += int(likely[0])
        law = np.convolve(law, steps[likely[0] : likely[-1] + 1])
    for_a, whole = int(net[net > 0].sum()), int(np.abs(net).sum())
    less, sums = min(for_a, whole - for_a), least + np.arange(len(law))
    return min(1.0, float(law[(sums <= less) | (sums >= whole - less)].sum()))


def bootstrap(a: ArrayLike, b: ArrayLike, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the difference in accuracy, in points, over resampled examples. a, b: [S, N] or [N].

    All seeds of an example stay together. Examples with the same net difference are interchangeable, so how often each
    value is drawn is multinomial: the percentile method of `scipy.stats.bootstrap` without its [draws, N] indices.
    """
    one, two = _checked(a, b)
    values, counts = np.unique(one.sum(axis=0, dtype=int) - two.sum(axis=0, dtype=int), return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(one.shape[1], counts / counts.sum(), size=DRAWS)
    low, high = np.quantile(drawn @ values, [0.5 - stats.LEVEL / 2, 0.5 + stats.LEVEL / 2])
    return float(100 * low / one.size), float(100 * high / one.size)


def _off_diagonal(a: Bools, b: Bools) -> float:
    """Share (%) of examples on which exactly one of a's and b's students is right, over pairs of different seeds."""
    if len(a) < 2:
        return math.nan
    x, y = a.astype(float), b.astype(float)
    apart = x.mean(axis=1)[:, None] + y.mean(axis=1)[None] - 2 * (x @ y.T) / a.shape[1]
    return float(100 * apart[~np.eye(len(a), dtype=bool)].mean())


def _checked(a: ArrayLike, b: ArrayLike) -> tuple[Bools, Bools]:
    one, two = (np.atleast_2d(np.asarray(x)) for x in (a, b))
    if one.dtype != bool or two.dtype != bool or one.ndim != 2:
        raise ValueError("correctness is an array of true and false, [seeds, examples]")
    if one.shape != two.shape:
        raise ValueError(f"both methods need the same seeds and examples, got {one.shape} and {two.shape}")
    if not one.size:
        raise ValueError("there is no example to compare on")
    return one, two
