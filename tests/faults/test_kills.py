"""A real suite, killed with a signal that nothing can catch: no number moves, nothing doubles."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.faults.child import start
from tests.faults.conftest import same_in_mlflow, same_results, words

KILLS = int(os.environ.get("KDBENCH_KILLS", "25"))
CRASHES = int(os.environ.get("KDBENCH_CRASHES", "40"))


def survived(folder: Path, suite: Path, whole: tuple[Path, float], kills: int, seed: int) -> int:
    """Kill the suite at random moments, whole runs of it one after the other until there were enough kills; how many
    values were compared."""
    draw, compared, turn = random.Random(seed), 0, 0
    left = kills
    while left:
        turn += 1
        results, code = folder / f"killed-{turn}", None
        while code is None:
            process = start(words(suite, results), folder / f"killed-{turn}.log")
            process.join(draw.uniform(0.05, 1.0) * whole[1] if left else None)
            if (code := process.exitcode) is None:
                process.kill()
                process.join()
                left -= 1
        assert code == 0, (folder / f"killed-{turn}.log").read_text()
        compared += same_results(results, whole[0]) + same_in_mlflow(results, whole[0])
    return compared


def test_three_kills(tmp_path: Path, suite_file: Path, whole: tuple[Path, float]) -> None:
    assert survived(tmp_path, suite_file, whole, 3, seed=0) > 100


@pytest.mark.slow
def test_many_kills(tmp_path: Path, suite_file: Path, whole: tuple[Path, float]) -> None:
    compared = survived(tmp_path, suite_file, whole, KILLS, seed=1)
    print(f"{KILLS} kills, {compared} values compared")  # noqa: T201


def crashed(folder: Path, suite: Path, whole: Path, points: list[int]) -> None:
    """Let the process die at each of these calls (see `child.dying`), then finish."""
    log = folder / "crashed.log"
    for point in points:
        process = start(words(suite, folder / "crashed"), log, crash_at=point)
        process.join()
        assert process.exitcode in (0, 9), log.read_text()
    process = start(words(suite, folder / "crashed"), log)
    process.join()
    assert process.exitcode == 0, log.read_text()
    same_results(folder / "crashed", whole)
    same_in_mlflow(folder / "crashed", whole)


def calls(whole: Path) -> list[str]:
    """What the uninterrupted run did to the disk and to MLflow, call by call."""
    return [line.split(" ", 1)[1] for line in whole.with_suffix(".calls").read_text().splitlines()]


def test_it_dies_while_it_writes(tmp_path: Path, suite_file: Path, whole: tuple[Path, float]) -> None:
    made = calls(whole[0])
    assert {"fsync", "replace", "half of a file", "create_run", "set_terminated", "finish"} <= set(made)
    halves = [number for number, name in enumerate(made, 1) if name == "half of a file"]
    crashed(tmp_path, suite_file, whole[0], [halves[1], 12, made.index("set_terminated") + 1])


@pytest.mark.slow
@pytest.mark.parametrize("part", range(CRASHES))
def test_it_dies_at_any_call(part: int, tmp_path: Path, suite_file: Path, whole: tuple[Path, float]) -> None:
    made = calls(whole[0])
    crashed(tmp_path, suite_file, whole[0], [random.Random(part).randrange(1, len(made) + 1)])
