"""Commands that read what there is: report, compare, layers, check, list."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from bench.cli.common import (
    Device,
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
    duration,
    names_of_methods,
    print_report,
    relative_path,
    results_path,
    suite_of,
)
from bench.errors import UserError, unknown


@app.command()
def report(
    suite: SuiteName = "digits",
    results: Results = None,
    uri: Annotated[
        str | None, typer.Option("--from", metavar="URI", help="Of the runs in this tracking store; needs no results.")
    ] = None,
    pdf: Annotated[bool, typer.Option("--pdf", help="Each figure also as a PDF, for a paper.")] = False,
    only: Annotated[
        bool, typer.Option("--only", help="What the last call of the suite asked for, and no more.")
    ] = False,
    methods: Methods = None,
) -> None:
    """Table, figures and answer from what has been run. Trains nothing."""
    from bench import report as reports

    folder, name = results_path(results), Path(suite).stem
    if uri:
        if only or methods:
            raise UserError("--only and --methods narrow a report of the results folder; leave them out with --from")
        from tracking import query

        print_report(reports.write(folder, name, found=query.suite(uri, name, results=folder), pdf=pdf))
        return
    from tracking import summary

    done = reports.write(folder, name, pdf=pdf, last_call=only, methods=names_of_methods(methods))
    summary.write_record(done.report.parent, done.answer, done.frame)  # `kdbench sync` brings it to MLflow
    print_report(done)


@app.command()
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A row's label (kd), a suite's results, or an MLflow run id.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another of the same kind.")],
    suite: Annotated[
        str | None, typer.Option(help="Whose rows; without it those of the suite that was run last in the results.")
    ] = None,
    results: Results = None,
    uri: Annotated[str | None, typer.Option("--from", metavar="URI", help="The tracking server to read from.")] = None,
    as_json: Json = False,
) -> None:
    """Is the difference real? Two methods, two suites' results or two MLflow runs, paired seed by seed."""
    from bench.report import compare, compare_view

    folder = results_path(results)
    found = compare.compare(a, b, folder, suite=suite, uri=uri)
    if as_json:
        print(json.dumps(compare_view.as_dict(found), indent=1))
        return
    for part in compare_view.rich(found):
        console.print(part, highlight=False)


