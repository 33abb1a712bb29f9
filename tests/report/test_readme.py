"""The README shows what the committed results say."""

from __future__ import annotations

import re

import pytest

from bench.report.readme import BEGIN, END, REFERENCE, RESULTS, ROOT, block, index, replaced


def test_the_readme_is_current() -> None:
    readme = (ROOT / "README.md").read_text()
    assert replaced(readme, block(ROOT / RESULTS)) == readme, "the README is stale: make readme"


def test_the_index_of_reference_results_is_current() -> None:
    page = index(ROOT / REFERENCE)
    assert (ROOT / REFERENCE / "README.md").read_text() == page, "the index is stale: make readme"
    links = re.findall(r"\]\(([^)]+)\)", page)
    assert links and all((ROOT / REFERENCE / link).is_file() for link in links)


def test_only_what_stands_between_the_markers_is_replaced() -> None:
    assert replaced(f"a\n{BEGIN}old\n{END}b\n", "new\n") == f"a\n{BEGIN}new\n{END}b\n"
    for damaged in ("a\n", f"{BEGIN}a\n", f"{BEGIN}{BEGIN}{END}"):
        with pytest.raises(ValueError, match="once each"):
            replaced(damaged, "new\n")
