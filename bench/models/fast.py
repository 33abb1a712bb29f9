"""The same network in the form that computes fastest: channels_last in memory, a frozen one without its BatchNorms."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Container
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.models.base import Network, evaluating
from methods.base import Out

SAFE_CHANNELS = (
    8  # into a strided 1x1 convolution. With fewer, in channels_last, oneDNN writes past its buffers on AVX2
)


def use_fast_layout(network: Network) -> None:
    """Store the weights of convolutions in channels_last, in place, where that is safe and faster; maps follow them.

    The rule looks at the network alone, not at a stopwatch: the layout decides the last bits of every result.
    """
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    safe = all(m.in_channels // m.groups >= SAFE_CHANNELS for m in convolutions if _is_strided_1x1(m))
    if safe and network.fast_in_channels_last and len(convolutions) > 1:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _is_strided_1x1(m: nn.Conv2d) -> bool:
    return m.kernel_size == (1, 1) and m.stride != (1, 1)


def folded_copy(network: Network) -> Network:
    """A copy for forward passes in eval mode: each BatchNorm that follows a convolution is folded into its weights.

    It shows the same taps up to rounding. Where that is not so, or cannot be tried, the network itself is returned.
    """
    try:
        folded = copy.deepcopy(network).double()
        x = _probe_images(network)
        with torch.no_grad(), evaluating(folded):
            before = folded(x)
            _fold(folded, x)
            after = folded(x)
    except Exception:  # somebody's own network: what it does on a copy of another type is its business
        return network
    if not _all_close(before, after):
        return network
    folded.to(next(network.parameters()).dtype)
    use_fast_layout(folded)
    return folded


def _probe_images(network: Network) -> Tensor:
    shape = 2, network.in_channels, network.size, network.size
    device = next(network.parameters()).device
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(device)


class _Uses(TorchDispatchMode):
    """Counts, inside, how many operations take each of some tensors."""

    def __init__(self, tensors: Container[int]) -> None:
        """tensors: their identities, which may become more; they must be kept alive, so that no other takes one's."""
        super().__init__()
        self.tensors, self.count = tensors, Counter[int]()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count.update(id(value) for value in tree_leaves((args, kwargs)) if id(value) in self.tensors)
        return function(*args, **(kwargs or {}))


def _fold(network: Network, x: Tensor) -> None:
    """Fold every BatchNorm that alone takes a convolution's output, as a forward pass of the images x shows it."""
    convolutions: dict[int, tuple[nn.Module, Tensor]] = {}  # by the identity of the output, which is kept alive
    pairs: dict[int, nn.Module] = {}

    def see_convolution(conv: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        convolutions[id(out)] = conv, out

    def see_norm(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if id(inputs[0]) in convolutions:
            pairs[id(inputs[0])] = norm

    hooks = [m.register_forward_hook(see_convolution) for m in network.modules() if type(m) is nn.Conv2d]
    hooks += [m.register_forward_pre_hook(see_norm) for m in network.modules() if type(m) is nn.BatchNorm2d]
    try:
        with _Uses(convolutions) as uses:
            shown = {id(tap) for tap in _taps(network(x))}
    finally:
        for hook in hooks:
            hook.remove()
    for out, norm in pairs.items():
        if uses.count[out] == 1 and out not in shown:
            _fold_pair(convolutions[out][0], norm)


def _fold_pair(conv: nn.Module, norm: nn.Module) -> None:
    assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    if norm.running_mean is not None and norm.running_var is not None:
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        setattr(norm, "forward", nn.Identity().forward)  # noqa: B010 – in place: who runs it may hold the module itself


def _taps(out: Out) -> list[Tensor]:
    return [tap for tap in (out.logits, out.pooled, *out.feats, *out.preacts) if tap is not None and tap.numel()]


def _all_close(before: Out, after: Out) -> bool:
    return all(
        torch.allclose(p, q, rtol=0, atol=1e-9 * float(p.abs().max()))
        for p, q in zip(_taps(before), _taps(after), strict=True)
        if p.numel()  # several teachers show no pooled vector, one whose head is ignored no logits
    )
