from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydantic import TypeAdapter

from bench.data import Data, DataSpec, load

SPEC: TypeAdapter[Any] = TypeAdapter(DataSpec)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("KDBENCH_CACHE", str(folder))
    return folder


def read(**spec: Any) -> Data:
    return load(SPEC.validate_python(spec))


def picture(seed: int, *, size: tuple[int, int] = (6, 6), mode: str = "RGB") -> Image.Image:
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], len(mode))
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8), mode=None)


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def rows(n: int, seed: int = 0, **picture_of: Any) -> list[dict[str, Any]]:
    return [{"bytes": encoded(picture(1000 * seed + i, **picture_of)), "path": None} for i in range(n)]


Write = Callable[..., Path]


@pytest.fixture
def shard(tmp_path: Path) -> Write:
    """Writes one shard and returns its folder."""

    def write(
        name: str,
        images: Sequence[Any],
        labels: Sequence[Any],
        *,
        img: str = "img",
        label: str = "label",
        names: Sequence[str] | None = None,
    ) -> Path:
        folder = tmp_path / "set"
        folder.mkdir(exist_ok=True)
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        typed = pa.array(images, kind) if images and not isinstance(images[0], str) else pa.array(images)
        table = pa.table({img: typed, label: pa.array(labels)})
        if names:
            features = {img: {"_type": "Image"}, label: {"names": list(names), "_type": "ClassLabel"}}
            table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        pq.write_table(table, folder / name)
        return folder

    return write


@pytest.fixture
def tiny_set(shard: Write) -> Path:
    """24 train images in two shards, 9 test images, three classes."""
    names = ["ant", "bee", "cat"]
    shard("train-00000-of-00002.parquet", rows(12, 1), [i % 3 for i in range(12)], names=names)
    shard("train-00001-of-00002.parquet", rows(12, 2), [i % 3 for i in range(12)], names=names)
    return shard("test-00000-of-00001.parquet", rows(9, 3), [i % 3 for i in range(9)], names=names)
