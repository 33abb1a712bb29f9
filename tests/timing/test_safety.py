"""What `kdbench time --safety` measures is what it says: the same training twice, once with everything kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.jobs import run_writer
from bench.training.cohort import Cohort
from tests.test_cli import call
from tracking.mirror import Mirror
from tracking.record import Record


def test_both_sides_train_the_same_and_one_keeps_it(
    tiny_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[list[list[dict[str, float]]]] = []
    kept: list[Record] = []
    epochs, end = Cohort.epochs, run_writer.RunWriter.end

    def spy(self: Cohort, *words: Any) -> Iterator[int]:
        yield from epochs(self, *words)
        trained.append(
            [[{k: v for k, v in r["metrics"].items() if "cost" not in k} for r in m.history] for m in self.members]
        )

    monkeypatch.setattr(Cohort, "epochs", spy)
    monkeypatch.setattr(run_writer.RunWriter, "end", lambda self, *words: kept.append(self.record) or end(self, *words))  # type: ignore[func-returns-value]
    assert call("time", str(tiny_file), "--safety", "--rounds", "3", "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert len(trained) == 6 and all(histories == trained[0] for histories in trained)
    assert len({record.folder for record in kept}) == 6 and figures["students"] == 2
    assert figures["lowest_cpu"] <= figures["safe_over_bare_cpu"] <= figures["highest_cpu"]
    assert figures["safe_over_bare_cpu"] > 1 and figures["bare_cpu_s"] > 0


def test_what_was_not_kept_is_not_timed(
    tiny_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Mirror, "pending", lambda self: [(Record("r"), "nobody answers there")])
    assert call("time", str(tiny_file), "--safety", "--rounds", "3") == 2
    assert "not all was kept: nobody answers there" in capsys.readouterr().err
    assert call("time", str(tiny_file), "--safety", "--tune") == 2
