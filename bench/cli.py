"""The command line. Every import that costs time stands inside the command that needs it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from bench.errors import UserError, unknown

if TYPE_CHECKING:
    from bench.suite import Suite
    from tracking.mirror import Mirror

app = typer.Typer(
    help="A fair, paired, tracked benchmark of knowledge-distillation methods.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console()
ClickException = typer.BadParameter.__mro__[2]  # of the click that this typer uses, its own or the package


def _plug(files: list[str] | None) -> list[str] | None:
    """Methods from elsewhere join the registry before the suite that names them is read."""
    if files:
        import methods

        for file in files:
            methods.plug(file)
    return files


SuiteName = Annotated[
    str, typer.Argument(metavar="SUITE", help="A suite's name (`kdbench list suites`) or the path of a YAML file.")
]
Methods = Annotated[str | None, typer.Option(help="Only these methods, comma-separated: kd,dkd")]
Seeds = Annotated[str | None, typer.Option(help="How many seeds ('5'), or which ('0,1,7').")]
Sets = Annotated[list[str] | None, typer.Option("--set", help="Change a key of the suite: --set protocol.epochs=10")]
Results = Annotated[str | None, typer.Option(help="Folder of the results. [default: $KDBENCH_RESULTS or results]")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:<number>")]
Plugins = Annotated[
    list[str] | None, typer.Option("--plugin", help="A Python file that holds a method, for this call.", callback=_plug)
]
Json = Annotated[bool, typer.Option("--json", help="For machines.")]


@app.callback(invoke_without_command=True)
def _(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


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
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress; the table alone.")] = False,
) -> None:
    """Train what the suite still lacks, log it, and report the comparison."""
    from bench import environment, report
    from bench import tuned as values
    from bench.progress import Progress
    from bench.run import run_suite
    from bench.suite import results_folder
    from tracking import summary

    chosen = _suite(suite, methods, seeds, sets)
    if tuned:
        chosen = values.rows(chosen, tuned)
    folder, on = results_folder(results), environment.device(device)
    with _mirror(folder, chosen.name) as mirror:
        outcome = run_suite(chosen, folder, device=on, rerun=rerun, progress=Progress(console, quiet), follower=mirror)
        for trouble in outcome.troubles:
            console.print(f"[red]not finished:[/red] {trouble}", highlight=False)
        done = report.write(folder, chosen.name)
        summary.record(done.report.parent, done.answer, done.frame)  # the mirror takes it along, after all runs
    _show(done)
    if outcome.skipped:
        console.print(
            f"{outcome.trained} runs trained, {outcome.skipped} were finished already (--rerun trains them anew)"
        )
    _undelivered(mirror)
    if outcome.troubles:
        raise SystemExit(1)


@app.command()
def tune(
    suite: SuiteName = "digits",
    plugin: Plugins = None,
    methods: Methods = None,
    seeds: Seeds = None,
    trials: Annotated[int | None, typer.Option(help="Trials per method, the recipe included. [default: 24]")] = None,
    batch: Annotated[
        int | None, typer.Option(help="Trials that train in lockstep; 1: one after the other. [default: 8]")
    ] = None,
    sampler: Annotated[str | None, typer.Option(help="tpe, random, grid, cmaes or gp. [default: tpe]")] = None,
    pruner: Annotated[str | None, typer.Option(help="none, halving or hyperband. [default: none]")] = None,
    objective: Annotated[str | None, typer.Option(help="accuracy, or accuracy,cost. [default: accuracy]")] = None,
    rule: Annotated[str | None, typer.Option(help="confirmed or best_trial. [default: confirmed]")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the search. [default: 0]")] = None,
    name: Annotated[str, typer.Option(help="Of new studies, where others of this suite stay as they are.")] = "",
    storage: Annotated[
        str | None, typer.Option(help="Optuna's database, a URL. [default: optuna.db in the results]")
    ] = None,
    sets: Sets = None,
    results: Results = None,
    device: Device = "auto",
) -> None:
    """Find each method's hyper-parameters on the validation split, all methods with the same budget."""
    from bench import environment
    from bench.progress import Progress
    from bench.report import tuning
    from bench.suite import results_folder
    from bench.tune import tune as study

    options = dict(trials=trials, batch=batch, sampler=sampler, pruner=pruner, rule=rule, seed=seed)
    given = {key: value for key, value in options.items() if value is not None}
    given |= {"objective": f"[{objective}]"} if objective else {}
    chosen = _suite(suite, methods, seeds, [*(sets or []), *(f"tune.{key}={value}" for key, value in given.items())])
    folder, on = results_folder(results), environment.device(device)
    with _mirror(folder, chosen.name) as mirror:
        out = study(chosen, folder, device=on, progress=Progress(console), follower=mirror, url=storage, name=name)
    for row in out:
        if row.trouble:
            console.print(f"[red]not tuned:[/red] {row.method} on {row.pair}: {row.trouble}", highlight=False)
    done = tuning.write(folder, chosen.name, environment.environment(on))
    console.print(done.table)
    console.print(done.answer, highlight=False, markup=False, style="bold")
    figure = f"\nfigure {_short(done.figure)}" if done.figure else ""
    console.print(
        f"values {_short(folder / 'tuned' / chosen.name)}; the bench uses them with: make bench SUITE={suite} TUNED=1\n"
        f"report {_short(done.report)}{figure}",
        highlight=False,
        soft_wrap=True,
    )
    _undelivered(mirror)
    if any(row.trouble for row in out):
        raise SystemExit(1)


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
    from tracking import summary

    folder, name = Path(results or os.environ.get("KDBENCH_RESULTS") or "results").absolute(), Path(suite).stem
    if uri:
        from tracking import query

        _show(reports.write(folder, name, found=query.suite(uri, name, results=folder)))
        return
    done = reports.write(folder, name)
    summary.record(done.report.parent, done.answer, done.frame)  # `kdbench sync` brings it to MLflow
    _show(done)


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
    from bench import rerun as reruns
    from bench.progress import Progress
    from bench.suite import results_folder

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


