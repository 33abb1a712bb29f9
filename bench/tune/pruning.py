"""Successive halving and Hyperband inside a cohort: who goes on is decided when all of a batch stand at a rung.

Optuna's pruners decide for one trial at a time by those that happen to have come before it. Trials in lockstep stand at
a rung together, so the rank is taken among all of them, and does not depend on who is asked first or on a kill.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from bench.suite.spec import TuneSpec

ETA = 3  # of the trials at a rung, one in three goes on


def rungs(spec: TuneSpec, epochs: int, fully_active_from: float, batch: int) -> list[int]:
    """The epochs after which trials of the batch of that number are judged. arXiv 1502.07943, 1603.06560.

    fully_active_from: the share of all epochs after which every method of the call is wholly at work; no rung lies
    before it. Hyperband takes turns, batch by batch, between all rungs, fewer of them, and none.
    """
    if spec.pruner == "none":
        return []
    start = math.floor(fully_active_from * epochs)
    levels = range(math.floor(math.log(spec.batch, ETA) + 1e-9), 0, -1)  # until one of a batch is left
    epochs_of_rungs = [start + math.ceil((epochs - start) / ETA**level) for level in levels]
    skipped = batch % (len(epochs_of_rungs) + 1) if spec.pruner == "hyperband" else 0
    return sorted({epoch for epoch in epochs_of_rungs[skipped:] if 0 < epoch < epochs})


def trials_to_prune(scores: Mapping[int, tuple[float, float]]) -> list[int]:
    """Trials that end here. scores: top-1 and NLL by trial; the lower NLL, then the lower number wins a tie.

    Trial 0, the recipe, has one of the places, since what a search gained is told beside it.
    """
    order = sorted(scores, key=lambda number: (number > 0, -scores[number][0], scores[number][1], number))
    return order[math.ceil(len(order) / ETA) :]
