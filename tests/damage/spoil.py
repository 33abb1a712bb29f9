"""Damage as disks, kills and hands do it, drawn from a seed."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest

Spoil = Callable[[bytes, random.Random], bytes]


def cut(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.randrange(len(data))]


def flipped(data: bytes, draw: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 3, 20))):
        out[draw.randrange(len(out))] ^= 1 << draw.randrange(8)
    return bytes(out)


def zeroed(data: bytes, draw: random.Random) -> bytes:
    start, size = draw.randrange(len(data)), draw.choice((1, 16, 512, 4096))
    return data[:start] + bytes(min(size, len(data) - start)) + data[start + size :]


def doubled(data: bytes, draw: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    at = draw.randrange(len(lines))
    return b"".join([*lines[: at + 1], *lines[at:]])


def without_a_line(data: bytes, draw: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    del lines[draw.randrange(len(lines))]
    return b"".join(lines)


def shuffled(data: bytes, draw: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    draw.shuffle(lines)
    return b"".join(lines)


def longer(data: bytes, draw: random.Random) -> bytes:
    return data + draw.randbytes(draw.choice((1, 100)))


def other(data: bytes, draw: random.Random) -> bytes:
    return draw.choice((b"", b"\0" * len(data), b"hello\n", b"\xff\xfe\x00", draw.randbytes(len(data))))


WAYS: tuple[Spoil, ...] = (
    cut,
    cut,
    flipped,
    flipped,
    flipped,
    zeroed,
    doubled,
    without_a_line,
    shuffled,
    longer,
    other,
)


def spoilt(data: bytes, seed: object) -> bytes:
    """Some damage; may leave the bytes as they are (a line that is swapped with itself)."""
    draw = random.Random(str(seed))
    return draw.choice(WAYS)(data, draw)


def inputs(count: int) -> pytest.MarkDecorator:
    """Seeds of a fuzz: `count` of them, and `KDBENCH_FUZZ` times as many in the slow part."""
    more = range(count, count * int(os.environ.get("KDBENCH_FUZZ", "1")))
    slow = [pytest.param(seed, marks=pytest.mark.slow) for seed in more]
    return pytest.mark.parametrize("seed", [*range(count), *slow])
