"""Two calls in one results folder: nothing is trained twice, and both report the whole."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from tests.faults.child import start
from tests.faults.conftest import SUITE, same_in_mlflow, same_results, words
from tracking.record import scan


def test_three_calls_at_once(tmp_path: Path, suite_file: Path, whole: tuple[Path, float]) -> None:
    """Twice the same suite, and another one with the same teacher."""
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump({**SUITE, "methods": ["vanilla"], "seeds": 1}))
    calls = {"a": suite_file, "b": suite_file, "c": other}
    logs = {name: tmp_path / f"{name}.log" for name in calls}
    processes = [start(words(suite, tmp_path / "results"), logs[name]) for name, suite in calls.items()]
    for process in processes:
        process.join()
    said = {name: log.read_text() for name, log in logs.items()}
    assert [process.exitcode for process in processes] == [0, 0, 0], said
    same_results(tmp_path / "results", whole[0])
    same_in_mlflow(tmp_path / "results", whole[0])
    trained = re.findall(r"^(?:cohort \d[^:]*: )?(teacher \S+|\S+ seed \d): [\d.]+ s", "\n".join(said.values()), re.M)
    seeds = [f"resnet8w8->resnet8w4 seed {seed}" for seed in (0, 0, 1)]  # seed 0 by one of a and b, and by c
    assert sorted(trained) == [*seeds, "teacher resnet8w8"]
    assert all("resumed" not in record.header for record in scan(tmp_path / "results" / "faulty"))
    assert all("crd" in said[name].rpartition("top-1 (%)")[2] for name in "ab")
