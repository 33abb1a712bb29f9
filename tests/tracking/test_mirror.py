from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.tracking.conftest import Make, rows, until
from tracking.deliver import last_delivery
from tracking.location import TrackingError
from tracking.mirror import Mirror, sync, undelivered
from tracking.query import runs
from tracking.store import Store


def test_mirror_delivers_all_before_it_closes(make: Make, store: Store) -> None:
    records = [make(seed, status=None) for seed in range(3)]
    with Mirror(lambda: store) as mirror:
        for record in records:
            mirror.offer(record)
        until(lambda: not mirror.pending())
        records[0].write_epochs(rows(4))
        mirror.offer(records[0])
        assert mirror.pending() == []  # too soon after the last time
        mirror.offer(records[0], every_s=0)
        for seed in range(3):
            mirror.finish(make(seed))
    assert mirror.pending() == [] and mirror.time_spent > 0
    assert runs(store.uri, "tiny")["status"].tolist() == ["finished"] * 3


def test_mirror_is_silent_when_nobody_answers_and_sync_delivers_later(
    make: Make, store: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    mirror = Mirror(lambda: Store("http://127.0.0.1:9", tmp_path))
    record = make()
    start = time.monotonic()
    mirror.offer(record)
    mirror.finish(record)
    assert time.monotonic() - start < 0.5
    until(lambda: "nobody answers" in mirror.pending()[0][1])
    start = time.monotonic()
    mirror.close()
    assert time.monotonic() - start < 1  # it does not try again so soon
    ((waiting, reason),) = mirror.pending()
    assert waiting is record and "127.0.0.1:9" in reason and mirror.time_waited < 1
    assert capfd.readouterr() == ("", "") and caplog.text == ""
    assert [r.folder for r in undelivered(tmp_path)] == [record.folder]
    assert sync(tmp_path, store.uri) == (1, 0, [])
    assert undelivered(tmp_path) == []


def test_waiting_ends_with_the_last_delivery_or_with_the_store(make: Make, store: Store, tmp_path: Path) -> None:
    records = [make(seed) for seed in range(3)]
    with Mirror(lambda: store) as mirror:
        for record in records:
            mirror.finish(record)
        mirror.wait()
        assert all(last_delivery(record)["done"] for record in records)
    mirror = Mirror(lambda: Store("http://127.0.0.1:9", tmp_path))
    mirror.finish(make(3))
    start = time.monotonic()
    mirror.wait()
    assert time.monotonic() - start < 20 and len(mirror.pending()) == 1
    mirror.close()
    with Mirror(lambda: store) as idle:
        start = time.monotonic()
        idle.wait()
        assert time.monotonic() - start < 1


def test_mirror_goes_on_when_the_store_comes_back(make: Make, store: Store) -> None:
    answers = iter([TrackingError("away"), TrackingError("still away")])

    def factory() -> Store:
        for answer in answers:
            raise answer
        return store

    with Mirror(factory, retry_s=0.05) as mirror:
        record = make()
        mirror.finish(record)
        until(lambda: not mirror.pending())
    assert last_delivery(record)["done"]


def test_mirror_passes_over_a_damaged_record(make: Make, store: Store) -> None:
    damaged, sound = make(0), make(1)
    damaged.path.write_bytes(b"x" + damaged.path.read_bytes())
    with Mirror(lambda: store) as mirror:
        mirror.finish(damaged)
        mirror.finish(sound)
    ((record, reason),) = mirror.pending()
    assert record is damaged and "line 1 is damaged" in reason and last_delivery(sound)["done"]


def test_mirror_survives_whatever_a_store_does(make: Make) -> None:
    def factory() -> Store:
        raise ZeroDivisionError("surprise")

    with Mirror(factory) as mirror:
        mirror.finish(make())
    assert mirror.pending()[0][1] == "surprise"


def test_offline_contacts_nothing(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDBENCH_OFFLINE", "1")
    with Mirror(lambda: pytest.fail("contacted")) as mirror:
        record = make()
        mirror.offer(record)
        mirror.finish(record)
    assert mirror.pending() == [(record, "offline")]


def test_sync_says_at_once_that_nobody_answers(make: Make, tmp_path: Path) -> None:
    make()
    with pytest.raises(TrackingError, match="nobody answers"):
        sync(tmp_path, "http://127.0.0.1:9")
