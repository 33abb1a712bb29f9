"""The arithmetic of a protocol, one rule for all: networks (teacher, students, their tails, a method's adapters)
compute in the protocol's precision, and what is computed from their answers (losses, metrics) in float32.

float32    IEEE single precision, in convolutions as well (torch's own default for them on CUDA is TF32)
tf32       the same with TF32 in convolutions and matrix products: 10 bits of mantissa, on GPUs since Ampere
bfloat16   torch's autocast: convolutions and matrix products of networks in bfloat16; weights, statistics of BatchNorms
           and the optimiser in float32
auto, fastest: one of these, by the device; a run's record and fingerprint hold what it was
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bench.suite.protocol import Protocol


def resolve_precision(precision: str, device: torch.device) -> str:
    """What 'auto' stands for on a device: bfloat16 on CUDA, float32 elsewhere; and 'fastest': bfloat16 where the device
    has instructions for it. Any other precision is itself."""
    if precision == "auto":
        return "bfloat16" if device.type == "cuda" else "float32"
    if precision == "fastest":
        return "bfloat16" if has_bfloat16(device) else "float32"
    return precision


def has_bfloat16(device: torch.device) -> bool:
    """Has the device instructions for bfloat16: a GPU since Ampere, a CPU with AVX-512 BF16 (all with AMX have it)?"""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", bool)())


def set_torch_backends(protocol: Protocol) -> None:
    """Set what torch holds for the whole process: TF32, and kernels that give the same bits every time."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = protocol.precision == "tf32"
    if protocol.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it at its first product
    torch.use_deterministic_algorithms(protocol.deterministic)


def autocast(protocol: Protocol, device: torch.device) -> torch.autocast:
    """The context in which a network's forward pass runs."""
    return torch.autocast(device.type, torch.bfloat16, enabled=protocol.precision == "bfloat16")


def with_precision(forward: Callable[..., Any], protocol: Protocol, device: torch.device) -> Callable[..., Any]:
    """A part of a network as all networks compute: under the protocol's precision, answering in float32."""
    if protocol.precision != "bfloat16":
        return forward

    def forward_in_precision(*inputs: Any, **options: Any) -> Any:
        with autocast(protocol, device):
            return to_float32(forward(*inputs, **options))

    return forward_in_precision


def cast_adapters(method: nn.Module, protocol: Protocol, device: torch.device) -> None:
    """Let a method's own networks compute as student and teacher do. What it computes itself stays as it is."""
    for child in method.children():
        if type(child).forward is nn.Module.forward:  # a list of networks
            cast_adapters(child, protocol, device)
        else:
            child.forward = with_precision(child.forward, protocol, device)


def to_float32(output: Any) -> Any:
    """Half precision as float32, in tensors and in tuples and lists of them; anything else as it is."""
    if isinstance(output, tuple | list):
        return type(output)(to_float32(part) for part in output)
    is_half = isinstance(output, Tensor) and output.dtype in (torch.float16, torch.bfloat16)
    return output.float() if is_half else output
