from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from bench.data import Data, images, parquet
from bench.data.cache import content_key, load_or_build
from tests.data.conftest import read


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each decoding took."""
    calls: list[int] = []

    def count(items: list[images.Item], *rest: object) -> np.ndarray:
        calls.append(len(items))
        return images.decode(items, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(parquet, "decode", count)
    return calls


def whole(folder: Path) -> Data:
    data = read(source="parquet", path=str(folder), validation=6)
    _ = data.test
    return data


def test_images_are_decoded_once(tiny_set: Path, decoded: list[int]) -> None:
    first, second = whole(tiny_set), whole(tiny_set)
    assert decoded == [24, 9]
    assert torch.equal(first.train.x, second.train.x) and torch.equal(first.test.x, second.test.x)
    assert first.fingerprint == second.fingerprint


def test_test_images_wait_until_they_are_wanted(tiny_set: Path, decoded: list[int]) -> None:
    read(source="parquet", path=str(tiny_set), validation=6)
    assert decoded == [24]


def test_a_changed_shard_is_decoded_anew(tiny_set: Path, decoded: list[int]) -> None:
    """Even when its size and time stay as they were."""
    first = whole(tiny_set)
    path = tiny_set / "train-00000-of-00002.parquet"
    before = path.stat()
    table = pq.read_table(path)
    pq.write_table(table.take(list(range(11, -1, -1))), path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert whole(tiny_set).fingerprint != first.fingerprint
    assert decoded == [24, 9, 24]


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text", "tail"])
def test_a_damaged_cache_is_made_anew(tiny_set: Path, cache: Path, decoded: list[int], damage: str) -> None:
    first = whole(tiny_set)
    for file in cache.iterdir():
        data = bytearray(file.read_bytes())
        data[300] ^= 1
        spoilt = {
            "cut": bytes(data[:-200]),
            "flip": bytes(data),
            "empty": b"",
            "text": b"hello",
            "tail": file.read_bytes()[:-1],
        }
        file.write_bytes(spoilt[damage])
    again = whole(tiny_set)
    assert decoded == [24, 9] * 2 and torch.equal(first.train.x, again.train.x)
    whole(tiny_set)
    assert decoded == [24, 9] * 2
    assert sorted(f.suffix for f in cache.iterdir()) == [".npy", ".npy"]


def test_settings_have_their_own_key(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"a")
    keys = {content_key([file], "img", size, like) for size in (None, 8) for like in (None, (3, 8))}
    assert len(keys) == 4 and content_key([file, file]) != content_key([file])


def test_a_failed_build_leaves_nothing(cache: Path) -> None:
    def fail() -> np.ndarray:
        raise RuntimeError("no images")

    with pytest.raises(RuntimeError, match="no images"):
        load_or_build("key", fail)
    assert not cache.exists()


def test_without_a_place_to_write_images_are_still_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("KDBENCH_CACHE", str(tmp_path / "file" / "below"))
    array = np.zeros((2, 1, 3, 3), np.uint8)
    with pytest.warns(UserWarning, match="not kept"):
        assert (load_or_build("key", lambda: array) == array).all()
