"""A row of a report once more, on this machine: do the numbers agree?"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.errors import UserError
from bench.jobs.progress import Progress
from bench.jobs.run import run_suite
from bench.jobs.tuned import describe_differences
from bench.suite.pair import Pair
from bench.suite.suite import Suite, validate
from tracking.record import FILE, Record
from tracking.seal import verify_checksum

REFERENCE = Path(__file__).parents[2] / "results" / "reference"  # what came with the project
HARDWARE = ("cpu", "cpu_capability", "device", "torch", "threads")  # where these are equal, so is every bit on a CPU
IDENTITY = ("dataset", "pair", "method", "hp", "seed", "protocol", "data", "teacher_fingerprint", "teacher_hash")


@dataclass(frozen=True)
class Verdict:
    """The recorded numbers beside those of the repetition."""

    fingerprint: str
    label: str
    pair: str
    seed: int
    metrics: dict[str, tuple[float, float]]  # recorded, now; costs left out
    other: str  # how the two machines differ; empty: the same processor, device, torch and threads
    changed: str  # how what was run differs, where another version of the data or the project was used; else empty
    tolerance: float  # of test/top1, percentage points; 0: bit for bit
    folder: Path

    @property
    def agrees(self) -> bool:
        if not self.tolerance:
            return all(before == now for before, now in self.metrics.values())
        before, now = self.metrics["test/top1"]
        return abs(before - now) <= self.tolerance

    def sentence(self) -> str:
        run, (before, now) = f"{self.label} on {self.pair}, seed {self.seed}", self.metrics["test/top1"]
        if not self.tolerance:
            if self.agrees:
                return f"{run}: all {len(self.metrics)} numbers agree to the bit."
            differing = [name for name, (old, new) in self.metrics.items() if old != new]
            return f"{run}: {len(differing)} of {len(self.metrics)} numbers differ, where every bit should agree."
        verb = "agrees" if self.agrees else "does not agree"
        return f"{run}: test top-1 {now:.2f} {verb} with {before:.2f} within {self.tolerance:.2f} points."


def rerun(fingerprint: str, results: Path, *, device: torch.device, from_scratch: bool, progress: Progress) -> Verdict:
    """Repeat the run of that fingerprint (or of a folder that holds a record) under results/reruns.

    The teacher is the one in results/teachers, unless there is none or `from_scratch` is set: then it is trained anew.
    With the same processor, torch, number of threads and teacher the numbers must agree to the bit; else test/top1 must
    lie within three standard errors of the difference of two proportions over the test images.
    """
    record = find_record(fingerprint, results)
    header, end = record.header, record.final
    if end is None or end["status"] != "finished":
        raise UserError(f"{record.path}: this run is {record.status}; only a finished one has numbers to agree with")
    spec = header["spec"]
    rerun_results = results / "reruns" / header["fingerprint"]
    shutil.rmtree(rerun_results, ignore_errors=True)
    _keep_out_of_git(rerun_results.parent)
    _copy_teacher(spec, results, rerun_results, from_scratch)
    suite = _suite_of_run(record, spec)
    outcome = run_suite(suite, rerun_results, device=device, rerun=False, progress=progress, mirror=None)
    if outcome.failures:
        raise UserError(f"the repetition did not finish: {outcome.failures[0]}")
    repetition = Record(rerun_results / suite.name / "runs" / outcome.fingerprints[0])
    assert repetition.final is not None
    shared = [name for name in end["metrics"] if name in repetition.final["metrics"] and not name.startswith("cost/")]
    metrics = {name: (end["metrics"][name], repetition.final["metrics"][name]) for name in shared}
    other = _describe_differences(record.environment, repetition.environment, HARDWARE)
    changed = _describe_differences(spec, repetition.header["spec"], IDENTITY)
    expects_equal_bits = not other and repetition.environment["device"] == "cpu" and "teacher_hash" not in changed
    n = len(np.load(repetition.folder / "predictions.npz", allow_pickle=False)["label"])
    return Verdict(
        header["fingerprint"],
        spec["label"],
        spec["pair"],
        spec["seed"],
        metrics,
        other,
        changed,
        0.0 if expects_equal_bits else three_standard_errors(metrics["test/top1"][0], n),
        repetition.folder,
    )


def find_record(fingerprint: str, results: Path) -> Record:
    """The record of a fingerprint (six digits or more are enough), among one's own results and the project's."""
    if (Path(fingerprint) / FILE).is_file():
        return Record(Path(fingerprint))
    if len(fingerprint) < 6 or set(fingerprint) - set("0123456789abcdef"):
        raise UserError(
            f"'{fingerprint}' is no fingerprint: 6 to 16 of the digits 0-9a-f, as in a report's last section"
        )
    paths = [path for root in (REFERENCE, results) for path in _run_folders(root) if path.name.startswith(fingerprint)]
    found = {path.name: path for path in paths}  # one's own before the project's
    if len(found) != 1:
        problem = (
            f"{len(found)} runs begin with '{fingerprint}'; give more digits" if found else f"no run '{fingerprint}'"
        )
        raise UserError(f"{problem} in {results} or the project's results/reference")
    return Record(next(iter(found.values())))


def three_standard_errors(top1: float, n: int) -> float:
    """Three standard errors of the difference of two accuracies of `top1` % over n images, in percentage points."""
    share = min(max(top1 / 100, 1 / n), 1 - 1 / n)
    return float(300 * (2 * share * (1 - share) / n) ** 0.5)


def _run_folders(root: Path) -> Iterator[Path]:
    yield from (path.parent for path in root.glob(f"*/runs/*/{FILE}"))


def _suite_of_run(record: Record, spec: Mapping[str, Any]) -> Suite:
    """The recorded suite, with this run alone in it."""
    path = record.folder.parent.parent / "suite.json"
    try:
        raw = json.loads(verify_checksum(path.read_text()))["suite"]
        pair = next(pair for pair in raw.pop("pairs") if Pair.model_validate(pair).name == spec["pair"])
    except (OSError, ValueError, KeyError, StopIteration) as error:
        reason = f"{path}: not readable ({type(error).__name__}), and only it says which data the run had"
        raise UserError(reason) from None
    raw = {key: value for key, value in raw.items() if key not in ("tune", "until")}
    row = {"method": spec["method"], "label": spec["label"], "set": spec["hp"]}
    return validate({**raw, "pairs": [pair], "methods": [row], "seeds": [spec["seed"]]}, str(path))


def _keep_out_of_git(folder: Path) -> None:
    """Repetitions are no results: also those in a folder that git follows, as results/reference, stay out of it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".gitignore").write_text("*\n")


def _copy_teacher(spec: Mapping[str, Any], results: Path, rerun_results: Path, from_scratch: bool) -> None:
    for fingerprint in (spec["teacher_fingerprint"], *spec.get("teacher_members", ())):
        if (results / "teachers" / fingerprint).is_dir() and not from_scratch:
            shutil.copytree(results / "teachers" / fingerprint, rerun_results / "teachers" / fingerprint)


def _describe_differences(before: Mapping[str, Any], now: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    return describe_differences({k: before.get(k) for k in keys}, {k: now.get(k) for k in keys})
