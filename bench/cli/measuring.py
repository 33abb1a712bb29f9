"""The command that measures: time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from bench.cli.common import (
    Device,
    Json,
    Plugins,
    Sets,
    SuiteName,
    app,
    console,
    suite_of,
)
from bench.errors import UserError

if TYPE_CHECKING:
    from bench.suite.suite import Suite


@app.command()
def time(
    suite: SuiteName = "cifar100-mini",
    methods: Annotated[
        str | None,
        typer.Option(help="Students of the cohort, comma-separated (kd,kd,kd,kd); 'all' times every loss; --tune: kd"),
    ] = None,
    plugin: Plugins = None,
    tune: Annotated[bool, typer.Option("--tune", help="What lockstep gains a study of one method.")] = False,
    safety: Annotated[
        bool, typer.Option("--safety", help="What records, checkpoints and MLflow cost a cohort.")
    ] = False,
    batch: Annotated[int | None, typer.Option(help="With --tune: trials in lockstep. [default: 8]")] = None,
    rounds: Annotated[int, typer.Option(min=3, help="Rounds; medians are printed.")] = 7,
    sets: Sets = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Measure the harness against a bare loop, a cohort against its parts, and what tracking costs.

    With `--methods all`: what every method's loss costs without the networks, over the student's own step.
    With `--tune`: one trial's share of a training step, trained alone and in lockstep with the others of its batch.
    With `--safety`: whole cohorts of the suite's methods, with all that makes a run durable and with nothing of it.
    """
    from bench import environment
    from bench.timing import step as timing

    if batch is not None and not tune:
        raise UserError("--batch is of --tune; type --tune --batch 8, or leave it out")
    if safety and tune:
        raise UserError("--safety and --tune are two measurements; type one of them")
    on = environment.resolve_device(device)
    if methods == "all" and not (tune or safety):
        _show_losses(suite_of(suite, None, None, sets), rounds, on, as_json)
        return
    if tune:
        from bench.timing.tune import measure_trials

        chosen = suite_of(suite, "kd" if methods is None else methods, None, sets)
        figures = measure_trials(chosen, 8 if batch is None else batch, rounds, on, console)
    elif safety:
        from bench.timing.safety import measure_safety

        figures = measure_safety(suite_of(suite, methods, None, sets), rounds, on, console)
    else:
        names = ("kd,kd,kd,kd" if methods is None else methods).split(",")
        figures = timing.measure(suite_of(suite, None, None, sets), names, rounds, on, console)
    if as_json:
        print(json.dumps(figures, indent=1))
        return
    table = Table("figure", "value", box=None, header_style="bold")
    for name, value in figures.items():
        table.add_row(name, f"{value:.3f}" if isinstance(value, float) else str(value))
    console.print(table)


def _show_losses(suite: Suite, rounds: int, on: Any, as_json: bool) -> None:
    import methods
    from bench.timing.losses import measure_losses

    rows = measure_losses(suite, methods.names(), rounds, on, console)
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    table = Table("method", "views", "loss (ms)", "over the student's step", "", box=None, header_style="bold")
    for row in sorted(rows, key=lambda row: row.get("over_student_step", 0.0)):
        times = (f"{row['loss_ms']:.2f}", f"{row['over_student_step']:.2f}") if "loss_ms" in row else ("-", "-")
        table.add_row(row["method"], str(row["views"]), *times, row["note"])
    console.print(table)
