"""torchvision's and timm's classifiers behind the same taps.

A model is unrolled into the ordered steps that its own forward runs (children, Sequentials and the head opened up);
the steps are grouped into stem, stages and head; and the chain must then give the logits of the model itself, in
eval and in training mode. Where it does not, the model is refused: nothing is tapped on trust.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from bench.errors import UserError, unknown
from bench.models.base import Network, evaluating
from bench.models.chain import Chained, NoChain, plan
from bench.models.check import faithful, rectified_taps

SIZES = (32, 64, 128, 224, 299)  # tried in turn, to say what a refused model could take


def adapt(name: str, in_channels: int, size: int, n_classes: int, pretrained: bool) -> Network:
    """`torchvision/<name>` or `timm/<name>` as a Network."""
    library, _, model = name.partition("/")
    make = _torchvision if library == "torchvision" else _timm
    net = make(model, in_channels, n_classes, pretrained)
    if chained := _chained(name, net, in_channels, size, n_classes):
        return chained
    if not _takes(net, in_channels, size):
        for possible in SIZES:
            if _takes(net, in_channels, possible) and _chained(name, net, in_channels, possible, n_classes):
                raise UserError(f"'{name}' cannot take {size}x{size} images; it takes {possible}x{possible}")
    raise UserError(
        f"'{name}' cannot be split into stem, stages and head; take a plain chain such as {library}/resnet18"
    )


def _chained(name: str, net: nn.Module, in_channels: int, size: int, n_classes: int) -> Chained | None:
    """The model as a chain that was checked at this size, or None where there is none."""
    for rectified in (False, True):  # densenet's forward has a ReLU of its own before the pooling
        try:
            chained = Chained(name, in_channels, size, n_classes, net, plan(net, in_channels, rectified))
            if faithful(chained, size):
                chained.relu = rectified_taps(chained, size)
                return chained
        except (NoChain, RuntimeError, ValueError, TypeError, AttributeError, NotImplementedError, AssertionError):
            continue  # a step that cannot take what the one before it gives: no chain, or none at this size
    return None


def _takes(net: nn.Module, in_channels: int, size: int) -> bool:
    try:
        with torch.no_grad(), evaluating(net):
            return isinstance(net(torch.zeros(2, in_channels, size, size)), Tensor)
    except (RuntimeError, ValueError, AssertionError):
        return False


# -------------------------------------------------------------------------------------------- the two libraries


def _torchvision(model: str, in_channels: int, n_classes: int, pretrained: bool) -> nn.Module:
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    if model not in known:
        raise unknown("torchvision network", model, _near(model, known))
    extra = {"aux_logits": False, "init_weights": True} if model in ("googlenet", "inception_v3") else {}
    if not pretrained:
        net = torchvision.models.get_model(model, weights=None, num_classes=n_classes, **extra)
    else:
        net = _downloaded(f"torchvision/{model}", lambda: torchvision.models.get_model(model, weights="DEFAULT"))
        _new_classes(net, n_classes)
    if in_channels != 3:
        _new_channels(net, in_channels, pretrained)
    return net


def _new_classes(net: nn.Module, n_classes: int) -> None:
    linears = [(n, m) for n, m in net.named_modules() if isinstance(m, nn.Linear)]
    if linears and linears[-1][1].out_features != n_classes:
        name, old = linears[-1]
        net.set_submodule(name, nn.Linear(old.in_features, n_classes, bias=old.bias is not None))


def _new_channels(net: nn.Module, in_channels: int, pretrained: bool) -> None:
    """A first convolution of as many input channels: of the library's own spread, or with the learnt mean kernel."""
    name, old = next((n, m) for n, m in net.named_modules() if isinstance(m, nn.Conv2d))
    new = nn.Conv2d(
        *(in_channels, old.out_channels, old.kernel_size, old.stride, old.padding, old.dilation),  # type: ignore[arg-type]
        bias=old.bias is not None,
    )
    with torch.no_grad():
        if pretrained:  # scaled so that a grey image in every channel answers as it did
            new.weight.copy_((old.weight.mean(1, keepdim=True) * (old.in_channels / in_channels)).expand_as(new.weight))
        else:
            new.weight.normal_(0.0, old.weight.std().item())
        if old.bias is not None and new.bias is not None:
            new.bias.copy_(old.bias)
    net.set_submodule(name, new)


def _timm(model: str, in_channels: int, n_classes: int, pretrained: bool) -> nn.Module:
    try:
        timm = importlib.import_module("timm")
    except ImportError:
        raise UserError(f"'timm/{model}' needs timm; pip install kdbench[timm]") from None
    if not timm.is_model(model):
        raise unknown("timm network", model, _near(model, timm.list_models()))
    asked = {"pretrained": pretrained, "num_classes": n_classes, "in_chans": in_channels}
    return _downloaded(f"timm/{model}", lambda: timm.create_model(model, **asked))


def near_models(model: str) -> list[str]:
    """torchvision's classifiers that are called something like it."""
    import torchvision

    return difflib.get_close_matches(model, torchvision.models.list_models(module=torchvision.models), n=12, cutoff=0.5)


def plain_model(name: str, n_classes: int) -> nn.Module | None:
    """torchvision's own module of a `torchvision/<name>`, as it comes; None where it cannot be made on this device."""
    try:
        return _torchvision(name.partition("/")[2], 3, n_classes, pretrained=False)
    except (NotImplementedError, RuntimeError):
        return None


def _near(model: str, known: Iterable[str]) -> list[str]:
    """The few names closest to this one: the libraries have a thousand."""
    known = list(known)
    return difflib.get_close_matches(model, known, n=6, cutoff=0.3) or known[:6]


def _downloaded(name: str, make: Callable[[], nn.Module]) -> nn.Module:
    try:
        return make()
    except Exception as error:  # the libraries raise what their download, cache and weight readers do
        text = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"'{name}' cannot be made: {text[:160]}") from None
