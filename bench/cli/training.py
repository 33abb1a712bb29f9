"""Commands that train: run, tune, rerun, train-teacher."""

from __future__ import annotations

import json
from functools import partial
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from bench.cli.common import (
    Address,
    CohortSize,
    Device,
    Executor,
    Gpus,
    Json,
    Methods,
    Plugins,
    Results,
    Seeds,
    Sets,
    SkipUnfit,
    SuiteName,
    app,
    console,
    following,
    say_delivered,
    short,
    show,
    spreading,
    suite_of,
)
from bench.errors import UserError


@app.command()
def run(
    suite: SuiteName = "digits",
    plugin: Plugins = None,
    methods: Methods = None,
    seeds: Seeds = None,
    sets: Sets = None,
    results: Results = None,
    device: Device = "auto",
    tuned: Annotated[
        str | None, typer.Option(help="'only': with the values that kdbench tune found; 'both': beside the recipes.")
    ] = None,
    rerun: Annotated[bool, typer.Option("--rerun", help="Train finished runs anew.")] = False,
    executor: Executor = "local",
    address: Address = None,
    gpus: Gpus = None,
    cohort_size: CohortSize = 0,
    skip_unfit: SkipUnfit = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress; the table alone.")] = False,
) -> None:
    """Train what the suite still lacks, log it, and report the comparison."""
    from bench import environment, report
    from bench.jobs import tuned as values
    from bench.jobs.progress import Progress
    from bench.jobs.run import run_suite
    from bench.suite.suite import results_folder
    from tracking import summary

    chosen = suite_of(suite, methods, seeds, sets, skip_unfit)
    if tuned:
        chosen = values.rows(chosen, tuned)
    folder, on = results_folder(results), environment.device(device)
    with following(folder, chosen.name) as mirror:
        progress = Progress(console, quiet)
        with spreading(executor, address, gpus, chosen, folder, progress, mirror) as spread:
            where = {"device": spread.device, "spread": spread.each} if spread else {"device": on}
            where |= {"group_size": cohort_size}
            outcome = run_suite(chosen, folder, rerun=rerun, progress=progress, follower=mirror, **where)
        for trouble in outcome.troubles:
            console.print(f"[red]not finished:[/red] {escape(trouble)}", highlight=False, soft_wrap=True)
        mirror.wait()  # so that the report knows where its runs are
        try:
            done = report.write(folder, chosen.name)
        except UserError as nothing:
            if not outcome.troubles:
                raise
            console.print(str(nothing), markup=False, highlight=False, soft_wrap=True)
            raise SystemExit(1) from None
        summary.record(done.report.parent, done.answer, done.frame)  # the mirror takes it along, after all runs
    show(done)
    if outcome.skipped:
        console.print(
            f"{outcome.trained} runs trained, {outcome.skipped} were finished already (--rerun trains them anew)"
        )
    say_delivered(mirror)
    if outcome.troubles:
        raise SystemExit(1)


