"""Is a teacher better than its students are without it?"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from bench.errors import notice
from bench.suite.suite import Run
from tracking.lines import RecordError
from tracking.record import Record


class WeakTeachers:
    """Warns, once for each pair, of a teacher whose validation accuracy is below that of its students alone."""

    def __init__(self, results: Path) -> None:
        self.results = results
        self._warned: set[str] = set()

    def warn(self, runs: Iterable[Run]) -> None:
        """By those of the runs that are finished and have learnt from the labels alone."""
        found: dict[str, list[tuple[float, float]]] = {}
        teachers = {run.pair.name: run.pair.teacher for run in runs}
        for run in (run for run in runs if run.method == "vanilla" and run.pair.name not in self._warned):
            with suppress(RecordError, KeyError):  # not begun, damaged, or without a number
                record = Record(self.results / run.suite / "runs" / run.fingerprint)
                end, teacher = record.final or {}, record.header["spec"]["teacher_validation_top1"]
                if end.get("status") == "finished" and teacher is not None:
                    found.setdefault(run.pair.name, []).append((teacher, end["metrics"]["validation/top1"]))
        for pair, accuracies in found.items():
            teacher, alone = (sum(values) / len(values) for values in zip(*accuracies, strict=True))
            if teacher < alone:
                self._warned.add(pair)
                notice(
                    f"teacher {teachers[pair]} of {pair}: {teacher:.2f} % on validation, and the student alone has"
                    f" {alone:.2f} % (vanilla, n = {len(accuracies)}): there is little to learn; train it longer"
                    " (teacher: {protocol: {epochs: …}}), or take another"
                )
