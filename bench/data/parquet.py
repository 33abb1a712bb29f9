"""Shards in the Hugging Face layout of image classification."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.data.cache import content_key, load_or_build
from bench.data.images import ImageShape, Item, decode
from bench.data.raw import VALIDATION, SourceData, SplitArrays, held_out_splits, resolve_path
from bench.data.spec import ParquetSpec
from bench.errors import UserError, unknown


def read_parquet(spec: ParquetSpec) -> SourceData:
    splits = find_shards(spec.path)
    train, (validation, test) = splits["train"], held_out_splits(splits)
    assert test is not None  # `find` refuses what has none
    schema = _schema(train[0])
    image, label = image_column(train[0], schema), label_column(train[0], schema, spec.label)
    names = _class_names(schema).get(label)
    y = _labels(train, label, len(names) if names else None)
    if names is None and y.max() >= len(y):
        raise UserError(
            f"{train[0].parent}: label {y.max()} among {len(y)} images; labels run from 0, each with images"
        )
    x = _images(train, image, spec.size, None)
    shape = (x.shape[1], x.shape[2])
    classes = names or tuple(map(str, range(int(y.max()) + 1)))

    def read_split(shards: list[Path]) -> SplitArrays:
        y = _labels(shards, label, len(classes))
        return SplitArrays(_images(shards, image, spec.size, shape), y)

    return SourceData(
        train[0].parent.name,
        classes,
        SplitArrays(x, y),
        partial(read_split, test),
        read_split(validation) if validation else None,
    )


def find_shards(text: str) -> dict[str, list[Path]]:
    """The shards of each split, by the first word of their file names. `text`: a folder, its parent, or a glob."""
    path = resolve_path(text)
    if path.is_dir():
        found = sorted(path.glob("*.parquet")) or sorted(path.glob("data/*.parquet"))
    else:
        found = sorted(p for p in Path(path.anchor).glob(str(path.relative_to(path.anchor))) if p.suffix == ".parquet")
    if not found:
        raise UserError(
            f"no parquet shards at '{text}'; path takes a folder or a glob of train-*.parquet, test-*.parquet"
        )
    splits: dict[str, list[Path]] = {}
    for shard in found:
        splits.setdefault(shard.stem.partition("-")[0], []).append(shard)
    names = ", ".join(p.name for p in found[:4]) + (", …" if len(found) > 4 else "")
    if "train" not in splits:
        raise UserError(f"no train-*.parquet at '{text}', only {names}; name the shards of the train split train-…")
    if not splits.keys() & {"test", *VALIDATION}:
        raise UserError(f"no test-*.parquet at '{text}', only {names}; name the shards of the test split test-…")
    return splits


def image_column(shard: Path, schema: pa.Schema) -> str:
    """`img` or `image`, else the only column that holds encoded images: a struct with a field `bytes`."""
    holding = [f.name for f in schema if pa.types.is_struct(f.type) and f.type.get_field_index("bytes") >= 0]
    for name in ("img", "image"):
        if name in holding:
            return name
    if len(holding) == 1:
        return holding[0]
    raise UserError(
        f"{shard.name}: no column of images; found {', '.join(schema.names)}; "
        "it is 'img' or 'image', a struct of bytes and path as Hugging Face writes it"
    )


def label_column(shard: Path, schema: pa.Schema, requested: str | None) -> str:
    if requested is not None and requested not in schema.names:
        raise unknown(f"column of {shard.name}", requested, schema.names)
    named = list(_class_names(schema))
    guesses = [n for n in ("label", "fine_label") if n in schema.names] or (named if len(named) == 1 else [])
    label = requested or next(iter(guesses), None)
    if label is None:
        raise UserError(f"{shard.name}: no column 'label'; name it with `label:`, one of {', '.join(schema.names)}")
    if not pa.types.is_integer(schema.field(label).type):
        raise UserError(
            f"{shard.name}: column '{label}' holds {schema.field(label).type}; it takes whole numbers from 0"
        )
    return label


def _schema(shard: Path) -> pa.Schema:
    try:
        schema = pq.read_schema(shard)
        _ = schema.names  # which raises where they are damaged
        return schema
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _unreadable(shard, error) from None


def _class_names(schema: pa.Schema) -> dict[str, tuple[str, ...]]:
    """Class names of each column of class labels, from the metadata that Hugging Face writes."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {k: tuple(map(str, f["names"])) for k, f in features.items() if isinstance(f, dict) and f.get("names")}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _column(shard: Path, name: str) -> pa.ChunkedArray:
    if name not in _schema(shard).names:
        raise UserError(f"{shard.name}: no column '{name}' as in the first shard; write all shards alike")
    try:
        return pq.ParquetFile(shard, page_checksum_verification=True).read(columns=[name])[name]
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _unreadable(shard, error) from None


def _unreadable(shard: Path, error: Exception) -> UserError:
    reason = " ".join(str(error).split()).partition(". ")[0][:120]
    return UserError(f"{shard}: not a whole parquet file ({reason}); fetch it again")


def _labels(shards: list[Path], column: str, n_classes: int | None) -> np.ndarray:
    """[N] int64 of all shards, each known to lie in the range of the classes."""
    parts = []
    for shard in shards:
        values = _column(shard, column)
        if values.null_count:
            row = values.is_null().to_pylist().index(True)
            raise UserError(f"{shard.name} row {row}: no label; fill it or drop the row")
        y = values.to_numpy().astype(np.int64)
        wrong = (y < 0) | (y >= n_classes if n_classes is not None else False)
        if wrong.any():
            row, to = int(wrong.argmax()), "up" if n_classes is None else f"to {n_classes - 1}"
            raise UserError(f"{shard.name} row {row}: label {y[row]} is out of range; '{column}' runs from 0 {to}")
        parts.append(y)
    y = np.concatenate(parts)
    if not len(y):
        raise UserError(f"{shards[0].name}: the shards hold no rows; fetch them again")
    return y


def _images(shards: list[Path], column: str, size: int | None, shape: ImageShape | None) -> np.ndarray:
    """[N, C, H, W] uint8 of all shards, decoded once and then read from the cache."""

    def build() -> np.ndarray:
        return decode([item for shard in shards for item in _items(shard, column)], size, shape)

    return load_or_build(content_key(shards, column, size, shape), build)


def _items(shard: Path, column: str) -> list[Item]:
    """Every image of a shard. Only `bytes` is read: a `path` beside it is the author's, and never followed."""
    if column != image_column(shard, _schema(shard)):
        raise UserError(
            f"{shard.name}: column '{column}' holds no images as in the first shard; write all shards alike"
        )
    values = _column(shard, column).combine_chunks()
    encoded = values.field("bytes").to_pylist()
    present = values.is_valid().to_pylist()
    out: list[Item] = []
    for row, (data, is_valid) in enumerate(zip(encoded, present, strict=True)):
        where = f"{shard.name} row {row}"
        if data is None or not is_valid:
            raise UserError(
                f"{where}: '{column}' has no bytes, and a path is not followed; write the bytes into the shard"
            )
        out.append((where, partial(bytes, data)))
    return out
