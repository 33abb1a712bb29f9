"""What a training step keeps in memory, counted the same way on every device: no counter of a device can tell members
of a cohort apart, and a CPU has none."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from torch import Tensor, nn

CGROUP_FILES = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)
"""Of a container: the limit of its memory, and what is used of it (version 2 and 1)."""


@contextmanager
def track_saved_tensors(excluded: Iterable[Tensor]) -> Iterator[dict[int, int]]:
    """Bytes that autograd keeps from the forward pass for the backward pass, by storage; filled when the block ends.

    excluded: tensors whose storages are somebody else's (weights, the batch, the teacher's answers) and not counted.
    """
    excluded_storages, bytes_by_storage = {_storage(tensor) for tensor in excluded}, dict[int, int]()

    def pack(tensor: Tensor) -> Tensor:
        if (storage := _storage(tensor)) not in excluded_storages:
            bytes_by_storage[storage] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield bytes_by_storage


def state_bytes(modules: Iterable[nn.Module], optimizer: torch.optim.Optimizer) -> int:
    """Bytes of weights, buffers, gradients and the optimiser's state."""
    tensors = [t for module in modules for t in (*module.parameters(), *module.buffers())]
    tensors += [t.grad for module in modules for t in module.parameters() if t.grad is not None]
    tensors += [t for state in optimizer.state.values() for t in state.values() if isinstance(t, Tensor)]
    return sum({_storage(tensor): tensor.untyped_storage().nbytes() for tensor in tensors}.values())


def device_works(device: torch.device) -> bool:
    """Does the device still answer? After a failed assertion in a kernel, CUDA takes no more work of a process."""
    try:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    except RuntimeError:
        return False
    return True


def physical_memory_bytes() -> int:
    """Bytes of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def available_memory_bytes() -> int:
    """Bytes that this machine, or the container that this process lies in, can still give to new processes (Linux);
    where the system does not say it, all of the memory."""
    free = physical_memory_bytes()
    with suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = 1024 * int(next(line.split()[1] for line in lines if line.startswith("MemAvailable")))
    for limit, used in CGROUP_FILES:
        with suppress(OSError, ValueError):  # there is no such file, or no limit in it
            free = min(free, int(Path(limit).read_text()) - int(Path(used).read_text()))
    return max(free, 0)


def resident_bytes() -> int:
    """Bytes of memory that this process occupies (Linux); 0 where the system does not say it."""
    with suppress(OSError, ValueError, IndexError):
        return os.sysconf("SC_PAGE_SIZE") * int(Path("/proc/self/statm").read_text().split()[1])
    return 0


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
