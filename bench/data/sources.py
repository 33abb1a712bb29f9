"""The sources other than parquet: digits, torchvision, folders of images."""

from __future__ import annotations

import contextlib
import io
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.data.cache import content_key, load_or_build
from bench.data.images import ImageShape, Item, decode, resize_array
from bench.data.raw import VALIDATION, SourceData, SplitArrays, held_out_splits, resolve_path
from bench.data.spec import DigitsSpec, ImageFolderSpec, TorchvisionSpec
from bench.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")


def digits(spec: DigitsSpec) -> SourceData:
    """scikit-learn's digits, their 17 levels of grey spread over 0..255."""
    from sklearn.datasets import load_digits

    dataset = load_digits()
    pixels = np.rint(dataset.images * (255 / 16)).astype(np.uint8)[:, None]
    return SourceData(
        "digits",
        tuple("0123456789"),
        SplitArrays(resize_array(pixels, spec.size), dataset.target.astype(np.int64)),
        None,
    )


def torchvision(spec: TorchvisionSpec) -> SourceData:
    train = _open(spec, train=True)
    return SourceData(
        spec.name.lower(),
        tuple(map(str, train.classes)),
        _arrays(train, spec.size),
        lambda: _arrays(_open(spec, train=False), spec.size),
    )


def _open(spec: TorchvisionSpec, *, train: bool) -> Any:
    from torchvision import datasets

    root = resolve_path(spec.root)
    kind = getattr(datasets, spec.name)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return kind(str(root), train=train, download=spec.download)
    except Exception as error:  # torchvision raises whatever its downloader, archive reader or unpickler does
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
    if spec.download:
        raise UserError(f"{spec.name} could not be fetched to {root} ({reason}); try again, or put its files there")
    raise UserError(f"{spec.name} is not in {root}; set `download: true` to fetch it, or `root:` to where it lies")


def _arrays(dataset: Any, size: int | None) -> SplitArrays:
    pixels = np.asarray(dataset.data)
    pixels = pixels[:, None] if pixels.ndim == 3 else pixels.transpose(0, 3, 1, 2)
    return SplitArrays(resize_array(np.ascontiguousarray(pixels), size), np.asarray(dataset.targets, np.int64))


def image_folder(spec: ImageFolderSpec) -> SourceData:
    root = resolve_path(spec.path)
    train = root / "train"
    validation, test = held_out_splits({name: root / name for name in ("test", *VALIDATION) if (root / name).is_dir()})
    if test is None or not train.is_dir():
        lacks = "train" if not train.is_dir() else "test or val"
        raise UserError(f"no folder {lacks} in {root}; path takes a folder of train/<class>/* and test/<class>/*")
    classes = tuple(_subfolders(train))
    train_arrays = _arrays_of(train, classes, spec.size, None)
    read_split = partial(_arrays_of, classes=classes, size=spec.size, shape=(train_arrays.x.shape[1], spec.size))
    return SourceData(
        root.name, classes, train_arrays, partial(read_split, test), read_split(validation) if validation else None
    )


def _arrays_of(folder: Path, classes: tuple[str, ...], size: int, shape: ImageShape | None) -> SplitArrays:
    """Images of a split's folder in order of class and name, decoded once and then read from the cache."""
    found = _subfolders(folder)
    if found and not {*found} & {*classes}:
        raise UserError(
            f"{folder} is not sorted by class: it holds '{found[0]}', and train '{classes[0]}'; move each image to"
            f" {folder.name}/<class>/, or, where their classes are not known, all of {folder.name} elsewhere"
        )
    if extra := sorted({*found} - {*classes}):
        raise UserError(f"class '{extra[0]}' of {folder} is not in train; add it there or remove it")
    places = [folder / name for name in classes]
    files = [(c, p) for c, name in enumerate(classes) for p in sorted((folder / name).rglob("*")) if _is_image(p)]
    if not files:
        raise UserError(f"no image in {folder}; it holds <class>/* with files of type {', '.join(SUFFIXES)}")
    for path in (*places, *(p for _, p in files)):
        if path.is_symlink() and not path.resolve().is_relative_to(folder.parent.resolve()):
            raise UserError(f"{path}: a link that leads out of {folder.parent}; put the images themselves there")
    items: list[Item] = [(str(p.relative_to(folder.parent)), p.read_bytes) for _, p in files]
    x = load_or_build(content_key([p for _, p in files], "folder", size, shape), lambda: decode(items, size, shape))
    return SplitArrays(x, np.array([c for c, _ in files], np.int64))


def _subfolders(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith(".")