@app.command()
def tune(
    suite: SuiteName = "digits",
    plugin: Plugins = None,
    methods: Methods = None,
    seeds: Seeds = None,
    trials: Annotated[
        int | None, typer.Option(help="Trials per method, the recipe included (of a grid: at most); 24 by default.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(help="Trials that train in lockstep; 1: one after the other; 8 by default.")
    ] = None,
    sampler: Annotated[str | None, typer.Option(help="tpe, random, grid, cmaes or gp; tpe by default.")] = None,
    pruner: Annotated[str | None, typer.Option(help="none, halving or hyperband; none by default.")] = None,
    objective: Annotated[str | None, typer.Option(help="accuracy, or accuracy,cost; accuracy by default.")] = None,
    rule: Annotated[str | None, typer.Option(help="confirmed or best_trial; confirmed by default.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the search; 0 by default.")] = None,
    name: Annotated[str, typer.Option(help="Of new studies, where others of this suite stay as they are.")] = "",
    storage: Annotated[
        str | None, typer.Option(help="Optuna's database, a URL; optuna.db in the results by default.")
    ] = None,
    executor: Executor = "local",
    address: Address = None,
    gpus: Gpus = None,
    cohort_size: CohortSize = 0,
    skip_unfit: SkipUnfit = False,
    sets: Sets = None,
    results: Results = None,
    device: Device = "auto",
) -> None:
    """Find each method's hyper-parameters on the validation split, all methods with the same budget."""
    from bench import environment
    from bench.jobs.progress import Progress
    from bench.report import tuning
    from bench.suite.suite import results_folder
    from bench.tune import tune as study

    options = dict(trials=trials, batch=batch, sampler=sampler, pruner=pruner, rule=rule, seed=seed)
    given = {key: value for key, value in options.items() if value is not None}
    given |= {"objective": f"[{objective}]"} if objective else {}
    sets = [*(sets or []), *(f"tune.{key}={value}" for key, value in given.items())]
    chosen = suite_of(suite, methods, seeds, sets, skip_unfit)
    folder, on = results_folder(results), environment.device(device)
    with following(folder, chosen.name) as mirror:
        progress = Progress(console)
        with spreading(executor, address, gpus, chosen, folder, progress, mirror) as spread:
            on = spread.device if spread else on
            how = {"progress": progress, "follower": mirror, "spread": spread, "group_size": cohort_size}
            out = study(chosen, folder, device=on, url=storage, name=name, **how)
    for row in out:
        if row.trouble:
            console.print(
                f"[red]not tuned:[/red] {escape(f'{row.method} on {row.pair}: {row.trouble}')}", highlight=False
            )
    done = tuning.write(folder, chosen.name, environment.environment(on))
    console.print(done.table)
    console.print(done.answer, highlight=False, markup=False, style="bold")
    figure = f"\nfigure {short(done.figure)}" if done.figure else ""
    console.print(
        f"values {short(folder / 'tuned' / chosen.name)}; the bench uses them with: make bench SUITE={suite} TUNED=1\n"
        f"report {short(done.report)}{figure}",
        highlight=False,
        soft_wrap=True,
    )
    say_delivered(mirror)
    if any(row.trouble for row in out):
        raise SystemExit(1)


@app.command()
def rerun(
    fingerprint: Annotated[str, typer.Argument(help="Of a run, as in a report; or the folder of its record.")],
    results: Results = None,
    device: Device = "auto",
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Train the teacher anew, even if it is here.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Repeat one run of a report, and say whether its numbers agree."""
    from bench import environment
    from bench.jobs import rerun as reruns
    from bench.jobs.progress import Progress
    from bench.suite.suite import results_folder

    folder, on = results_folder(results), environment.device(device)
    got = reruns.rerun(fingerprint, folder, device=on, from_scratch=from_scratch, progress=Progress(console, as_json))
    if as_json:
        print(json.dumps({**vars(got), "folder": str(got.folder), "agrees": got.agrees}, indent=1))
        raise SystemExit(not got.agrees)
    table = Table("metric", "recorded", "now", box=None, header_style="bold")
    for name, values in got.metrics.items():
        table.add_row(name, *(f"{value:.6g}" for value in values))
    console.print(table)
    for told, what in ((got.other, "another machine"), (got.changed, "not the same run")):
        if told:
            console.print(f"{what}: {told}", highlight=False, markup=False, soft_wrap=True)
    console.print(got.sentence(), style="bold" if got.agrees else "bold red", highlight=False, markup=False)
    raise SystemExit(not got.agrees)


@app.command("train-teacher")
def train_teacher(
    suite: SuiteName = "digits", sets: Sets = None, results: Results = None, device: Device = "auto"
) -> None:
    """Train the suite's teachers alone (a run of the suite then finds them)."""
    from bench import data as datasets
    from bench import environment
    from bench.jobs import claims
    from bench.jobs.cohort_job import PairContext
    from bench.jobs.progress import Progress
    from bench.jobs.run import resolved
    from bench.suite.suite import results_folder

    folder, on = results_folder(results), environment.device(device)
    chosen = resolved(suite_of(suite, None, None, sets), on)
    data = datasets.load(chosen.data, on)
    made, progress = environment.environment(on), Progress(console)
    for pair in chosen.pairs:
        get = partial(PairContext.of, chosen, pair, data, folder, made, progress, None)
        got = claims.run_when_free(get, progress.say).teacher
        console.print(f"teacher {pair.teacher} is {got.fingerprint}", highlight=False)