@app.command()
def layers(
    suite: SuiteName = "digits",
    sets: Sets = None,
    results: Results = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """What each stage of the suite's teachers offers, and which stages `layers: auto` takes. Trains teachers alone."""
    from bench import data as datasets
    from bench import environment
    from bench.jobs import claims, teacher_source
    from bench.jobs.check import check_pair
    from bench.jobs.cohort_job import PairContext
    from bench.jobs.progress import Progress
    from bench.jobs.run import resolve_suite
    from bench.report import layers as shown
    from bench.suite.suite import MethodSpec, results_folder
    from bench.training import layers
    from methods.logit_free import best_stages

    folder, on = results_folder(results), environment.resolve_device(device)
    chosen = resolve_suite(suite_of(suite, None, None, sets), on)
    chosen = chosen.model_copy(update={"methods": [MethodSpec(method="logit_free")]})  # the one that asks for Q
    data = datasets.load(chosen.data, on)
    for pair in chosen.pairs:
        check_pair(chosen, pair, data)
    machine, progress = environment.describe(on), Progress(console, quiet=as_json)
    qualities: dict[str, Any] = {}  # several pairs may share a teacher
    json_rows = []
    for pair in chosen.pairs:
        make_context = partial(PairContext.of, chosen, pair, data, folder, machine, progress, None)
        teacher_of_pair = claims.run_when_free(make_context, progress.log).teacher
        if teacher_of_pair.fingerprint not in qualities:
            qualities[teacher_of_pair.fingerprint] = layers.stage_qualities(teacher_of_pair.network, data)
        rows = qualities[teacher_of_pair.fingerprint]
        n = teacher_source.build_network(pair.student, data, init="dims").n_stages
        stages = shown.stage_data(pair.name, rows, best_stages([row["quality"] for row in rows], n))
        figure = shown.write(folder / chosen.name, stages, machine)
        json_rows.append({"pair": pair.name, "teacher": teacher_of_pair.fingerprint, "figure": str(figure)})
        json_rows[-1]["stages"] = stages.drop(columns="pair").to_dict("records")
        if not as_json:
            console.print(shown.rich(stages))
            console.print(f"figure {relative_path(figure)}\n", highlight=False, soft_wrap=True)
    if as_json:
        print(json.dumps(json_rows, indent=1))


@app.command()
def check(
    suite: SuiteName = "digits",
    plugin: Plugins = None,
    methods: Methods = None,
    seeds: Seeds = None,
    sets: Sets = None,
    skip_unfit: SkipUnfit = False,
    device: Device = "auto",
) -> None:
    """Read a suite and its data, and say what would run. Trains nothing."""
    from bench import data as datasets
    from bench import environment
    from bench.jobs.check import check_pair
    from bench.jobs.cohort_job import describe_data
    from bench.jobs.progress import Progress
    from bench.jobs.rounds import check_comparisons
    from bench.jobs.run import resolve_suite
    from bench.jobs.teacher import obtain

    on = environment.resolve_device(device)
    chosen = resolve_suite(suite_of(suite, methods, seeds, sets, skip_unfit), on)
    data = datasets.load(chosen.data, on)
    unfit = {pair.name: check_pair(chosen, pair, data) for pair in chosen.pairs}
    check_comparisons(chosen)
    description = data.describe() | data.describe_test()  # as for a run, whose fingerprint holds both
    cohorts = len(chosen.pairs) * len(chosen.seeds)
    n_runs = sum(len(chosen.methods) - len(reasons) for reasons in unfit.values()) * len(chosen.seeds)
    most = "at most " if chosen.until else ""
    console.print(
        f"suite {chosen.name} is right: {most}{n_runs} runs in {most}{cohorts} cohorts on {on}",
        highlight=False,
    )
    console.print(f"data: {description}", highlight=False)
    for pair in chosen.pairs:
        console.print(f"pair: {pair.name}", highlight=False, markup=False)
        for title, reason in unfit[pair.name].items():
            console.print(f"left out: {title}: {reason}", highlight=False, markup=False, soft_wrap=True)
        if pair.is_ready:
            obtain(chosen, pair, data, describe_data(data), Path(), {}, Progress(console))  # says how good it is
    seeds_words = ", ".join(map(str, chosen.seeds))
    if until := chosen.until:
        seeds_words = f"{until.least} to {until.most}, until all is decided within {until.margin:g} points"
    own = [what for what in ("teacher", "split") if getattr(chosen, what).each == "seed"]
    console.print(
        f"methods: {', '.join(m.title for m in chosen.methods)}; seeds: {seeds_words}"
        + (f"; every seed has its own {' and '.join(own)}" if own else ""),
        highlight=False,
    )
    console.print(f"protocol: {chosen.protocol.model_dump(exclude_defaults=True)}", highlight=False)


@app.command()
def plan(
    suite: SuiteName = "digits",
    plugin: Plugins = None,
    methods: Methods = None,
    seeds: Seeds = None,
    sets: Sets = None,
    results: Results = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """What a run of the suite still costs here: runs, steps, teachers, time, memory and disk. Trains a few steps."""
    from bench import environment
    from bench.timing.plan import estimate

    chosen = suite_of(suite, methods, seeds, sets)
    rows = estimate(chosen, results_path(results), environment.resolve_device(device))
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    table = Table("pair", "seeds", box=None, header_style="bold")
    for name in ("runs", "cohorts", "steps", "teachers", "a cohort", "in all"):
        table.add_column(name, justify="right")
    for row in rows:
        count = f"{row['seeds']} {row['case']}"
        counts = (f"{row[name]:,}" for name in ("runs", "cohorts", "student_steps", "teachers"))
        times = (duration(row[name]) for name in ("seconds_per_cohort", "seconds"))
        table.add_row(row["pair"], count, *counts, *times)
    console.print(table)
    for case in dict.fromkeys(row["case"] for row in rows):
        of_case = [row for row in rows if row["case"] == case]
        whole, disk = (sum(row[name] for row in of_case) for name in ("seconds", "disk_mb"))
        memory = max(row["memory_mb"] for row in of_case)
        console.print(
            f"{f'at {case} ' if case else ''}{duration(whole)} one cohort after another, {memory:,.0f} MB of memory"
            f" beside torch, {disk:,.1f} MB on disk",
            highlight=False,
            soft_wrap=True,
        )


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(metavar="methods|networks|datasets|suites")],
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """What there is to choose from."""
    from bench import catalogue

    kinds = {
        "methods": catalogue.methods if as_json else catalogue.methods_brief,
        "networks": catalogue.networks,
        "datasets": catalogue.datasets,
        "suites": catalogue.list_suites,
    }
    if what not in kinds:
        raise unknown("list", what, kinds)
    rows = kinds[what]()
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    table = Table(*rows[0], box=None, header_style="bold")
    for row in rows:
        table.add_row(*(", ".join(map(str, v)) if isinstance(v, list) else str(v) for v in row.values()))
    console.print(table)
