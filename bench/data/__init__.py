"""Images of a data set as uint8 tensors on the device: three splits, the test split behind a door."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.data import parquet, sources, splits
from bench.data.augment import VIEWS, ViewParams, apply_view, draw_view
from bench.data.batches import Batch, batches, n_batches
from bench.data.raw import SourceData, SplitArrays, resolve_path
from bench.data.spec import DataSpec, DigitsSpec, ImageFolderSpec, ParquetSpec, TorchvisionSpec
from bench.errors import UserError
from bench.seeds import generator

__all__ = ["Batch", "Data", "DataSpec", "Split", "load", "n_batches"]

Clock = Callable[[str], AbstractContextManager[None]]
"""Times a block under a name."""

Statistics = tuple[tuple[float, ...], tuple[float, ...]]

KNOWN_STATISTICS: dict[str, Statistics] = {  # mean and std of the literature, of pixels in 0..1
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "fashionmnist": ((0.2860,), (0.3530,)),
}
KNOWN_DATASETS: dict[
    tuple[object, ...], str
] = {  # what tells a known set whose shards do not say their name: shape, number of classes, first of them
    ((3, 32), 10, ("airplane", "automobile", "bird")): "cifar10",
    ((3, 32), 100, ("apple", "aquarium_fish", "baby")): "cifar100",
}


def no_clock(name: str) -> AbstractContextManager[None]:
    return nullcontext()


@dataclass(frozen=True)
class Split:
    """x: [N, C, H, W] uint8; y: [N] int64; both on the device, in the order of the source."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)


class Data:
    """A data set split for one experiment. Validation is its own or carved from train; `test` is read when wanted."""

    def __init__(self, spec: DataSpec, source: SourceData, device: str | torch.device, *, test: bool = True) -> None:
        self.spec, self.device = spec, torch.device(device)
        self.classes, self.n_classes = source.classes, len(source.classes)
        x, y = source.train.x, source.train.y
        self.channels, self.size = x.shape[1], x.shape[2]
        self.name = KNOWN_DATASETS.get(((self.channels, self.size), self.n_classes, self.classes[:3]), source.name)
        self.own_validation = source.validation is not None
        train_index, validation_index, rest_index = splits.carve(
            y, source.classes, source.n_carved(spec.validation), spec.train, spec.split_seed
        )
        train, validation = source.train.take(train_index), source.train.take(validation_index)
        if (source_validation := source.validation) is not None:
            validation = source_validation.take(splits.subset(source_validation.y, spec.validation, "validation"))
        if source.test is None and not len(rest_index):
            raise UserError(f"train and validation take all {len(y)} images and leave no test split; set train lower")
        # a source without an official test split: it is what the others leave
        self._read_test: Callable[[], SplitArrays] = (
            (source.test or (lambda: source.train.take(rest_index))) if test else _refuse_test_split
        )
        self._digests = [_digest(train), _digest(validation)]
        self.mean, self.std = _statistics(spec, self.name, train.x)
        self.train, self.validation = self._split(train), self._split(validation)

    @property
    def pad(self) -> int:
        return self.spec.pad

    @property
    def flip(self) -> bool:
        return self.spec.flip

    @property
    def views(self) -> tuple[str, ...]:
        """The views of its images that mean something."""
        return VIEWS if self.spec.strong else tuple(view for view in VIEWS if view != "strong")

    @property
    def test(self) -> Split:
        """The test split, read when first asked for. Raises `UserError` where it is closed."""
        return self._test[0]

    @cached_property
    def _test(self) -> tuple[Split, str]:
        """The test split and its checksum."""
        arrays = self._read_test()
        chosen = arrays.take(splits.subset(arrays.y, self.spec.test))
        digest = _digest(chosen)
        self._read_test = _refuse_test_split  # it has been read, and its source need not stay in memory
        return self._split(chosen), digest

    def batches(
        self,
        seed: int,
        epoch: int,
        views: Iterable[str],
        batch_size: int,
        clock: Clock = no_clock,
        *,
        first: int = 0,
    ) -> Iterator[Batch]:
        """The training images in the order of that seed and epoch, with one draw of every view for all students.

        clock: times the making of each view, under the name "view <view>"; first: the step to begin with. A step's
        draws depend on seed, view, epoch and step alone: any step can be the first.
        """
        sizes, views = (len(self.train), batch_size), list(views)
        for step, index in enumerate(batches(*sizes, generator("order", seed, epoch))):
            if step < first:
                continue
            drawn = partial(draw_view, n=len(index), size=self.size, pad=self.pad, flip=self.flip)
            draws = {view: partial(drawn, view, generator=generator("view", view, seed, epoch, step)) for view in views}
            yield self._batch(index.to(self.device, non_blocking=True), draws, step, step / n_batches(*sizes), clock)

    def _batch(
        self,
        index: Tensor,
        draws: Mapping[str, Callable[[], ViewParams]],
        step: int,
        epoch_progress: float,
        clock: Clock = no_clock,
    ) -> Batch:
        x, params, views = self.train.x[index], dict[str, ViewParams](), dict[str, Tensor]()
        for view, drawn in draws.items():
            with clock(f"view {view}"):
                params[view] = drawn()
                views[view] = apply_view(x, params[view], self.mean, self.std)

        def remake() -> Batch:
            same_draws = {view: partial(_same, drawn) for view, drawn in params.items()}
            return self._batch(index, same_draws, step, epoch_progress)

        return Batch(views, self.train.y[index], index, step, epoch_progress, remake)

    def _split(self, arrays: SplitArrays) -> Split:
        x = torch.from_numpy(np.ascontiguousarray(arrays.x)).flatten().view(arrays.x.shape)
        # flatten and view: one channel has any stride, and with some of them torch takes the images for channels_last,
        # where oneDNN 3.12 writes past its buffers on a CPU without AVX-512 (backward of a strided 1x1 convolution)
        return Split(x.to(self.device), torch.from_numpy(arrays.y).to(self.device))

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits of all pixels and labels of the train and validation splits, and of how they were drawn."""
        drawn = (self.spec.validation, self.spec.train, self.spec.split_seed, self.n_classes)
        return _hash(*self._digests, drawn)

    def describe(self) -> dict[str, Any]:
        """What training and every choice see of the data, for records: plain values, no paths; nothing of test."""
        return {
            "name": self.name,
            "source": self.spec.source,
            "channels": self.channels,
            "size": self.size,
            "n_classes": self.n_classes,
            "train": len(self.train),
            "validation": len(self.validation),
            **({"validation_from": "its own split"} if self.own_validation else {}),
            "split_seed": self.spec.split_seed,
            "fingerprint": self.fingerprint,
        }

    def describe_test(self) -> dict[str, Any]:
        """The same of the test split. Reads it."""
        return {
            "test": len(self.test),
            "test_fingerprint": _hash(self._test[1], self.spec.test),
        }


def load(spec: DataSpec, device: str | torch.device = "cpu", *, test: bool = True) -> Data:
    """The data set that a suite names, on the device; with `test=False`, its test split stays closed.

    Raises `UserError` for whatever is wrong with it.
    """
    return Data(spec, _read_source(spec), device, test=test)


def split_as(data: Data, spec: DataSpec) -> Data:
    """These data, or the same ones by another specification, on their device."""
    return data if data.spec == spec else load(spec, data.device)


def _same(params: ViewParams) -> ViewParams:
    return params


def _refuse_test_split() -> SplitArrays:
    raise UserError("the test split is closed here: whatever is chosen, choose it by the validation split")


def source_files(spec: DataSpec) -> dict[str, Path]:
    """The files behind a data set that nobody else's checksum guards, by a name that says where they come from."""
    match spec := _with_local_copy(spec):
        case ParquetSpec():
            return {
                f"{spec.path}: {shard.name}": shard
                for part in parquet.find_shards(spec.path).values()
                for shard in part
            }
        case TorchvisionSpec():  # of its CIFARs it checks the MD5 itself
            return {
                f"{spec.root}: {p.name}": p for p in sorted(resolve_path(spec.root).glob(f"{spec.name}/raw/*-ubyte"))
            }
    return {}


