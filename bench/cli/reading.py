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
    results_of,
    short,
    show,
    suite_of,
)
from bench.errors import unknown


@app.command()
def report(
    suite: SuiteName = "digits",
    results: Results = None,
    uri: Annotated[
        str | None, typer.Option("--from", metavar="URI", help="Of the runs in this tracking store; needs no results.")
    ] = None,
) -> None:
    """Table, figures and answer from what has been run. Trains nothing."""
    from bench import report as reports

    folder, name = results_of(results), Path(suite).stem
    if uri:
        from tracking import query

        show(reports.write(folder, name, found=query.suite(uri, name, results=folder)))
        return
    from tracking import summary

    done = reports.write(folder, name)
    summary.record(done.report.parent, done.answer, done.frame)  # `kdbench sync` brings it to MLflow
    show(done)


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

    folder = results_of(results)
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
    from bench.jobs import claims, teacher
    from bench.jobs.cohort_job import PairContext
    from bench.jobs.progress import Progress
    from bench.jobs.run import check as fits
    from bench.jobs.run import resolved
    from bench.report import layers as shown
    from bench.suite.suite import MethodSpec, results_folder
    from bench.training import layers
    from methods.logit_free import best_stages

    folder, on = results_folder(results), environment.device(device)
    chosen = resolved(suite_of(suite, None, None, sets), on)
    chosen = chosen.model_copy(update={"methods": [MethodSpec(method="logit_free")]})  # the one that asks for Q
    data = datasets.load(chosen.data, on)
    for pair in chosen.pairs:
        fits(chosen, pair, data)
    made, progress = environment.environment(on), Progress(console, quiet=as_json)
    known: dict[str, Any] = {}  # several pairs may share a teacher
    for_machines = []
    for pair in chosen.pairs:
        get = partial(PairContext.of, chosen, pair, data, folder, made, progress, None)
        got = claims.run_when_free(get, progress.say).teacher
        if got.fingerprint not in known:
            known[got.fingerprint] = layers.rows(got.network, data)
        rows, n = known[got.fingerprint], teacher.build(pair.student, data, init="dims").n_stages
        stages = shown.stage_data(pair.name, rows, best_stages([row["quality"] for row in rows], n))
        figure = shown.write(folder / chosen.name, stages, made)
        for_machines.append({"pair": pair.name, "teacher": got.fingerprint, "figure": str(figure)})
        for_machines[-1]["stages"] = stages.drop(columns="pair").to_dict("records")
        if not as_json:
            console.print(shown.rich(stages))
            console.print(f"figure {short(figure)}\n", highlight=False, soft_wrap=True)
    if as_json:
        print(json.dumps(for_machines, indent=1))


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
    from bench.jobs.cohort_job import describe
    from bench.jobs.progress import Progress
    from bench.jobs.run import check as fits
    from bench.jobs.run import resolved
    from bench.jobs.teacher import obtain

    on = environment.device(device)
    chosen = resolved(suite_of(suite, methods, seeds, sets, skip_unfit), on)
    data = datasets.load(chosen.data, on)
    unfit = {pair.name: fits(chosen, pair, data) for pair in chosen.pairs}
    described = data.describe() | data.describe_test()  # as for a run, whose fingerprint holds both
    n = sum(len(chosen.methods) - len(reasons) for reasons in unfit.values()) * len(chosen.seeds)
    console.print(
        f"suite {chosen.name} is right: {n} runs in {len(chosen.pairs) * len(chosen.seeds)} cohorts on {on}",
        highlight=False,
    )
    console.print(f"data: {described}", highlight=False)
    for pair in chosen.pairs:
        console.print(f"pair: {pair.name}", highlight=False, markup=False)
        for title, reason in unfit[pair.name].items():
            console.print(f"left out: {title}: {reason}", highlight=False, markup=False, soft_wrap=True)
        if pair.is_ready:
            obtain(chosen, pair, data, describe(data), Path(), {}, Progress(console))  # says how good it is
    console.print(
        f"methods: {', '.join(m.title for m in chosen.methods)}; seeds: {', '.join(map(str, chosen.seeds))}",
        highlight=False,
    )
    console.print(f"protocol: {chosen.protocol.model_dump(exclude_defaults=True)}", highlight=False)


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
        "suites": catalogue.suites_,
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
