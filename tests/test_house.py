"""Rules of the house: which room may know which, one list of dependencies, no hidden randomness."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Collection, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
ROOMS = ("bench", "methods", "tracking")
SOURCES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
ORDER = (  # what stands later may import what stands earlier, and never the other way round
    *("methods", "tracking", "bench", "bench.errors", "bench.seeds", "bench.memory", "bench.environment"),
    *("bench.data", "bench.models", "bench.suite", "bench.training", "bench.catalogue", "bench.jobs", "bench.timing"),
    *("bench.report", "bench.tune", "bench.document", "bench.cli", "bench.__main__"),
)
"""The rooms, from the ground up: folders of `bench`, and its files that belong to no folder."""


ALONE = ("errors", "seeds", "memory", "environment", "catalogue", "document")
"""Files of `bench` that belong to no folder; the page on the architecture names them in a sentence."""


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module(path): path for path in SOURCES}


def imports(code: ast.AST, *, typing: bool = True) -> set[str]:
    """Modules that this code imports, also in functions; `typing`: those for a type checker alone, too."""
    found = set()
    for node in ast.iter_child_nodes(code):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, "imports are written in full"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in MODULES else node.module for name in names}
        elif typing or not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            found |= imports(node, typing=typing)
    return found


def circle(graph: Mapping[str, Collection[str]]) -> list[str]:
    """Modules each of which imports the one before, from one back to the same; empty where there is no circle."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def room(name: str) -> str:
    """The room of a module: 'bench.jobs' of 'bench.jobs.run', 'methods' of 'methods.kd'."""
    parts = name.split(".")
    return ".".join(parts[: 1 + (parts[0] == "bench")])


def graph() -> dict[str, set[str]]:
    """The modules of the project that each of them imports; what is imported for a type checker alone is left out."""
    read = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}
    return {name: imports(code, typing=False) & MODULES.keys() for name, code in read.items()}


def rooms() -> dict[str, set[str]]:
    """The other rooms that each room imports from."""
    out: dict[str, set[str]] = {name: set() for name in ORDER}
    for name, found in graph().items():
        out[room(name)] |= {room(other) for other in found} - {room(name)}
    return out


def direct(arrows: Mapping[str, Collection[str]]) -> dict[str, set[str]]:
    """The arrows of a graph without circles that do not follow from others."""

    def reached(name: str) -> set[str]:
        return {far for near in arrows[name] for far in {near, *reached(near)}}

    return {name: {to for to in of if not any(to in reached(via) for via in of)} for name, of in arrows.items()}


def test_there_is_code_to_look_at() -> None:
    assert len(SOURCES) > 30


@pytest.mark.parametrize("path", SOURCES, ids=module)
def test_imports_run_one_way(path: Path) -> None:
    name = module(path)
    found = imports(ast.parse(path.read_text()), typing=False)
    own = ORDER.index(room(name))
    assert not [n for n in found & MODULES.keys() if ORDER.index(room(n)) > own]
    if room(name) == "methods":
        assert not [n for n in found if n.split(".")[0] in ("bench", "tracking", "mlflow", "optuna")]
    if room(name) == "tracking":
        assert not [n for n in found if n.split(".")[0] in ("bench", "methods", "torch")]
    if room(name) == "bench.report":
        assert not [n for n in found if n.split(".")[0] in ("torch", "methods")]
    if room(name) == "bench.training":  # it knows no disk: a run is kept by the room of jobs
        assert not found & {"pathlib", "shutil", "tempfile", "safetensors"}
        assert not [n for n in found if n.startswith("tracking") and n != "tracking.location"]  # secrets are masked


def test_no_import_runs_in_a_circle() -> None:
    found = graph()
    assert found["bench.cli.training"] >= {"bench.jobs.run", "bench.report"}, "functions are looked into"
    assert circle(found) == [] and circle(rooms()) == []


def test_the_page_on_the_architecture_draws_what_is() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    drawn = re.findall(r"^  (\w+) --> (\w+)$", page, re.M)
    found = {name.removeprefix("bench."): {to.removeprefix("bench.") for to in of} for name, of in rooms().items()}
    shown = {name for arrow in drawn for name in arrow}
    kept = {name: {to for to in of if to in shown} for name, of in found.items() if name in shown}
    assert {(name, to) for name, of in direct(kept).items() for to in of} == {*drawn} and len(drawn) == len({*drawn})
    assert {name.removeprefix("bench.") for name in ORDER} - shown == {"bench", "__main__", *ALONE}
    for path in re.findall(r"`((?:bench|methods|tracking|docs|tests|results)/[\w./-]+)`", page):
        assert (ROOT / path).exists(), path


def test_a_circle_is_found_wherever_its_imports_stand() -> None:
    lazy = "def read():\n    if True:\n        from bench.report import build"
    graph = {"bench.report.build": {"bench.report.tuning"}, "bench.report.tuning": imports(ast.parse(lazy))}
    assert graph["bench.report.tuning"] == {"bench.report.build"}
    assert set(circle(graph)) == graph.keys()
    typed = ast.parse(f"import json\nif TYPE_CHECKING:\n    {lazy.splitlines()[-1]}")
    assert imports(typed, typing=False) == {"json"} and imports(typed) == {"json", "bench.report.build"}
    assert circle(graph | {"bench.report.tuning": set()}) == []


@pytest.mark.parametrize("path", SOURCES, ids=module)
def test_randomness_is_always_named(path: Path) -> None:
    """No draw from a global generator, except a module's own initial weights (drawn inside `fork_rng`)."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            name = ast.unparse(node.func)
            if name in ("torch.rand", "torch.randn", "torch.randint", "torch.randperm", "torch.multinomial"):
                assert any(k.arg == "generator" for k in node.keywords), (
                    f"{path.name}:{node.lineno}: {name} without generator"
                )
            assert not name.startswith(("np.random.rand", "numpy.random.rand", "random.random")), (
                f"{path.name}:{node.lineno}"
            )


def test_environment_yml_lists_what_pyproject_lists() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"][-1]["pip"]
    assert sorted(project) == sorted(d for d in conda if not d.startswith("-e"))


@pytest.mark.parametrize("module", ["bench.cli", "bench.report", "tracking.record"])
def test_light_doors_do_not_load_torch(module: str) -> None:
    code = f"import sys, {module}; print(int('torch' in sys.modules), int('mlflow' in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["0", "0"]
