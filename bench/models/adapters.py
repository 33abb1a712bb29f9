"""torchvision's and timm's classifiers behind the same taps.

A model is cut into stem, stages and head: as a chain of its modules (`chain`), or where its forward is more than one,
by the graph of its forward (`graph`). The parts must then give the logits of the model itself, in eval and in training
mode. Where they do not, the model is taken whole (`whole`): nothing is tapped on trust.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bench.errors import UserError, unknown
from bench.models.adapted import Adapted, show_preacts
from bench.models.base import Network, evaluating
from bench.models.chain import Chained, plan
from bench.models.check import check_classifier, faithful
from bench.models.cuts import graphs
from bench.models.graph import Cuts, Graphed, Steps
from bench.models.teaching import ExpectedInput
from bench.models.whole import Whole

SIZES = (32, 64, 128, 224, 299)  # tried in turn, to say what a refused model could take


def adapt(name: str, in_channels: int, size: int, n_classes: int, pretrained: bool) -> Network:
    """`torchvision/<name>` or `timm/<name>` as a Network."""
    library, _, model = name.partition("/")
    make = _torchvision if library == "torchvision" else _timm
    net = make(model, in_channels, size, n_classes, pretrained)
    if not takes(net, in_channels, size):
        possible = [str(other) for other in SIZES if takes(net, in_channels, other)]
        sizes = f"; it takes {possible[0]}x{possible[0]}" if possible else "; set data.size, to 224 for instance"
        raise UserError(f"'{name}' cannot take {size}x{size} images{sizes}")
    if pretrained:  # its head may not be where a new one was put
        check_classifier(name, net, in_channels, size, n_classes)
    return adapted(name, net, in_channels, size, n_classes)


def adapted(
    name: str, net: nn.Module, in_channels: int, size: int, n_classes: int, stages: Sequence[str] = ()
) -> Adapted:
    """A classifier's module as a Network: cut into a chain of its modules, else by its graph, else whole.

    stages: modules that end the stages, where these are not to be found. Raises `UserError` for what gives no logits.
    """
    key = (name, in_channels, size, n_classes)
    if key not in _WAYS:
        _WAYS[key] = next(_ways(key, net, tuple(stages)), partial(_whole, key, tuple(stages)))
    network = _WAYS[key](net)
    show_preacts(network)
    return network


Way = Callable[[nn.Module], Adapted]
_WAYS: dict[tuple[str, int, int, int], Way] = {}  # that were found to be right in this process, which takes a while


def _ways(key: tuple[str, int, int, int], net: nn.Module, stages: tuple[str, ...]) -> Iterator[Way]:
    """How the module can be cut such that it gives its own logits."""
    _, in_channels, size, _ = key
    for rectified in (False, True) if not stages else ():
        with suppress(Exception):  # a step that cannot take what the one before it gives: no chain
            if faithful(_chained(key, rectified, net), size):
                yield partial(_chained, key, rectified)
    for steps, cuts in graphs(net, in_channels, size, stages):
        with suppress(Exception):
            way = partial(_graphed, key, steps, cuts)
            if faithful(way(net), size):
                yield way


def _chained(key: tuple[str, int, int, int], rectified: bool, net: nn.Module) -> Adapted:
    """rectified: the forward has a ReLU of its own before the pooling, as densenet's."""
    return Chained(*key, net, plan(net, key[1], rectified))


def _graphed(key: tuple[str, int, int, int], steps: Steps, cuts: Cuts, net: nn.Module) -> Adapted:
    return Graphed(*key, net, steps, cuts)


def _whole(key: tuple[str, int, int, int], stages: tuple[str, ...], net: nn.Module) -> Adapted:
    return Whole(*key, net, stages)


def takes(net: nn.Module, in_channels: int, size: int) -> bool:
    """Does the module give logits for two images of this shape?"""
    try:
        with torch.no_grad(), evaluating(net):
            return isinstance(net(torch.zeros(2, in_channels, size, size)), Tensor)
    except (RuntimeError, ValueError, AssertionError):
        return False


# -------------------------------------------------------------------------------------------- the two libraries


def _torchvision(model: str, in_channels: int, size: int, n_classes: int, pretrained: bool) -> nn.Module:
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    if model not in known:
        raise unknown("torchvision network", model, _near(model, known))
    extra: dict[str, Any] = {}
    if model in ("googlenet", "inception_v3"):
        extra = {"aux_logits": False, "init_weights": True}
    elif model.startswith("vit_") and size != 224 and not pretrained:
        extra = {"image_size": size}
    if not pretrained:
        made = partial(torchvision.models.get_model, model, weights=None, num_classes=n_classes, **extra)
        net = _downloaded(f"torchvision/{model}", made) if "image_size" in extra else made()
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


def _timm(model: str, in_channels: int, size: int, n_classes: int, pretrained: bool) -> nn.Module:
    try:
        timm = importlib.import_module("timm")
    except ImportError:
        raise UserError(f"'timm/{model}' needs timm; pip install kdbench[timm]") from None
    if not timm.is_model(model):
        raise unknown("timm network", model, _near(model, timm.list_models()))
    asked = {"pretrained": pretrained, "num_classes": n_classes, "in_chans": in_channels}
    config = timm.get_pretrained_cfg(model)
    if config is not None and config.fixed_input_size and config.input_size[-1] != size:
        asked["img_size"] = size
    return _downloaded(f"timm/{model}", lambda: timm.create_model(model, **asked))


def packaged(name: str) -> tuple[ExpectedInput, int]:
    """What the weights that a library gives expect (of three channels), and how many classes they know."""
    library, _, model = name.partition("/")
    if library == "torchvision":
        import torchvision

        weights = torchvision.models.get_model_weights(model).DEFAULT  # type: ignore[attr-defined]
        how = weights.transforms()
        return ExpectedInput(tuple(how.mean), tuple(how.std), how.crop_size[0]), len(weights.meta["categories"])
    config = importlib.import_module("timm").get_pretrained_cfg(model)
    return ExpectedInput(config.mean, config.std, config.input_size[-1]), config.num_classes


def near_models(model: str) -> list[str]:
    """torchvision's classifiers that are called something like it."""
    import torchvision

    return difflib.get_close_matches(model, torchvision.models.list_models(module=torchvision.models), n=12, cutoff=0.5)


def plain_model(name: str, n_classes: int) -> nn.Module | None:
    """torchvision's own module of a `torchvision/<name>`, as it comes; None where it cannot be made on this device."""
    try:
        return _torchvision(name.partition("/")[2], 3, 224, n_classes, pretrained=False)
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