def _with_local_copy(spec: DataSpec) -> DataSpec:
    """The specification, or that of a copy in the parquet layout which stands in for torchvision's."""
    if isinstance(spec, TorchvisionSpec) and (local := os.environ.get(f"KDBENCH_{spec.name.upper()}")):
        common = spec.model_dump(exclude={"source", "name", "root", "download"})
        return ParquetSpec(source="parquet", path=local, **common)
    return spec


def _read_source(spec: DataSpec) -> SourceData:
    match spec := _with_local_copy(spec):
        case DigitsSpec():
            return sources.digits(spec)
        case ParquetSpec():
            return parquet.read_parquet(spec)
        case TorchvisionSpec():
            return sources.torchvision(spec)
        case ImageFolderSpec():
            return sources.image_folder(spec)


def _hash(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _digest(arrays: SplitArrays) -> str:
    digest = hashlib.sha256(repr(arrays.x.shape).encode())
    digest.update(np.ascontiguousarray(arrays.x).reshape(-1).data)
    digest.update(np.ascontiguousarray(arrays.y).data)
    return digest.hexdigest()


def _statistics(spec: DataSpec, name: str, x: np.ndarray) -> Statistics:
    """Mean and std per channel of pixels in 0..1: given, known, or computed from the train split."""
    if spec.mean is not None and spec.std is not None:
        if not len(spec.mean) == len(spec.std) == x.shape[1]:
            raise UserError(
                f"mean, std: {len(spec.mean)} and {len(spec.std)} numbers; give one for each of {x.shape[1]} channels"
            )
        return spec.mean, spec.std
    if name in KNOWN_STATISTICS and len(KNOWN_STATISTICS[name][0]) == x.shape[1] and spec.size is None:
        return KNOWN_STATISTICS[name]
    levels = np.arange(256) / 255
    mean, std = [], []
    for channel in range(x.shape[1]):
        share = np.bincount(x[:, channel].reshape(-1), minlength=256) / x[:, channel].size
        mean.append(float(share @ levels))
        std.append(float(share @ (levels - mean[-1]) ** 2) ** 0.5)
    if min(std) == 0:
        raise UserError(f"channel {std.index(0)} of the train images is constant; check them, or give mean and std")
    return tuple(mean), tuple(std)
