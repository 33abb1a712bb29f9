"""Rules of the house: which room may know which, one list of dependencies, no hidden randomness."""

from __future__ import annotations

import ast
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
RANK = {  # imports run from a higher rank to a lower or the same one, and nowhere in a circle
    "bench.cli": 7,
    "bench.__main__": 8,
    "bench.run": 5,
    "bench.timing": 5,
    "bench.timing_losses": 6,
    "bench.timing_tune": 6,
    "bench.timing_safety": 6,
    "bench.tune": 5,
    "bench.tuned": 4,
    "bench.rerun": 6,
    "bench.report": 5,
    "bench.catalogue": 5,
    "bench.document": 5,
    "bench.teacher": 4,
    "bench.cohort": 4,
    "bench.layers": 4,
    "bench.claims": 3,
    "bench.stop": 3,
    "bench.work": 4,
    "bench.executors": 4,
    "bench.keep": 4,
    "bench.progress": 4,
    "bench.member": 3,
    "bench.student": 3,
    "bench.evaluate": 3,
    "bench.data": 2,
    "bench.models": 2,
    "bench.suite": 3,
    "bench.environment": 2,
}


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


def rank(name: str) -> int:
    return max((r for m, r in RANK.items() if name == m or name.startswith(f"{m}.")), default=0)


def test_there_is_code_to_look_at() -> None:
    assert len(SOURCES) > 30


@pytest.mark.parametrize("path", SOURCES, ids=module)
def test_imports_run_one_way(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    found = imports(ast.parse(path.read_text()))
    if room == "methods":
        assert not [n for n in found if n.split(".")[0] in ("bench", "tracking", "mlflow", "optuna")]
    if room == "tracking":
        assert not [n for n in found if n.split(".")[0] in ("bench", "methods", "torch")]
    if module(path).startswith("bench.report"):
        assert not [n for n in found if n.split(".")[0] in ("torch", "methods")]
    own = rank(module(path))
    assert not [n for n in found if n.startswith("bench.") and rank(n) > own]


def test_no_import_runs_in_a_circle() -> None:
    graph = {
        name: imports(ast.parse(path.read_text()), typing=False) & MODULES.keys() for name, path in MODULES.items()
    }
    assert graph["bench.cli.training"] >= {"bench.run", "bench.report"}, "functions are looked into"
    assert circle(graph) == []


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
    """No draw from a global generator, except a module's own initial weights (drawn inside `drawing_from`)."""
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
