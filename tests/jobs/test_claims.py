"""One owner at a time, a dead one has one heir, and nobody is robbed while alive."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest

from bench.jobs import claims
from bench.jobs.claims import (
    ClaimHeld,
    claim,
    claim_file,
    remove_stale_claims,
    run_each_when_free,
    run_when_free,
)

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return claim_file(tmp_path, "resnet14->resnet8 seed 0")


def left_by(path: Path, **changes: Any) -> dict[str, Any]:
    """A claim whose owner went without releasing it."""
    owner: dict[str, Any] = {}

    def die() -> None:
        with claim(path, "work", [path.parent / "record"]):
            os._exit(9)

    process = FORK.Process(target=die)
    process.start()
    process.join()
    owner = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(owner))
    return owner


def test_one_at_a_time(path: Path) -> None:
    assert path.parent.name == "claims" and "->" not in path.name
    with claim(path, "work") as check:
        check()
        with (
            pytest.raises(ClaimHeld, match=rf"^work: in work by process {os.getpid()} on "),
            claim(path, "work"),
        ):
            pass
        check()
    assert not path.exists()
    with claim(path, "work"):
        pass


def _try(path: Path, ready: Barrier, won: Any) -> None:
    ready.wait()
    try:
        with claim(path, "work"):
            won.put(os.getpid())
            time.sleep(1.0)
    except ClaimHeld:
        pass


def test_a_dead_owner_has_one_heir(path: Path) -> None:
    left_by(path)
    ready, won = FORK.Barrier(8), FORK.SimpleQueue()
    processes = [FORK.Process(target=_try, args=(path, ready, won)) for _ in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert won.get() and won.empty()


def test_a_number_that_was_used_again_is_not_the_owner(path: Path) -> None:
    left_by(path, pid=os.getpid())  # it lives, and began at another time
    before = path.read_text()
    with claim(path, "work"):
        assert path.read_text() != before


def test_elsewhere_only_silence_tells(path: Path) -> None:
    """Of another machine, or another container on this one, no process can be seen."""
    left_by(path, host="another", space=["another", "boot", "pid:[1]"])
    with pytest.raises(ClaimHeld, match=r"on another$"), claim(path, "work"):
        pass
    assert remove_stale_claims(path.parent.parent) == []
    os.utime(path, (time.time() - 2 * claims.STALE_S,) * 2)
    with claim(path, "work"):
        pass


def test_the_heart_beats(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "HEARTBEAT_S", 0.02)
    with claim(path, "work"):
        os.utime(path, (1.0, 1.0))
        end = time.monotonic() + 5
        while path.stat().st_mtime == 1.0 and time.monotonic() < end:
            time.sleep(0.01)
        assert path.stat().st_mtime > 1.0


def test_who_slept_too_long_learns_of_it(path: Path) -> None:
    with pytest.raises(ClaimHeld, match="taken over"), claim(path, "work") as check:
        owner = json.loads(path.read_text())
        path.write_text(json.dumps(owner | {"id": "another"}))
        check()
    assert json.loads(path.read_text())["id"] == "another"  # and is not released by the one who lost it


def test_a_torn_claim_is_nobodys(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_text('{"id": "ab')
    with claim(path, "work"):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_the_dead_are_buried_with_what_they_wrote(path: Path) -> None:
    left_by(path)
    with claim(claim_file(path.parent.parent, "another"), "other work"):
        assert remove_stale_claims(path.parent.parent) == [path.parent / "record"] and not path.exists()
        assert remove_stale_claims(path.parent.parent) == []


def test_what_others_hold_comes_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "RETRY_S", 0.0)
    held, said = {"b": 3, "d": 1}, list[str]()

    def act(name: str) -> str:
        if held.get(name):
            held[name] -= 1
            raise ClaimHeld(f"{name}: in work by process 1 on host")
        return name

    def acts() -> Iterator[Any]:
        for name in "abcde":
            yield lambda name=name: act(name)

    assert "".join(run_each_when_free(acts(), said.append)) == "acedb"
    assert len(said) == 1 and said[0].startswith("waiting for b: ") and "process 1 on host" in said[0]
    held["b"] = 2
    assert run_when_free(lambda: act("b"), said.append) == "b" and len(said) == 2
