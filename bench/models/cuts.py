"""Where the steps of a network are cut into stem, stages and head: where one tensor alone goes on, and it is a map."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from bench.models.base import evaluating
from bench.models.chain import NAMED, SPREAD, STAGE, NoChain
from bench.models.graph import INPUT, Cuts, Layout, Step, Steps, run
from bench.models.trace import openings, steps_of

SAME_SIZE_STAGES = 4  # of a network whose maps have one size throughout: its blocks in so many equal groups
MOST_PREFIX_TOKENS = 8  # class token, distillation token, registers


def graphs(net: nn.Module, in_channels: int, size: int, stages: Sequence[str]) -> Iterator[tuple[Steps, Cuts]]:
    """The network's steps and where they are cut, by each way of looking into its modules that gives some.

    stages: modules that end the stages; without, they are found.
    """
    images = torch.zeros(2, in_channels, size, size), torch.zeros(3, in_channels, size, size)
    for opened in openings(net, stages):
        with suppress(Exception):  # whatever a strange forward does when it is traced
            steps = {mode: steps_of(net, opened, mode, images) for mode in (True, False)}
            if [step.name for step in steps[True]] == [step.name for step in steps[False]]:
                yield steps, _cuts(net, steps[False], in_channels, size, stages)


def _cuts(net: nn.Module, steps: tuple[Step, ...], in_channels: int, size: int, stages: Sequence[str]) -> Cuts:
    with torch.no_grad(), evaluating(net):
        values = _probe(net, steps, in_channels, size)
    alone = _alone(steps)
    grids = {k: grid for k in alone if (grid := grid_of(net, values[k]))}
    vectors = [k for k in alone if _is_vector(values[k]) and _has_weights(net, steps[k:])]
    pooled = vectors[-1] if vectors else 0
    first_vector = next((k for k in alone if _is_vector(values[k])), len(steps))
    maps = {k: grid for k, grid in grids.items() if k < first_vector and _has_weights(net, steps[k:])}
    ends = _named_ends(steps, maps, stages) if stages else _found_ends(net, steps, maps)
    if len(ends) < 2:
        raise NoChain("no stages can be told apart")
    return Cuts(tuple(ends), tuple(maps[k][1] for k in ends), pooled)


def _probe(net: nn.Module, steps: tuple[Step, ...], in_channels: int, size: int) -> list[Any]:
    """What comes before each step, and at the end: of images of the spread size where the network takes them."""
    for side in (SPREAD, size):
        try:
            return run(net, steps, {INPUT: torch.zeros(2, in_channels, side, side)})
        except (RuntimeError, AssertionError, ValueError):
            if side == size:
                raise
    raise AssertionError


def _alone(steps: tuple[Step, ...]) -> list[int]:
    """Where nothing goes on but what the last step gave: k stands for the cut after k steps."""
    last = {name: k for k, step in enumerate(steps) for name in step.uses()}
    alone, live = [], {INPUT}
    for k, step in enumerate(steps, start=1):
        live = {name for name in {*live, step.name} if last.get(name, -1) >= k}
        if live == {step.name}:
            alone.append(k)
    return alone


def grid_of(net: nn.Module, f: object) -> tuple[int, Layout] | None:
    """The side of a map's grid, and how the map lies; None where the value is no map of a square."""
    if not isinstance(f, Tensor) or f.ndim not in (3, 4):
        return None
    if f.ndim == 4:
        _, a, b, c = f.shape
        if b == c:
            return b, Layout("map")
        return (a, Layout("last_axis")) if a == b else None
    n, told = f.shape[1], getattr(net, "num_prefix_tokens", None)
    side = math.isqrt(n - told) if isinstance(told, int) and told < n else 0
    if side and side * side == n - told:  # type: ignore[operator]  # an int, by the line above
        return side, Layout("tokens", told)  # type: ignore[arg-type]
    side = math.isqrt(n)
    return (side, Layout("tokens", n - side * side)) if n - side * side <= MOST_PREFIX_TOKENS else None


def _is_vector(f: object) -> bool:
    return isinstance(f, Tensor) and f.ndim in (2, 4) and f.shape[2:] in ((), (1, 1))


def _has_weights(net: nn.Module, steps: Sequence[Step]) -> bool:
    called = [step.target for step in steps if step.op == "call_module"]
    return any(True for name in called for _ in net.get_submodule(name).parameters())


Maps = Mapping[int, tuple[int, Layout]]
"""By cut, the grid's side and the layout."""


def _named_ends(steps: tuple[Step, ...], maps: Maps, stages: Sequence[str]) -> list[int]:
    """The cuts after the named modules; the stem is what comes before the first, or that one where nothing does."""
    calls = [step.target if step.op == "call_module" else "" for step in steps]
    ends = [calls.index(name) + 1 if calls.count(name) == 1 else -1 for name in stages]
    if wrong := [name for name, k in zip(stages, ends, strict=True) if k not in maps]:
        raise NoChain(f"'{wrong[0]}' gives no map, or not the only tensor that goes on")
    before = max((k for k in maps if k < ends[0]), default=0)
    return [before, *ends] if before else ends


def _found_ends(net: nn.Module, steps: tuple[Step, ...], maps: Maps) -> list[int]:
    """Stages by the library's own names where it has them, else by the maps' sizes, else blocks in equal groups."""
    named = {k: m[1] for k, s in enumerate(steps, start=1) if s.op == "call_module" and (m := STAGE.match(s.target))}
    if len({*named.values()}) > 1 and next(iter(named.values())) in NAMED:
        first = min(named)
        ends = [max(k for k in maps if k < first)] if any(k < first for k in maps) else []
        for stage in dict.fromkeys(named.values()):
            own = [k for k in named if named[k] == stage]
            after = min((k for k in named if k > own[-1]), default=own[-1] + 1)
            ends += [k for k in maps if own[0] <= k < after][-1:]
        return ends
    cuts = sorted(maps)
    ends = [a for a, b in pairwise(cuts) if maps[a][0] != maps[b][0]] + cuts[-1:]
    while len(ends) > 1 and not _has_weights(net, steps[ends[-2] : ends[-1]]):
        ends.pop()
    groups = _equal_groups(net, steps, cuts)
    return groups if len(ends) < 3 and len(groups) > len(ends) else ends


def _equal_groups(net: nn.Module, steps: tuple[Step, ...], cuts: list[int]) -> list[int]:
    """The network's blocks, modules of the kind that comes most often, in groups of as many; the stem lies before."""
    kinds = {k: type(net.get_submodule(steps[k - 1].target)) for k in cuts if steps[k - 1].op == "call_module"}
    kinds = {k: kind for k, kind in kinds.items() if _has_weights(net, steps[k - 1 : k])}
    if not kinds:
        return []
    most = Counter(kinds.values()).most_common(1)[0][0]
    blocks = [k for k in cuts if kinds.get(k) is most]
    n, before = min(SAME_SIZE_STAGES, len(blocks)), [k for k in cuts if k < blocks[0]]
    return before[-1:] + [blocks[math.ceil(len(blocks) * i / n) - 1] for i in range(1, n + 1)]
