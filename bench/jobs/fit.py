"""Training where memory may not suffice for all members at a time: fewer of them at once, and the same numbers."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from bench.errors import UserError, error_message
from bench.memory import device_works

T = TypeVar("T")


def fit_into_memory(
    train: Callable[[int], T],
    members: int,
    group_size: int,
    device: torch.device,
    title: str,
    log: Callable[[str], None],
) -> T:
    """What `train` returns; it is given how many of its members may be on the device at a time (group_size; 0: all).

    Where memory runs out it is called again with half as many, and goes on from the checkpoints. Raises `UserError`
    where one member at a time is too many, and where the device has failed for this process.
    """
    size = min(group_size or members, members)
    while True:
        try:
            return train(size)
        except torch.OutOfMemoryError as error:
            if size <= 1:
                raise UserError(
                    f"{title}: {error_message(error)}; teacher and batch do not fit the device:"
                    " lower protocol.batch_size"
                ) from None
        except RuntimeError as error:
            if device_works(device):
                raise
            raise UserError(
                f"{title}: the GPU failed and takes no more work of this process ({error_message(error)}); the same"
                " command goes on, and leaves the runs that failed to the end. CUDA names such errors late: with"
                " CUDA_LAUNCH_BLOCKING=1 the right run is named"
            ) from None
        gc.collect()  # the graph of the failed step
        if device.type == "cuda":
            torch.cuda.empty_cache()
        log(f"{title}: out of memory with {size} students on the device; going on with {(size + 1) // 2} at a time")
        size = (size + 1) // 2
