"""A GPU without one: tensors on "cuda" have a shape, a type and a device, and no values; the CPU computes as ever."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._pytree import tree_leaves


class HostRead(RuntimeError):
    """A kernel of the device had to end before the host could go on."""


class NoGpu(FakeTensorMode):
    """As torch's FakeTensorMode, for "cuda" alone: draws and places that are made on the CPU keep their values.

    Raises where an operation mixes devices, where it needs a value of the device (`item`, `if`, a mask as an index),
    and, unlike FakeTensorMode, where it brings a tensor of the device to the host (`cpu`). Autograd writes its graph;
    a backward pass needs a driver.
    """

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        given = tree_leaves((args, kwargs))
        if not (any(isinstance(value, FakeTensor) for value in given) or _is_gpu(kwargs.get("device"))):
            return func(*args, **kwargs)
        if func is torch.ops.aten._fused_sgd_.default:  # torch has no fake form of it; it writes in place
            return None
        out = super().__torch_dispatch__(func, types, args, kwargs)
        if _devices(given) >= {"cuda"} and "cpu" in _devices(tree_leaves(out)):
            raise HostRead(f"{func} brings a tensor to the host")
        return out


def _is_gpu(device: str | torch.device | None) -> bool:
    return device is not None and torch.device(device).type == "cuda"


def _devices(values: list[Any]) -> set[str]:
    return {value.device.type for value in values if isinstance(value, Tensor)}
