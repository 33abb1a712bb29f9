"""Commands that train: run, tune, rerun, train-teacher."""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    Workers,
    app,
    console,
    mirror_to_mlflow,
    open_executor,
    print_delivery,
    print_report,
    relative_path,
    suite_of,
)
from bench.errors import UserError

if TYPE_CHECKING:
    from bench.report.build import Report
    from tracking.mirror import Mirror


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
    workers: Workers = "auto",
    skip_unfit: SkipUnfit = False,
    no_report: Annotated[
        bool, typer.Option("--no-report", help="Train and keep records; `kdbench report` later.")
    ] = False,
    minutes: Annotated[
        float | None, typer.Option(help="End in this time, with exit code 75; the same command goes on.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress; the table alone.")] = False,
) -> None:
    """Train what the suite still lacks, log it, and report the comparison."""
    from bench import environment
    from bench.jobs import stop
    from bench.jobs import tuned as values
    from bench.jobs.pool import workers_asked
    from bench.jobs.progress import Progress
    from bench.jobs.run import has_kept, run_suite
    from bench.suite.suite import results_folder

    chosen, n_workers = suite_of(suite, methods, seeds, sets, skip_unfit), workers_asked(workers)
    if tuned:
        chosen = values.with_tuned_rows(chosen, tuned)
    folder, on, begun = results_folder(results), environment.resolve_device(device), time.time()
    if minutes is not None:
        stop.end_after(60 * minutes)
    with mirror_to_mlflow(folder, chosen.name) as mirror:
        progress = Progress(console, quiet)
        with open_executor(executor, address, gpus, chosen, folder, progress, mirror) as remote:
            options = {"device": remote.device, "remote": remote} if remote else {"device": on}
            options |= {"group_size": cohort_size, "workers": n_workers}
            try:
                outcome = run_suite(chosen, folder, rerun=rerun, progress=progress, mirror=mirror, **options)
            except stop.Interrupted as stopped:
                if stopped.number != stop.TIME_IS_UP or has_kept(folder, chosen.name, begun):
                    raise
                raise UserError(f"--minutes {minutes:g} is too short for one step here; type a longer time") from None
        for failure in outcome.failures:
            console.print(f"[red]not finished:[/red] {escape(failure)}", highlight=False, soft_wrap=True)
        stop.raise_if_time_is_up()  # the same command writes the report
        written = None if no_report else _report(folder, chosen.name, mirror, bool(outcome.failures))
    if written:
        print_report(written)
    if outcome.n_skipped:
        console.print(
            f"{outcome.n_trained} runs trained, {outcome.n_skipped} were finished already (--rerun trains them anew)"
        )
    print_delivery(mirror)
    if outcome.failures:
        raise SystemExit(1)


def _report(folder: Path, suite: str, mirror: Mirror, has_failures: bool) -> Report:
    """The suite's report, and its record, which is mirrored after all runs."""
    from bench import report
    from tracking import summary

    mirror.wait()  # so that the report knows where its runs are
    try:
        written = report.write(folder, suite)
    except UserError as error:
        if not has_failures:
            raise
        console.print(str(error), markup=False, highlight=False, soft_wrap=True)
        raise SystemExit(1) from None
    summary.write_record(written.report.parent, written.answer, written.frame)
    return written


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
    workers: Workers = "auto",
    skip_unfit: SkipUnfit = False,
    sets: Sets = None,
    results: Results = None,
    device: Device = "auto",
) -> None:
    """Find each method's hyper-parameters on the validation split, all methods with the same budget."""
    from bench import environment
    from bench.jobs.pool import workers_asked
    from bench.jobs.progress import Progress
    from bench.report import tuning
    from bench.suite.suite import results_folder
    from bench.tune import tune as study

    options = dict(trials=trials, batch=batch, sampler=sampler, pruner=pruner, rule=rule, seed=seed)
    given = {key: value for key, value in options.items() if value is not None}
    given |= {"objective": f"[{objective}]"} if objective else {}
    sets = [*(sets or []), *(f"tune.{key}={value}" for key, value in given.items())]
    chosen = suite_of(suite, methods, seeds, sets, skip_unfit)
    folder, on, n_workers = results_folder(results), environment.resolve_device(device), workers_asked(workers)
    with mirror_to_mlflow(folder, chosen.name) as mirror:
        progress = Progress(console)
        with open_executor(executor, address, gpus, chosen, folder, progress, mirror) as remote:
            on = remote.device if remote else on
            execution = {"progress": progress, "mirror": mirror, "remote": remote, "workers": n_workers}
            out = study(chosen, folder, device=on, url=storage, name=name, group_size=cohort_size, **execution)
    for row in out:
        if row.failure:
            console.print(
                f"[red]not tuned:[/red] {escape(f'{row.method} on {row.pair}: {row.failure}')}", highlight=False
            )
    done = tuning.write(folder, chosen.name, environment.describe(on))
    for table in done.tables:
        console.print(table)
    console.print(done.answer, highlight=False, markup=False, style="bold")
    figure = f"\nfigure {relative_path(done.figure)}" if done.figure else ""
    console.print(
        f"values {relative_path(folder / 'tuned' / chosen.name)}; the bench uses them with:"
        f" make bench SUITE={suite} TUNED=1\n"
        f"report {relative_path(done.report)}{figure}",
        highlight=False,
        soft_wrap=True,
    )
    print_delivery(mirror)
    if any(row.failure for row in out):
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

    folder, on = results_folder(results), environment.resolve_device(device)
    progress = Progress(console, as_json)
    verdict = reruns.rerun(fingerprint, folder, device=on, from_scratch=from_scratch, progress=progress)
    if as_json:
        print(json.dumps({**vars(verdict), "folder": str(verdict.folder), "agrees": verdict.agrees}, indent=1))
        raise SystemExit(not verdict.agrees)
    table = Table("metric", "recorded", "now", box=None, header_style="bold")
    for name, values in verdict.metrics.items():
        table.add_row(name, *(f"{value:.6g}" for value in values))
    console.print(table)
    for difference, kind in ((verdict.other, "another machine"), (verdict.changed, "not the same run")):
        if difference:
            console.print(f"{kind}: {difference}", highlight=False, markup=False, soft_wrap=True)
    console.print(verdict.sentence(), style="bold" if verdict.agrees else "bold red", highlight=False, markup=False)
    raise SystemExit(not verdict.agrees)


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
    from bench.jobs.run import resolve_suite
    from bench.suite.suite import results_folder

    folder, on = results_folder(results), environment.resolve_device(device)
    chosen = resolve_suite(suite_of(suite, None, None, sets), on)
    data = datasets.load(chosen.data, on)
    machine, progress = environment.describe(on), Progress(console)
    for pair, part in [(pair, part) for pair in chosen.pairs for part in chosen.by_teacher()]:
        split = datasets.split_as(data, part.data)
        make_context = partial(PairContext.of, part, pair, split, folder, machine, progress, None)
        teacher = claims.run_when_free(make_context, progress.log).teacher
        console.print(f"{teacher.title} is {teacher.fingerprint}", highlight=False)
