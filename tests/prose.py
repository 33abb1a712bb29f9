"""Sentences that users read: their wording is held in one file, their numbers and verdicts in tests.

`prose(text)` compares with the text that the file holds for this place of the test; with `pytest --write-prose` the
file takes what is said now. An entry goes by its test's name, and is a list in the order in which the test asks.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Generator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
FILE = ROOT / "tests/golden/prose.yaml"
COLLECTED: pytest.StashKey[Collection[str]] = pytest.StashKey()
NUMBER = re.compile(r"(?<![\w.])(?<!\w-)[+−-]?\d[\d,]*(?:\.\d+)?(?!\w)")


def numbers(text: str) -> list[float]:
    """The numbers that stand in a text by themselves, in order: '+1,250' and '−0.3', not those of resnet8 and top-1."""
    return [float(found.replace(",", "").replace("−", "-")) for found in NUMBER.findall(text)]


@dataclass
class Prose:
    """The wording of one test, text by text."""

    test: str  # its name, as pytest takes it
    held: list[str]  # on file; empty where there is no entry
    writing: bool
    temporary: Path  # where this call's folders lie; each is written as <folder>
    said: list[str] = field(default_factory=list)

    def __call__(self, text: str) -> None:
        __tracebackhide__ = True
        text = re.sub(rf"{re.escape(str(self.temporary))}/[\w-]+", "<folder>", text)
        self.said.append(text)
        held = "".join(self.held[len(self.said) - 1 : len(self.said)])
        if not self.writing and text != held:
            told = "\n".join(difflib.ndiff(held.splitlines(), text.splitlines()))
            pytest.fail(f"not what {FILE.name} holds; if it reads well, type {self.mend}\n{told}")

    @property
    def mend(self) -> str:
        return f"pytest --write-prose '{self.test}'"

    def close(self) -> None:
        """Write the entry of a test that has passed, or fail where it holds more than was said."""
        if self.writing:
            write(read() | {self.test: self.said})
        elif len(self.said) < len(self.held):
            pytest.fail(f"{FILE.name} holds more than this test says; type {self.mend}", pytrace=False)


def left_over(entries: Collection[str], collected: Collection[str]) -> list[str]:
    """Entries whose test is no more: its file is gone, or has been collected without it."""
    files = {test.partition("::")[0] for test in collected}
    where = {entry: entry.partition("::")[0] for entry in entries if entry not in collected}
    return [entry for entry, file in where.items() if file in files or not (ROOT / file).exists()]


@cache
def read() -> dict[str, list[str]]:
    return dict(yaml.safe_load(FILE.read_text(encoding="utf-8")) or {})


def write(entries: Mapping[str, list[str]]) -> None:
    """Replace the file, sorted by test, texts of several lines as they are."""
    told = {test: texts for test, texts in entries.items() if texts}
    FILE.write_text(yaml.dump(told, Dumper=Lines, allow_unicode=True, width=118), encoding="utf-8")
    read.cache_clear()


class Lines(yaml.SafeDumper):
    """YAML whose texts of several lines stand line by line."""


def _text(dumper: Lines, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


Lines.add_representer(str, _text)


@pytest.fixture
def prose(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Prose:
    """Call it with each text whose wording the file holds."""
    test = request.node.nodeid
    return Prose(test, read().get(test, []), request.config.getoption("write_prose"), tmp_path_factory.getbasetemp())


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-prose", action="store_true", help=f"write what is said now into {FILE.name}")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Before -m and -k leave any out. Of a file that is named with one of its tests, the others are not collected."""
    whole = not any("::" in arg for arg in config.args)
    config.stash[COLLECTED] = {item.nodeid for item in items} if whole else set()
    if config.getoption("write_prose"):
        gone = left_over(read(), config.stash[COLLECTED])
        write({test: texts for test, texts in read().items() if test not in gone})


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    passed = yield
    if isinstance(told := pyfuncitem.funcargs.get("prose"), Prose):
        told.close()
    return passed
