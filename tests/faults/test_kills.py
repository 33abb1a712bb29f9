"""A real suite, killed with a signal that nothing can catch: no number moves, nothing doubles."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.faults.child import start
from tests.faults.conftest import same_in_mlflow, same_results, words

KILLS = int(os.environ.get("KDBENCH_KILLS", "25"))
CRASHES = int(os.environ.get("KDBENCH_CRASHES", "40"))


def survived(
    folder: Path, suite: Path, whole: tuple[Path, float], kills: int, seed: int, points: Sequence[int] = ()
) -> int:
    """Let the suite die at these calls (see `child.dying`), then kill it at random moments, whole runs of it one after
    the other until there were enough kills; how many values were compared."""
    draw, compared, turn = random.Random(seed), 0, 0
    log = folder / "killed.log"
    for point in points:
        process = start(words(suite, folder / "killed-1"), log, crash_at=point)
        process.join()
        assert process.exitcode in (0, 9), log.read_text()
    while turn == 0 or kills:
        turn += 1
        results, code = folder / f"killed-{turn}", None
        while code is None:
            process = start(words(suite, results), log)
            process.join(draw.uniform(0.05, 1.0) * whole[1] if kills else None)
            if (code := process.exitcode) is None:
                process.kill()
                process.join()
                kills -= 1
        assert code == 0, log.read_text()
        compared += same_results(results, whole[0]) + same_in_mlflow(results, whole[0])
    return compared


def calls(whole: Path) -> list[str]:
    """What the uninterrupted run did to the disk and to MLflow, call by call."""
    return [line.split(" ", 1)[1] for line in whole.with_suffix(".calls").read_text().splitlines()]


def test_some_deaths(tmp_path: Path, suite_file: Path, whole: tuple[Path, float]) -> None:
    made = calls(whole[0])
    assert {"fsync", "replace", "half of a file", "create_run", "set_terminated", "finish"} <= set(made)
    points = [12, [number for number, name in enumerate(made, 1) if name == "half of a file"][1]]
    assert survived(tmp_path, suite_file, whole, 3, seed=0, points=points) > 100


@pytest.mark.slow
def test_many_kills(tmp_path: Path, suite_file: Path, whole: tuple[Path, float]) -> None:
    compared = survived(tmp_path, suite_file, whole, KILLS, seed=1)
    print(f"{KILLS} kills, {compared} values compared")  # noqa: T201


@pytest.mark.slow
@pytest.mark.parametrize("part", range(CRASHES))
def test_it_dies_at_any_call(part: int, tmp_path: Path, suite_file: Path, whole: tuple[Path, float]) -> None:
    made = calls(whole[0])
    assert survived(tmp_path, suite_file, whole, 0, 0, [random.Random(part).randrange(1, len(made) + 1)]) > 100
