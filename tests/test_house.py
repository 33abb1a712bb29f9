"""Rules of the house: which room may know which, one list of dependencies, no hidden randomness."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
ROOMS = ("bench", "methods", "tracking")
SOURCES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
RANK = {  # arrows run from a higher rank to a lower or the same one
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


def imports(path: Path, *, top_level: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level else ast.walk(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def rank(name: str) -> int:
    return max((r for m, r in RANK.items() if name == m or name.startswith(f"{m}.")), default=0)


def test_there_is_code_to_look_at() -> None:
    assert len(SOURCES) > 30


@pytest.mark.parametrize("path", SOURCES, ids=module)
def test_imports_run_one_way(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    found = imports(path)
    if room == "methods":
        assert not [n for n in found if n.split(".")[0] in ("bench", "tracking", "mlflow", "optuna")]
    if room == "tracking":
        assert not [n for n in found if n.split(".")[0] in ("bench", "methods", "torch")]
    if module(path).startswith("bench.report"):
        assert not [n for n in found if n.split(".")[0] in ("torch", "methods")]
    own = rank(module(path))
    assert not [n for n in imports(path, top_level=True) if n.startswith("bench.") and rank(n) > own]


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
