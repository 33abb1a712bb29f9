"""Damaged inputs by a seeded fuzz: no traceback, no hang, and never another result than that of the whole input.

`KDBENCH_FUZZ=20 pytest -m 'slow or not slow' tests/damage/test_fuzz.py` takes twenty times as many.
"""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save

from bench import data as datasets
from bench import models
from bench.data import cache
from bench.errors import UserError
from bench.jobs import checkpoint, run_writer
from bench.jobs.manifest import source_checksums, write_manifest
from bench.models import student
from bench.report.source import manifest
from bench.suite import plain
from bench.suite import suite as suites
from bench.suite.suite import Run, Suite, validate
from methods.base import Refusal
from tests.conftest import TINY
from tests.damage.conftest import run
from tests.damage.spoil import inputs, spoilt
from tests.data.conftest import Write, shard, tiny_set  # noqa: F401  # fixtures
from tests.tracking.conftest import Make, make, rows  # noqa: F401  # fixtures
from tracking.frame import frame
from tracking.record import Record, RecordError, scan
from tracking.seal import CHECKSUM_PLACEHOLDER, add_checksum, verify_checksum

PATIENCE_S = 20


@pytest.fixture(autouse=True)
def _impatient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A hang is a failure."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"still busy after {PATIENCE_S} s")

    monkeypatch.setenv("KDBENCH_CACHE", str(tmp_path / "cache"))
    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(PATIENCE_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def refused(act: Callable[[], Any]) -> Any:
    """What it returns; None where it refuses in one line. Anything else that is raised is a failure."""
    try:
        return act()
    except (UserError, Refusal, RecordError) as error:
        assert str(error) and "\n" not in str(error) and len(str(error)) < 1500, str(error)[:3000]
        return None


LETTERS = list(zip("abcdefgh", "bcdefghi", strict=True))
BOMB = "x: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(f"x{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in LETTERS)
MERGES = "x: &a {k1: 1, k2: 2, k3: 3}\n" + "".join(
    f"x{b}: &{b} {{<<: [{', '.join([f'*{a}'] * 9)}]}}\n" for a, b in LETTERS
)
ODD: tuple[str, ...] = (
    'null', 'true', '[]', '{}', "''", '-1', '0', '1e400', '.nan', '-.inf', '9' * 30, '9' * 5000, '1_0',
    '0x7fffffffffffffff', '2024-02-30', '2024-01-01', '!!binary aGk=', '!!set {a, b}',
    '!!python/object:os.system {}', '!!bool x', "!!int ''", '!!timestamp x', '{1: 2}', '{null: 1}', '{[a]: b}',
    '[[[[[[]]]]]]', '[' * 60 + ']' * 60, '[' * 3000 + ']' * 3000, '&a [*a]', "'../../etc'", "'a\\0b'", '"\\0"',
    '"\\ud800"', 'x' * 5000, "['kd', 'kd']", '[kd, [kd]]', '{kd: {tau: {a: 1}}}', '{kd: {tau: .inf}}',
    '{method: [kd]}', '[{method: {a: 1}}, all]', '[wrn_40_9999 -> resnet8]', '[resnet8w9999 -> resnet8w9998]',
    '[resnet9998x999 -> resnet8]', "['a -> b -> c']", '[{teacher: 1, student: 2}]', '1000000000000', '[0, 0]',
    '[-1]', '[.nan]', 'kd + kd', '0.5*', "'+'", '*missing', "'%YAML 9'", '|\n  text', '@', '\t-', '\x07',
    '{a: &b 1, c: *b}',
)  # fmt: skip


def odd(seed: int) -> str:
    """A suite with one value of one key replaced, or a text of its own."""
    draw = random.Random(f"yaml {seed}")
    raw = {k: v for k, v in TINY.items() if k != "name"}
    raw |= {"teacher": {"seed": 0, "protocol": {"lr": 0.1}}, "tune": {"trials": 3, "space": {"kd": {"tau": [2, 8]}}}}
    places: list[tuple[str, ...]] = [(key,) for key in (*raw, "name", "about")]
    places += [(key, inner) for key in ("data", "protocol", "teacher", "tune") for inner in raw[key]]
    path = draw.choice(places)
    mark = "THE PLACE"
    if len(path) == 2:
        raw[path[0]] = {**raw[path[0]], path[1]: mark}
    else:
        raw[path[0]] = mark
    text = yaml.safe_dump(raw).replace(mark, ODD[seed % len(ODD)])
    return draw.choice([BOMB, MERGES]) + text if seed % 23 == 0 else text


def fingerprints(suite: Suite) -> set[str]:
    data = {"name": "digits", "fingerprint": "d"}
    return {
        Run.of(suite, p, m, s, data, "t").fingerprint
        for p in suite.pairs
        for s in suite.seeds[:3]
        for m in suite.methods
    }


@inputs(2 * len(ODD))
def test_an_odd_suite(seed: int, tmp_path: Path) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(odd(seed), encoding="utf-8", errors="surrogatepass")
    suite = refused(lambda: suites.load(str(file)))
    assert suite is None or fingerprints(suite)


@inputs(60)
def test_a_damaged_suite(seed: int, tmp_path: Path) -> None:
    """Read or refused; and where it is read and says something else, its runs are others."""
    text = yaml.safe_dump({k: v for k, v in TINY.items() if k != "name"}).encode()
    file = tmp_path / "tiny.yaml"
    file.write_bytes(text)
    whole = suites.load(str(file))
    file.write_bytes(spoilt(text, seed))
    suite = refused(lambda: suites.load(str(file)))
    if suite is not None and fingerprints(suite) == fingerprints(whole):
        assert (suite.protocol, suite.pairs, suite.methods) == (whole.protocol, whole.pairs, whole.methods)


@inputs(60)
def test_a_damaged_record(seed: int, make: Make) -> None:  # noqa: F811
    record = make()
    data, final, epochs = record.path.read_bytes(), record.final, record.epochs
    record.path.write_bytes(spoilt(data, seed))
    changed = record.path.read_bytes() != data
    seen = refused(Record(record.folder).read)
    if seen is not None and seen.end is not None:
        assert repr(Record(record.folder).final) == repr(final) and Record(record.folder).epochs == epochs
    done = run_writer.is_finished_after_repair(again := Record(record.folder))
    assert done or (again.status in ("absent", "running") and changed)
    if again.status != "absent":
        assert again.epochs == epochs[: len(again.epochs)], "a prefix of what was there, or nothing"
    again.begin(record.folder.name, {}, {})
    again.write_epochs(rows(3))
    assert Record(record.folder).epochs == epochs


@inputs(30)
def test_a_damaged_checkpoint(seed: int, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    states: list[dict[str, Any]] = [{"epoch": n, "w": torch.full((300,), float(n))} for n in (1, 2)]
    for state in states:
        checkpoint.save(path, state)
    data = path.read_bytes()
    path.write_bytes(spoilt(data, seed))
    found = checkpoint.load(path)
    assert found is not None
    assert found["epoch"] == (2 if path.read_bytes() == data else 1)
    assert torch.equal(found["w"], states[found["epoch"] - 1]["w"])
    previous = path.with_suffix(".prev")
    previous.write_bytes(spoilt(previous.read_bytes() + b"\n", f"prev {seed}"))
    if path.read_bytes() != data:
        assert checkpoint.load(path) is None


@inputs(40)
def test_a_damaged_shard(seed: int, tiny_set: Path, tmp_path: Path) -> None:  # noqa: F811
    raw = {**TINY, "data": {"source": "parquet", "path": str(tiny_set), "validation": 6}}
    suite = validate(raw, "test")
    write_manifest(tmp_path, suite, [], source_checksums(suite, tmp_path))
    whole = datasets.load(suite.data).describe()
    path = sorted(tiny_set.iterdir())[seed % 3]
    data = path.read_bytes()
    path.write_bytes(spoilt(data, seed))
    read = refused(lambda: (d := datasets.load(suite.data)).describe() | d.describe_test())
    if path.read_bytes() != data:
        with pytest.raises(UserError, match=rf"{path.name} is not the file"):
            source_checksums(suite, tmp_path)
    else:
        assert read.items() >= whole.items()


@inputs(30)
def test_a_damaged_sealed_text(seed: int, tmp_path: Path) -> None:
    """Tuned values and a suite's manifest: as they were, or refused."""
    content = {"method": "kd", "values": {"kd": 0.9, "tau": 4.0}, "made_for": {"teacher": "t"}, "names": ["a", "b"] * 9}
    text = add_checksum(f"# {CHECKSUM_PLACEHOLDER}\n{yaml.safe_dump(content)}")
    file = tmp_path / "kd.yaml"
    file.write_bytes(spoilt(text.encode(), seed))
    try:
        found = plain.load(verify_checksum(file.read_text(encoding="utf-8")))
        assert dict(found["values"]) == content["values"] and found == content
    except (ValueError, TypeError, KeyError):  # as the reader of tuned values
        assert file.read_bytes() != text.encode()
    suite = validate(TINY, "test")
    write_manifest(tmp_path, suite, ["f0", "f1"], {})
    path = tmp_path / "suite.json"
    whole = manifest(tmp_path, "tiny")
    path.write_bytes(spoilt(path.read_bytes(), seed))
    found = refused(lambda: manifest(tmp_path, "tiny"))
    assert found is None or {**found, "seal": ""} == {**whole, "seal": ""} or sorted(found) != sorted(whole)


@inputs(30)
def test_a_damaged_network(seed: int, tmp_path: Path) -> None:
    """A checkpoint of another's making has no checksum of ours: it is read or refused. The cache of images has one."""
    network = models.build("resnet8w4", in_channels=1, size=8, n_classes=10)
    file = tmp_path / ("n.pth" if seed % 2 else "n.safetensors")
    if seed % 2:
        torch.save(network.state_dict(), file)
    else:
        file.write_bytes(save(network.state_dict()))
    file.write_bytes(spoilt(file.read_bytes(), seed))
    refused(lambda: models.load_state(network, file))
    refused(lambda: student.load(file))
    array = np.arange(2 * 3 * 4 * 4, dtype=np.uint8).reshape(2, 3, 4, 4)
    cache.load_or_build("key", lambda: array)
    kept = tmp_path / "cache" / "key.npy"
    kept.write_bytes(spoilt(kept.read_bytes(), seed))
    assert (cache.load_or_build("key", lambda: array) == array).all()


def trained(raw: dict[str, Any], results: Path) -> dict[str, tuple[dict[str, float], bytes]]:
    assert not run(raw, results).failures
    return left(results)


def left(results: Path) -> dict[str, tuple[dict[str, float], bytes]]:
    return {
        record.folder.name: (
            {k: v for k, v in (record.final or {})["metrics"].items() if "_ms" not in k},
            (record.folder / "student.safetensors").read_bytes(),
        )
        for record in scan(results / "tiny")
    }


ONE: dict[str, Any] = {
    **TINY,
    "methods": ["kd"],
    "seeds": 1,
    "protocol": {**TINY["protocol"], "epochs": 1, "milestones": []},
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, tuple[dict[str, float], bytes]]]:
    torch.set_num_threads(1)
    results = tmp_path_factory.mktemp("whole")
    return results, trained(ONE, results)


@inputs(16)
def test_damaged_results_are_named_and_made_again(
    seed: int,
    whole: tuple[Path, dict[str, tuple[dict[str, float], bytes]]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One file of the results is damaged: a report tells the same or refuses, and the same command mends it."""
    results, numbers = whole
    copy = tmp_path / "results"
    shutil.copytree(results, copy)
    files = sorted(
        p for p in copy.rglob("*") if p.is_file() and p.suffix in (".jsonl", ".safetensors", ".npz", ".json")
    )
    files = [p for p in files if "claims" not in p.parts]
    assert len(files) >= 5
    path = files[seed % len(files)]
    data = path.read_bytes()
    path.write_bytes(spoilt(data, seed))
    seen = refused(lambda: frame(scan(copy / "tiny")))
    if seen is not None and seen["status"].item() == "finished":
        (name,) = numbers
        assert seen["test/top1"].item() == numbers[name][0]["test/top1"]
    if "teachers" in path.parts:  # it is looked at when a student needs it
        shutil.rmtree(copy / "tiny" / "runs")
    assert trained(ONE, copy) == numbers
    named = path.read_bytes() == data or path.name == "suite.json" or "kdbench: " in capsys.readouterr().err
    torn = path.suffix == ".jsonl"  # a last line that was cut off is what a kill leaves: no damage
    assert named or torn
    assert all(record.is_intact() for record in scan(copy / "tiny"))
