"""docs/methods.md says what the methods' files say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import methods
from bench import catalogue
from bench.document import PAGE, methods_page

PLUGIN = """
from methods.base import Method, Paper, Recipe

class Elsewhere(Method):
    paper = Paper("A", "B", "C", 2024, "")
    recipes = {"paper": Recipe({}, "none", "unknown")}
"""


@pytest.fixture(autouse=True)
def no_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(methods.PLUGINS, raising=False)


def test_the_page_is_current() -> None:
    current = PAGE.read_text(encoding="utf-8") == methods_page()  # no diff of a page: the message says what to do
    assert current, "docs/methods.md is not what the methods' files say; run: make docs"


def test_every_method_has_a_section() -> None:
    sections = [line.removeprefix("## ") for line in methods_page().splitlines() if line.startswith("## ")]
    assert sections == list(catalogue.built_in_methods())
    assert {name for name in methods.names() if methods.get(name).__module__ == f"methods.{name}"} == set(sections)


def test_a_plugin_is_in_the_catalogue_and_not_on_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, file = methods_page(), tmp_path / "elsewhere.py"
    file.write_text(PLUGIN)
    monkeypatch.setenv(methods.PLUGINS, str(file))
    assert "elsewhere" in [row["method"] for row in catalogue.methods()]
    assert methods_page() == before


def test_the_catalogue_is_plain_data() -> None:
    rows = catalogue.methods()
    assert json.loads(json.dumps(rows)) == rows
    assert [row["method"] for row in catalogue.methods_brief()] == [row["method"] for row in rows]


def test_parameters_are_those_of_the_networks() -> None:
    """Of SimKD: convolutions 256-128-128-256, each with BN; inference adds the teacher's 256x100 head."""
    rows = {row["method"]: row for row in catalogue.methods(["vanilla", "simkd"])}
    projector = 256 * 128 + 9 * 128 * 128 + 128 * 256 + 2 * (128 + 128 + 256)
    assert rows["simkd"]["extra_parameters"] == projector
    assert rows["simkd"]["inference_parameters"] == projector + 256 * 100 + 100
    assert rows["vanilla"]["extra_parameters"] == rows["vanilla"]["inference_parameters"] == 0
