"""Commands that README.md and docs/ show are commands that work."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import typer

from bench.cli.common import app

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
BLOCK = re.compile(r"(?:<!-- not run: (?P<why>[^\n]+?) -->\n)?^ *```(?:console|bash)\n(?P<text>.*?)^ *```", re.M | re.S)
INLINE = re.compile(r"`(kdbench|make) ([a-z][a-z-]*)(?=[ `])")


class Block(NamedTuple):
    name: str  # page and place
    why: str  # it is not run; empty: it is
    script: str


def blocks() -> list[Block]:
    found = []
    for page in PAGES:
        for number, match in enumerate(BLOCK.finditer(page.read_text("utf-8")), 1):
            lines = [line.strip().removeprefix("$ ") for line in match["text"].splitlines()]
            found.append(Block(f"{page.name}-{number}", match["why"] or "", "\n".join(lines)))
    return found


RUN = [block for block in blocks() if not block.why]


@pytest.mark.slow
@pytest.mark.parametrize("block", RUN, ids=[block.name for block in RUN])
def test_commands_of_a_page_work(block: Block, tmp_path: Path) -> None:
    shim = tmp_path / "bin" / "kdbench"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m bench "$@"\n')
    shim.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    scratch = {"PATH": f"{shim.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    scratch["KDBENCH_RESULTS"] = str(tmp_path / "results")
    command = ["bash", "-euo", "pipefail", "-c", block.script]
    done = subprocess.run(command, env=kept | scratch, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


def test_some_commands_run_and_those_that_do_not_say_why() -> None:
    assert any("kdbench run" in block.script for block in RUN)
    assert all(len(block.why) > 10 for block in blocks() if block.why)


def test_commands_and_targets_that_are_named_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    known = {"kdbench": set(typer.main.get_command(app).commands), "make": targets}  # type: ignore[attr-defined]
    named = [found for page in PAGES for found in INLINE.findall(page.read_text("utf-8"))]
    assert len(named) > 20
    assert [f"{program} {word}" for program, word in named if word not in known[program]] == []


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
        assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == [], page.name