@app.command()
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A row's label (kd), a suite's results, or an MLflow run id.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another of the same kind.")],
    suite: Annotated[
        str | None, typer.Option(help="Whose rows. [default: the suite that was run last in the results]")
    ] = None,
    results: Results = None,
    uri: Annotated[str | None, typer.Option("--from", metavar="URI", help="The tracking server to read from.")] = None,
    as_json: Json = False,
) -> None:
    """Is the difference real? Two methods, two suites' results or two MLflow runs, paired seed by seed."""
    from bench.report import compare, compare_view

    folder = Path(results or os.environ.get("KDBENCH_RESULTS") or "results").absolute()
    found = compare.compare(a, b, folder, suite=suite, uri=uri)
    if as_json:
        print(json.dumps(compare_view.as_dict(found), indent=1))
        return
    for part in compare_view.rich(found):
        console.print(part, highlight=False)


@app.command("train-teacher")
def train_teacher(
    suite: SuiteName = "digits", sets: Sets = None, results: Results = None, device: Device = "auto"
) -> None:
    """Train the suite's teachers alone (a run of the suite then finds them)."""
    from bench import data as datasets
    from bench import environment, teacher
    from bench.progress import Progress
    from bench.run import describe, resolved
    from bench.suite import results_folder

    folder, on = results_folder(results), environment.device(device)
    chosen = resolved(_suite(suite, None, None, sets), on)
    data = datasets.load(chosen.data, on)
    made, progress = environment.environment(on), Progress(console)
    for pair in chosen.pairs:
        got = teacher.obtain(
            pair, data, describe(data), chosen.teacher_protocol(), chosen.teacher.seed, folder, made, progress
        )
        console.print(f"teacher {pair.teacher} {got.fingerprint}: {got.top1:.2f} % on validation", highlight=False)


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
    from bench import environment, layers, teacher
    from bench.progress import Progress
    from bench.report import layers as shown
    from bench.run import check as fits
    from bench.run import describe, resolved
    from bench.suite import MethodSpec, results_folder
    from methods.logit_free import best_stages

    folder, on = results_folder(results), environment.device(device)
    chosen = resolved(_suite(suite, None, None, sets), on)
    chosen = chosen.model_copy(update={"methods": [MethodSpec(method="logit_free")]})  # the one that asks for Q
    data = datasets.load(chosen.data, on)
    for pair in chosen.pairs:
        fits(chosen, pair, data)
    made, progress = environment.environment(on), Progress(console, quiet=as_json)
    known: dict[str, Any] = {}  # several pairs may share a teacher
    for_machines = []
    for pair in chosen.pairs:
        protocol, seed = chosen.teacher_protocol(), chosen.teacher.seed
        got = teacher.obtain(pair, data, describe(data), protocol, seed, folder, made, progress)
        if got.fingerprint not in known:
            known[got.fingerprint] = layers.rows(got.network, data)
        rows, n = known[got.fingerprint], teacher.build(pair.student, data, init="dims").n_stages
        stages = shown.stage_data(pair.name, rows, best_stages([row["quality"] for row in rows], n))
        figure = shown.write(folder / chosen.name, stages, made)
        for_machines.append({"pair": pair.name, "teacher": got.fingerprint, "figure": str(figure)})
        for_machines[-1]["stages"] = stages.drop(columns="pair").to_dict("records")
        if not as_json:
            console.print(shown.rich(stages))
            console.print(f"figure {_short(figure)}\n", highlight=False, soft_wrap=True)
    if as_json:
        print(json.dumps(for_machines, indent=1))


