"""What each method's loss costs on its own: without the networks, beside the student's own step."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

import methods
from bench import data as datasets
from bench.jobs.cohort_job import method_dims
from bench.jobs.run import resolve_suite
from bench.suite.suite import Suite
from bench.timing.step import STEPS, bare_loop_lap, first_batch, make_cohort, milliseconds_of, outputs_without_grad
from bench.training.precision import with_precision
from methods.base import Needs, NetworkView, Out, Progress, Refusal


def measure_losses(
    suite: Suite, names: Iterable[str], rounds: int, device: torch.device, console: Console
) -> list[dict[str, Any]]:
    """One row per method and phase: milliseconds of loss and gradient to the taps, and that over the student's step.

    The student's step is measured in the same rounds: forward, cross entropy, backward and the optimiser's step.
    """
    suite = resolve_suite(suite, device)
    data = datasets.load(suite.data, device)
    laps: dict[str, Callable[[], None]] = {"": bare_loop_lap(suite, data, "vanilla", with_teacher=False)}
    rows: dict[str, dict[str, Any]] = {}
    for name in names:
        row = {"method": name, "views": len(methods.get(name).needs.views)}
        try:
            title, method_laps = _title_and_laps(suite, data, name)
        except Refusal as refusal:
            rows[name] = row | {"note": str(refusal)}
            continue
        for phase, lap in method_laps.items():
            laps[title + phase] = lap
            rows[title + phase] = row | {"method": title + phase, "note": ""}
    times: dict[str, list[float]] = {name: [] for name in laps}
    for round_number in range(rounds + 1):  # the first round warms up
        console.print(f"round {round_number} of {rounds}", end="\r") if console.is_terminal else None
        for name, lap in laps.items():
            milliseconds = milliseconds_of(lap, device)
            if round_number:
                times[name].append(milliseconds if name else milliseconds / STEPS)
    for name, values in times.items():
        if name:
            ratio = statistics.median(a / b for a, b in zip(values, times[""], strict=True))
            rows[name] |= {"loss_ms": statistics.median(values), "over_student_step": ratio}
    return list(rows.values())


def _title_and_laps(suite: Suite, data: datasets.Data, name: str) -> tuple[str, dict[str, Callable[[], None]]]:
    """The row's title and `loss_laps`, by the first recipe that takes this pair. Raises the default's `Refusal`."""
    refusals = []
    for recipe in methods.get(name).recipes:
        try:
            return (name if recipe == "paper" else f"{name}({recipe})"), loss_laps(suite, data, name, recipe)
        except Refusal as refusal:
            refusals.append(refusal)
    raise refusals[0]


def loss_laps(suite: Suite, data: datasets.Data, name: str, recipe: str) -> dict[str, Callable[[], None]]:
    """Calls that each run one step's loss and its backward pass to the taps; one per phase. Raises `Refusal`."""
    methods.get(name).check(method_dims(suite.pairs[0], data, suite.protocol.batch_size))
    cohort = make_cohort(suite, [name], data, recipe)
    member, teacher = cohort.members[0], cohort.teacher
    assert teacher is not None
    network, method = member.network.train(), member.method.train()

    def lap(loss: Callable[..., dict[str, Tensor]], needs: Needs) -> Callable[[], None]:
        first = first_batch(cohort, needs.views)
        s = {
            view: _detach_outputs(outputs_without_grad(cohort, images, network))
            for view, images in first.views.items()
            if needs.student
        }
        t = {view: outputs_without_grad(cohort, images) for view, images in first.views.items() if needs.teacher}
        tails = [with_precision(net.tail, suite.protocol, data.device) for net in (network, teacher)]
        epochs = suite.protocol.epochs
        at = Progress(epochs, epochs, member.rng.generator, first.index if needs.index else None)

        def loss_and_gradient() -> None:
            terms = loss(NetworkView(s, needs.taps, tails[0]), NetworkView(t, needs.taps, tails[1]), first.y, at)
            method.backward(terms, member.train_step.optimizer)

        return loss_and_gradient

    out = {"": lap(method.loss, method.needs)}
    if method.pretrain_share:
        out[" (before)"] = lap(method.pretrain_loss, method.pretrain_needs or method.needs)
    return out


def _detach_outputs(out: Out) -> Out:
    """The taps as tensors of their own that want gradients: backward ends at them, not in the network."""

    def detach(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(detach(v) for v in value)
        return None if value is None else value.detach().clone().requires_grad_()

    return Out(*(detach(getattr(out, field.name)) for field in fields(Out)))
