"""What every command shares: the application, its options, and what they stand for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core
from rich.console import Console

from bench.errors import UserError
from bench.jobs.stop import Interrupted

if TYPE_CHECKING:
    from bench.suite.suite import Suite
    from tracking.mirror import Mirror

FIRST = ("run", "tune", "report", "compare", "ui")


class CommandsByUse(typer.core.TyperGroup):
    """`--help` lists first what is used most."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*FIRST, *(name for name in super().list_commands(ctx) if name not in FIRST)]


app = typer.Typer(
    cls=CommandsByUse,
    help="A fair, paired, tracked benchmark of knowledge-distillation methods.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console()


def _register_plugins(files: list[str] | None) -> list[str] | None:
    """Methods and networks from elsewhere join the registries before the suite that names them is read."""
    if files:
        import methods
        from bench import models

        for file in files:
            if not models.register_plugin(file):
                methods.register_plugin(file)
    return files


SuiteName = Annotated[
    str, typer.Argument(metavar="SUITE", help="A suite's name (`kdbench list suites`) or the path of a YAML file.")
]
Methods = Annotated[str | None, typer.Option(help="Only these methods, comma-separated: kd,dkd")]
Seeds = Annotated[str | None, typer.Option(help="How many seeds ('5'), or which ('0,1,7').")]
Sets = Annotated[list[str] | None, typer.Option("--set", help="Change a key of the suite: --set protocol.epochs=10")]
Results = Annotated[str | None, typer.Option(help="Folder of the results; $KDBENCH_RESULTS or results by default.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:<number>")]
Plugins = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin", help="A Python file that holds a method or networks, for this call.", callback=_register_plugins
    ),
]
Executor = Annotated[str, typer.Option(help="local: in this process; ray: on the machines of a Ray cluster.")]
Address = Annotated[str | None, typer.Option(help="Of the Ray cluster; without it one is started here for this call.")]
Gpus = Annotated[
    float | None, typer.Option("--gpus-per-cohort", help="With Ray: 0.5 trains two cohorts on one GPU; 0: on CPUs.")
]
SkipUnfit = Annotated[
    bool, typer.Option("--skip-unfit", help="Leave out the methods that do not take a pair, instead of ending by them.")
]
CohortSize = Annotated[
    int,
    typer.Option(
        "--cohort-size", min=0, help="Students on the device at a time, 0: all; halved by itself where memory runs out."
    ),
]
Workers = Annotated[
    str,
    typer.Option(
        envvar="KDBENCH_WORKERS",
        help="Processes that train cohorts or studies side by side: a number; auto: by cores and memory.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="For machines.")]


def suite_of(
    name: str, methods: str | None, seeds: str | None, sets: list[str] | None, skip_unfit: bool = False
) -> Suite:
    from bench.suite import suite as suites

    suite = suites.load(name, methods=names_of_methods(methods) or None, seeds=seeds, sets=sets)
    if skip_unfit:
        return suite.model_copy(update={"methods": [m.model_copy(update={"if_fit": True}) for m in suite.methods]})
    return suite


def names_of_methods(methods: str | None) -> list[str]:
    """What --methods names; nothing where it was not typed. Raises `UserError` where it is empty."""
    names = [part.strip() for part in methods.split(",") if part.strip()] if methods is not None else []
    if methods is not None and not names:
        raise UserError("--methods names no method; type e.g. --methods kd,dkd")
    return names


@contextmanager
def mirror_to_mlflow(folder: Path, suite: str) -> Iterator[Mirror]:
    """What follows the runs into MLflow, beside the training; at the end also what a killed call left undelivered."""
    from tracking import location
    from tracking.mirror import Mirror, undelivered
    from tracking.store import Store

    uri = location.check_uri(location.default_uri(folder))
    with Mirror(lambda: Store(uri, folder)) as mirror:
        try:
            yield mirror
        except (KeyboardInterrupt, Interrupted):
            mirror.close(timeout=2.0)  # what asked to stop does not wait; the next call delivers the rest
            raise
        for record in undelivered(folder, suite, uri):
            mirror.finish(record)


@contextmanager
def open_executor(
    executor: str, address: str | None, gpus: float | None, suite: Suite, folder: Path, progress: Any, mirror: Mirror
) -> Iterator[Any]:
    """What brings the work to Ray's machines, for `--executor ray`; None: it is done in this process."""
    from bench.errors import unknown

    if executor == "local":
        if address or gpus is not None:
            raise UserError("--address and --gpus-per-cohort are Ray's; add --executor ray")
        yield None
        return
    if executor != "ray":
        raise unknown("executor", executor, ("local", "ray"))
    try:
        from bench.jobs import ray
    except ImportError as error:
        if error.name != "ray":
            raise
        raise UserError("--executor ray takes a package more: pip install 'kdbench[scale]'") from None
    with ray.connect(address, gpus, suite, folder, progress, mirror) as executor_object:
        yield executor_object


def print_delivery(mirror: Mirror) -> None:
    if pending := mirror.pending():
        console.print(
            f"[yellow]{len(pending)} records are not in MLflow yet[/yellow] ({pending[0][1]}); deliver: kdbench sync",
            highlight=False,
        )
    else:
        console.print("MLflow holds every run; see them side by side with: make ui   (kdbench ui)", highlight=False)


def duration(seconds: float) -> str:
    """'0.4 s', '3 min 20 s', '5 h 07 min'."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60:02} min"


def relative_path(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def results_path(results: str | None) -> Path:
    """The results folder that is read from; it need not be there."""
    return Path(results or os.environ.get("KDBENCH_RESULTS") or "results").absolute()


def print_report(report: Any) -> None:
    console.print()
    for table in report.tables:
        console.print(table)
    console.print(report.answer, highlight=False, markup=False, style="bold")
    console.print(
        f"\nreport {relative_path(report.html)}\nfigure {relative_path(report.figure)}\n"
        f"table  {relative_path(report.csv)}",
        highlight=False,
        soft_wrap=True,
    )
