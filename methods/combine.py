"""Sums of methods, written `crd + kd` or `dkd + 0.5*reviewkd` in a suite."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar

from torch import Tensor, nn

from methods.base import Dims, Float, Method, Needs, NetworkView, Paper, Progress, Recipe, Refusal, Value


def parse(text: str) -> tuple[str, dict[str, float]]:
    """'dkd + 0.5*reviewkd' → ('dkd+reviewkd', {'reviewkd.weight': 0.5}). Raises `Refusal`."""
    names, weights = [], {}
    for part in text.split("+"):
        weight, star, name = part.rpartition("*")
        names.append(name.strip())
        if star:
            try:
                weights[f"{names[-1]}.weight"] = float(weight)
            except ValueError:
                raise Refusal(f"'{part.strip()}' is no weighted method; write e.g. 0.5*kd") from None
    return "+".join(names), weights


class Sum(Method):
    """The parts' terms, each times its part's weight. The labels' cross entropy counts once: the first part's."""

    part_classes: ClassVar[tuple[type[Method], ...]]

    def __init__(self, dims: Dims, **hp: Any) -> None:
        super().__init__(dims)
        self.weight: dict[str, float] = {}
        self.parts = nn.ModuleDict()
        for place, kind in enumerate(self.part_classes):
            name = kind.name()
            own = _values_of_part(hp, name)
            self.weight[name] = own.pop("weight")
            if place and "ce" in kind.space:
                own["ce"] = kind.recipes["paper"].values["ce"]
            part = self.parts[name] = kind(dims, **own)
            self.facts |= {f"{name}.{key}": value for key, value in part.facts.items()}
            if part.pretrain_share:
                if self.pretrain_share:
                    raise Refusal(f"{self.name()}: two parts come with epochs before the first")
                self.pretrain_share, self.pretrain_lr = part.pretrain_share, part.pretrain_lr
                self.pretrain_needs, self.pretrain_part = part.pretrain_needs or part.needs, part

    def phase(self, epoch: int, epochs: int) -> str:
        return ", ".join(f"{name}: {part.phase(epoch, epochs)}" for name, part in self._parts())

    def pretrain_loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        return self.pretrain_part.pretrain_loss(s, t, y, at)

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        out = {}
        for place, (name, part) in enumerate(self._parts()):
            needs = part.needs
            terms = part.loss(s.restrict_to(needs.views, needs.taps), t.restrict_to(needs.views, needs.taps), y, at)
            for term, value in terms.items():
                if place == 0 or term != "ce":
                    out[f"{name}.{term}"] = self.weight[name] * value
        return out

    def predict(self, s: NetworkView, t: NetworkView) -> Tensor:
        own = [part for _, part in self._parts() if _overrides(type(part), "predict")]
        return own[0].predict(s, t) if own else s.logits

    def _parts(self) -> list[tuple[str, Any]]:
        return list(self.parts.items())

    @classmethod
    def check(cls, dims: Dims) -> None:
        for kind in cls.part_classes:
            kind.check(dims)

    @classmethod
    def fully_active_from(cls, hp: Mapping[str, Value]) -> float:
        return max(kind.fully_active_from(_values_of_part(hp, kind.name())) for kind in cls.part_classes)

    @classmethod
    def name(cls) -> str:
        return "+".join(kind.name() for kind in cls.part_classes)


@cache
def sum_class(kinds: tuple[type[Method], ...]) -> type[Method]:
    """The class of the sum of these methods. Raises `Refusal` where they have no sum."""
    title = " + ".join(kind.name() for kind in kinds)
    if len(set(kinds)) < len(kinds):
        raise Refusal(f"{title}: a method stands twice in the sum; give it one weight")
    for kind in kinds:
        if _overrides(kind, "optimizer") or _overrides(kind, "backward"):
            raise Refusal(f"{title}: {kind.name()} is an optimiser of its own and cannot be part of a sum")
    if sum(_overrides(kind, "predict") for kind in kinds) > 1:
        raise Refusal(f"{title}: two parts predict in their own ways")
    space = {}
    for place, kind in enumerate(kinds):
        space[f"{kind.name()}.weight"] = Float(0.0001, 10000.0, log=True, tune=False)
        space |= {f"{kind.name()}.{k}": knob for k, knob in kind.space.items() if k != "ce" or place == 0}  # type: ignore[misc]
    attributes = {
        "part_classes": kinds,
        "paper": Paper(f"Sum of {title}", "-", "-", max(kind.paper.year for kind in kinds), kinds[0].paper.url),
        "needs": _union_of_needs([kind.needs for kind in kinds]),
        "space": space,
        "recipes": {"paper": _merged_recipe(kinds, space)},
        "deviations": ("The labels' cross entropy counts once: the first part's.",),
        "version": "+".join(str(kind.version) for kind in kinds),
        "__doc__": f"The weighted sum of {title}.",
    }
    return type("Sum", (Sum,), attributes)


def _values_of_part(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key.removeprefix(f"{name}."): value for key, value in values.items() if key.startswith(f"{name}.")}


def _merged_recipe(kinds: tuple[type[Method], ...], space: Mapping[str, Any]) -> Recipe:
    """The parts' default recipes side by side, every weight 1."""

    def of(pair: str) -> dict[str, Value]:
        values: dict[str, Value] = {}
        for kind in kinds:
            own = {"weight": 1.0, **kind.recipes["paper"].for_pair(pair)}
            values |= {f"{kind.name()}.{k}": v for k, v in own.items() if f"{kind.name()}.{k}" in space}
        return values

    pairs = {pair for kind in kinds for pair in kind.recipes["paper"].pairs}
    source = "; ".join(f"{kind.name()}: {kind.recipes['paper'].source}" for kind in kinds)
    return Recipe(of(""), source, "unknown", {pair: of(pair) for pair in sorted(pairs)})


def _union_of_needs(needs: list[Needs]) -> Needs:
    return Needs(
        taps=tuple(dict.fromkeys(tap for n in needs for tap in n.taps)),
        views=tuple(dict.fromkeys(view for n in needs for view in n.views)),
        teacher=any(n.teacher for n in needs),
        index=any(n.index for n in needs),
        full_batches=any(n.full_batches for n in needs),
        tails=tuple({whose: None for n in needs if "tail" in n.taps for whose in n.tails}),
    )


def _overrides(kind: type[Method], what: str) -> bool:
    return getattr(kind, what) is not getattr(Method, what)
