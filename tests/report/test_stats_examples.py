from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats as reference

from bench.errors import UserError
from bench.report.stats_examples import FILE, bootstrap, correctness, examples, mcnemar, predictions
from tests.report.made_up import run

CALLS = (mcnemar, bootstrap, examples)


def discordant(only_a: int, only_b: int, n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Two [n] vectors of which the first is right alone on so many examples, and the second on so many."""
    a, b = np.ones(n, dtype=bool), np.ones(n, dtype=bool)
    b[:only_a], a[only_a : only_a + only_b] = False, False
    return a, b


@pytest.mark.parametrize("call", CALLS)
def test_empty_and_malformed_input_is_refused(call) -> None:  # type: ignore[no-untyped-def]
    good = np.ones((2, 5), dtype=bool)
    with pytest.raises(ValueError, match="no example"):
        call(good[:, :0], good[:, :0])
    with pytest.raises(ValueError, match="no example"):
        call(good[:0], good[:0])
    with pytest.raises(ValueError, match=r"got \(2, 5\) and \(2, 4\)"):
        call(good, good[:, :4])
    for bad in (good.astype(float), np.ones((1, 2, 3), dtype=bool)):
        with pytest.raises(ValueError, match="true and false"):
            call(bad, bad)


@pytest.mark.parametrize(("only_a", "only_b"), [(1, 9), (9, 1), (5, 15), (0, 4), (3, 4), (10, 10), (0, 0), (1, 0)])
def test_mcnemar_of_one_seed_is_the_binomial_test(only_a: int, only_b: int) -> None:
    n = only_a + only_b
    expected = reference.binomtest(only_a, n).pvalue if n else 1.0
    assert mcnemar(*discordant(only_a, only_b)) == pytest.approx(expected)


def test_mcnemar_by_hand() -> None:
    assert mcnemar(*discordant(1, 9)) == pytest.approx(2 * (1 + 10) / 2**10)


def test_mcnemar_over_seeds_counts_every_sign() -> None:
    draw = np.random.default_rng(5)
    for seeds in (2, 3):
        a, b = draw.random((2, seeds, 9)) < np.array([0.8, 0.5])[:, None, None]
        net = a.sum(0, dtype=int) - b.sum(0, dtype=int)
        sums = [abs(np.dot(signs, net)) for signs in itertools.product((-1, 1), repeat=9)]
        assert mcnemar(a, b) == pytest.approx(np.mean(np.array(sums) >= abs(net.sum())))


def test_mcnemar_over_seeds_does_not_take_seeds_for_examples() -> None:
    a, b = discordant(3, 9)
    once = mcnemar(a, b)
    assert mcnemar(np.tile(a, (5, 1)), np.tile(b, (5, 1))) == pytest.approx(once)
    assert once > 0.1 > reference.binomtest(15, 60).pvalue  # what pooling the 60 answers would have claimed


def test_mcnemar_of_many_examples_agrees_with_the_clustered_chi_square() -> None:
    draw = np.random.default_rng(2)
    a, b = draw.random((5, 4000)) < 0.812, draw.random((5, 4000)) < 0.8
    net = a.sum(0, dtype=int) - b.sum(0, dtype=int)
    chi = net.sum() ** 2 / (net**2).sum()  # Durkalski et al. 2003, equal clusters
    assert mcnemar(a, b) == pytest.approx(float(reference.chi2.sf(chi, 1)), abs=0.01)


def test_bootstrap_equals_drawing_examples() -> None:
    draw = np.random.default_rng(4)
    a, b = draw.random((3, 300)) < 0.85, draw.random((3, 300)) < 0.8
    net = 100 * (a.mean(0) - b.mean(0))
    drawn = net[draw.integers(0, 300, (10_000, 300))].mean(1)
    assert bootstrap(a, b) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.3)  # the grid is 1 / 9
    assert bootstrap(a, b) == bootstrap(a, b)
    low, high = bootstrap(a, b)
    assert bootstrap(b, a) == pytest.approx((-high, -low), abs=0.3)


def test_counts_and_shares_by_hand() -> None:
    a = np.array([[1, 1, 0, 0], [1, 0, 1, 0]], dtype=bool)
    b = np.array([[1, 0, 1, 0], [1, 0, 0, 0]], dtype=bool)
    found = examples(a, b)
    assert (found.n, found.seeds, found.both, found.only_a, found.only_b, found.neither) == (4, 2, 2, 2, 1, 3)
    assert (found.disagree, found.difference) == (100 * 3 / 8, 100 * 1 / 8)
    assert found.across == 100 * 1 / 8  # a of seed 0 against b of seed 1: 1 of 4; a of 1 against b of 0: none
    assert found.within == 100 * (2 / 4 + 1 / 4) / 2
    assert found.p == mcnemar(a, b) == 1.0 and (found.low, found.high) == bootstrap(a, b)


def test_same_accuracy_and_different_errors() -> None:
    found = examples(*discordant(10, 10))
    assert (found.difference, found.disagree, found.p) == (0.0, 50.0, 1.0) and found.low < 0 < found.high
    assert math.isnan(found.across) and math.isnan(found.within)
    same = examples(*discordant(0, 0))
    assert (same.disagree, same.low, same.high, same.p, same.neither) == (0.0, 0.0, 0.0, 1.0, 0)


def folder(root: Path, seeds: dict[str, dict[int, list[int] | None]]) -> tuple[pd.DataFrame, dict[str, Path]]:
    """Runs whose predictions.npz holds these guesses; None: no file. The label is 0, 1, 2."""
    rows, files = [], {}
    for name, guesses in seeds.items():
        for seed, guess in guesses.items():
            rows.append(run(name, seed, 50.0))
            files[rows[-1]["fingerprint"]] = root / f"{name}{seed}" / FILE
            if guess is not None:
                files[rows[-1]["fingerprint"]].parent.mkdir()
                label = np.arange(len(guess), dtype=np.uint16)
                np.savez(files[rows[-1]["fingerprint"]], label=label, guess=np.array(guess, dtype=np.uint16))
    return pd.DataFrame(rows), files


def test_correctness_pairs_the_seeds_that_left_predictions(tmp_path: Path) -> None:
    runs = {"a": {0: [0, 1, 2], 1: [9, 1, 2], 2: [0, 1, 2], 3: [0, 0, 0]}, "b": {3: [0, 1, 0], 0: [9, 9, 2], 1: None}}
    frame, files = folder(tmp_path, runs)  # type: ignore[arg-type]
    seeds, a, b = correctness(frame, "a", "b", files)
    assert seeds == [0, 3]
    assert a.tolist() == [[True] * 3, [True, False, False]] and b.tolist() == [
        [False, False, True],
        [True, True, False],
    ]
    del files["big->small/a/0"]
    assert correctness(frame, "a", "b", files)[0] == [3]
    seeds, a, b = correctness(frame, "a", "b", {})
    assert seeds == [] and a.shape == b.shape == (0, 0)
    with pytest.raises(ValueError, match="no runs"):
        correctness(frame.iloc[:0], "a", "b", files)


def test_other_test_examples_are_refused(tmp_path: Path) -> None:
    frame, files = folder(tmp_path, {"a": {0: [0, 1, 2]}, "b": {0: [0, 1]}})
    with pytest.raises(ValueError, match="different test examples"):
        correctness(frame, "a", "b", files)


def test_damaged_predictions_are_one_line(tmp_path: Path) -> None:
    good = tmp_path / "good.npz"
    np.savez_compressed(good, label=np.arange(500), guess=np.arange(500), confidence=np.ones(500))
    found = predictions(good)
    assert found is not None and set(found) == {"label", "guess", "confidence"}
    assert predictions(tmp_path / "none" / FILE) is None
    whole = good.read_bytes()
    damage = {
        "empty": b"",
        "text": b"not an archive",
        "cut": whole[:-40],
        "flipped": whole[:200] + b"\xff" * 60 + whole[260:],
    }
    for name, content in damage.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match="not readable as predictions"):
            predictions(tmp_path / name)
    np.save(tmp_path / "array.npy", np.arange(3))
    with pytest.raises(UserError, match="not readable as predictions"):
        predictions(tmp_path / "array.npy")
    for arrays in ({"label": np.arange(3)}, {"label": np.arange(3), "guess": np.arange(4)}, {"label": 1, "guess": 1}):
        np.savez(tmp_path / "odd.npz", **arrays)  # type: ignore[arg-type]
        with pytest.raises(UserError, match="arrays label and guess"):
            predictions(tmp_path / "odd.npz")
