"""The README shows what the committed results say."""

from __future__ import annotations

import pytest

from bench.report.readme import BEGIN, END, RESULTS, ROOT, block, replaced


def test_the_readme_is_current() -> None:
    readme = (ROOT / "README.md").read_text()
    assert replaced(readme, block(ROOT / RESULTS)) == readme, "the README is stale: make readme"


def test_only_what_stands_between_the_markers_is_replaced() -> None:
    assert replaced(f"a\n{BEGIN}old\n{END}b\n", "new\n") == f"a\n{BEGIN}new\n{END}b\n"
    for damaged in ("a\n", f"{BEGIN}a\n", f"{BEGIN}{BEGIN}{END}"):
        with pytest.raises(ValueError, match="once each"):
            replaced(damaged, "new\n")