@app.command()
def check(
    suite: SuiteName = "digits",
    plugin: Plugins = None,
    methods: Methods = None,
    seeds: Seeds = None,
    sets: Sets = None,
    device: Device = "auto",
) -> None:
    """Read a suite and its data, and say what would run. Trains nothing."""
    from bench import data as datasets
    from bench import environment
    from bench.run import check as fits
    from bench.run import resolved

    on = environment.device(device)
    chosen = resolved(_suite(suite, methods, seeds, sets), on)
    data = datasets.load(chosen.data, on)
    for pair in chosen.pairs:
        fits(chosen, pair, data)
    n = len(chosen.pairs) * len(chosen.methods) * len(chosen.seeds)
    console.print(
        f"suite {chosen.name} is right: {n} runs in {len(chosen.pairs) * len(chosen.seeds)} cohorts on {on}",
        highlight=False,
    )
    console.print(f"data: {data.describe()}", highlight=False)
    for pair in chosen.pairs:
        console.print(f"pair: {pair.name}", highlight=False, markup=False)
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


@app.command()
def time(
    suite: SuiteName = "cifar100-mini",
    methods: Annotated[
        str | None,
        typer.Option(help="Students of the cohort, comma-separated (kd,kd,kd,kd); 'all' times every loss; --tune: kd"),
    ] = None,
    plugin: Plugins = None,
    tune: Annotated[bool, typer.Option("--tune", help="What lockstep gains a study of one method.")] = False,
    batch: Annotated[int | None, typer.Option(help="With --tune: trials in lockstep. [default: 8]")] = None,
    rounds: Annotated[int, typer.Option(min=3, help="Rounds; medians are printed.")] = 7,
    sets: Sets = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Measure the harness against a bare loop, a cohort against its parts, and what tracking costs.

    With `--methods all`: what every method's loss costs without the networks, over the student's own step.
    With `--tune`: one trial's share of a training step, trained alone and in lockstep with the others of its batch.
    """
    from bench import environment, timing

    if batch is not None and not tune:
        raise UserError("--batch is of --tune; type --tune --batch 8, or leave it out")
    on = environment.device(device)
    if methods == "all" and not tune:
        _show_losses(_suite(suite, None, None, sets), rounds, on, as_json)
        return
    if tune:
        from bench.timing_tune import measure_trials

        chosen = _suite(suite, "kd" if methods is None else methods, None, sets)
        figures = measure_trials(chosen, 8 if batch is None else batch, rounds, on, console)
    else:
        names = ("kd,kd,kd,kd" if methods is None else methods).split(",")
        figures = timing.measure(_suite(suite, None, None, sets), names, rounds, on, console)
    if as_json:
        print(json.dumps(figures, indent=1))
        return
    table = Table("figure", "value", box=None, header_style="bold")
    for name, value in figures.items():
        table.add_row(name, f"{value:.3f}" if isinstance(value, float) else str(value))
    console.print(table)


def _show_losses(suite: Suite, rounds: int, on: Any, as_json: bool) -> None:
    import methods
    from bench.timing_losses import measure_losses

    rows = measure_losses(suite, methods.names(), rounds, on, console)
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    table = Table("method", "views", "loss (ms)", "over the student's step", "", box=None, header_style="bold")
    for row in sorted(rows, key=lambda row: row.get("over_student_step", 0.0)):
        known = (f"{row['loss_ms']:.2f}", f"{row['over_student_step']:.2f}") if "loss_ms" in row else ("-", "-")
        table.add_row(row["method"], str(row["views"]), *known, row["note"])
    console.print(table)


@app.command()
def sync(results: Results = None, suite: Annotated[str | None, typer.Option(help="Only this suite.")] = None) -> None:
    """Deliver to MLflow what it does not hold yet. Doing it twice changes nothing."""
    from bench.suite import results_folder
    from tracking import location, mirror

    folder = results_folder(results)
    delivered, already, failed = mirror.sync(folder, location.default_uri(folder), suite)
    console.print(f"{delivered} records delivered, {already} were there already, {len(failed)} failed", highlight=False)
    for record, reason in failed:
        console.print(f"  {record.folder.name}: {reason}", highlight=False, markup=False)
    if failed:
        raise SystemExit(1)


@app.command()
def export(
    fingerprint: Annotated[str, typer.Argument(help="A run's fingerprint, or its beginning.")],
    to: Annotated[Path, typer.Argument(help="File to write: .safetensors or .pth")],
    results: Results = None,
) -> None:
    """Take a distilled student home: its weights under the network's own names."""
    from bench import student

    arch = student.export(Path(results or os.environ.get("KDBENCH_RESULTS") or "results"), fingerprint, to)
    console.print(f"{to}: {arch}; load it with bench.student.load('{to}')", highlight=False)


@app.command()
def ui(
    results: Results = None,
    suite: Annotated[str | None, typer.Option(help="Only this suite.")] = None,
    port: Annotated[int, typer.Option(min=1, max=65535)] = 5000,
    no_open: Annotated[bool, typer.Option("--no-open", help="Print the links and open no browser.")] = False,
) -> None:
    """Open MLflow's side-by-side comparison on 127.0.0.1."""
    from contextlib import suppress

    from tracking import location, store
    from tracking import ui as uis

    folder = Path(results or os.environ.get("KDBENCH_RESULTS") or "results").absolute()
    found = store.existing(location.default_uri(folder), folder)
    if found.uri.startswith(location.SERVERS):  # it has a UI of its own
        _show_links(uis.links(found, found.uri, suite), no_open)
        return
    uis.free_port(port)
    base, _ = f"http://127.0.0.1:{port}", found.client  # which makes an older file ready before the server opens it
    with suppress(KeyboardInterrupt), uis.serving(found.uri, port, folder) as server:
        links = uis.links(found, base, suite)
        uis.wait_for(port, server)
        _show_links(links, no_open)
        console.print("[dim]Ctrl-C ends the server[/dim]")
        sys.stdout.flush()
        server.process.wait()


def _show_links(links: list[Any], no_open: bool) -> None:
    """links: `tracking.ui.links`."""
    from tracking import ui as uis
    from tracking.views import PAGE

    for row in links:
        name = f"{row.suite}, {row.pair}" if row.pair else row.suite
        console.print(
            f"[bold]{name}[/bold]" + (f": {row.runs} runs of {len(row.methods)} methods" if row.runs else ""),
            highlight=False,
            soft_wrap=True,
        )
        shown = {"charts, means over seeds": row.charts, "best run of each method": row.compare}
        for what, link in (shown | {"report": row.report, "tuning": row.tuning}).items():
            if link:
                console.print(f"  {what:<24}  {link}", highlight=False, markup=False, soft_wrap=True)
        if row.runs > PAGE:
            console.print(f"  [yellow]MLflow loads {PAGE} runs: press 'Load more' for means over all seeds[/yellow]")
    if not no_open:
        uis.show(links[0].charts)


def _suite(name: str, methods: str | None, seeds: str | None, sets: list[str] | None) -> Suite:
    from bench import suite as suites

    wanted = [part.strip() for part in methods.split(",") if part.strip()] if methods is not None else None
    if wanted == []:
        raise UserError("--methods names no method; type e.g. --methods kd,dkd")
    return suites.load(name, methods=wanted, seeds=seeds, sets=sets)


@contextmanager
def _mirror(folder: Path, suite: str) -> Iterator[Mirror]:
    """What follows the runs into MLflow, beside the training; at the end also what a killed call left undelivered."""
    from tracking import location
    from tracking.mirror import Mirror, undelivered
    from tracking.store import Store

    uri = location.check(location.default_uri(folder))
    with Mirror(lambda: Store(uri, folder)) as mirror:
        yield mirror
        for record in undelivered(folder, suite, uri):
            mirror.finish(record)


def _undelivered(mirror: Mirror) -> None:
    if pending := mirror.pending():
        console.print(
            f"[yellow]{len(pending)} records are not in MLflow yet[/yellow] ({pending[0][1]}); deliver: kdbench sync",
            highlight=False,
        )
    else:
        console.print("MLflow holds every run; see them side by side with: make ui   (kdbench ui)", highlight=False)


def _show(done: Any) -> None:
    console.print()
    for table in done.tables:
        console.print(table)
    console.print(done.answer, highlight=False, markup=False, style="bold")
    console.print(
        f"\nreport {_short(done.report)}\nfigure {_short(done.figure)}\ntable  {_short(done.csv)}",
        highlight=False,
        soft_wrap=True,
    )


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def main() -> NoReturn:
    """Run the command line: what a person can mend is one line and exit code 2."""
    try:
        code = app(standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        _stop("stopped; the same command goes on where it was", 130)
    except BrokenPipeError:
        os._exit(1)
    except Exception as error:
        if isinstance(error, ClickException):
            _stop(error.format_message() + "; see --help", 2)  # type: ignore[attr-defined]
        if not _of_user(error):
            raise
        _stop(str(error), 2)
    raise SystemExit(code if isinstance(code, int) else 0)


def _of_user(error: Exception) -> bool:
    """Is it an error that a person can mend, by whichever room raised it?"""
    homes = {
        "bench.errors": "UserError",
        "methods.base": "Refusal",
        "tracking.record": "RecordError",
        "tracking.location": "TrackingError",
    }
    return any(isinstance(error, getattr(sys.modules[m], name)) for m, name in homes.items() if m in sys.modules)


def _stop(text: str, code: int) -> NoReturn:
    print(f"kdbench: {' '.join(text.split())}", file=sys.stderr)
    raise SystemExit(code)
