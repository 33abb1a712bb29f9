"""Every link of a committed page leads to a file that is there."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "CONTRIBUTING.md", "docs/*.md", "results/reference/**/*.md"]
CODE, LINK = re.compile(r"```.*?```|`[^`\n]*`", re.S), re.compile(r"\]\(<?([^)>\s]+)>?\)")


def dead_links(page: Path) -> list[str]:
    """Relative links and pictures of a Markdown page that lead nowhere."""
    links = [link for link in LINK.findall(CODE.sub("", page.read_text())) if not re.match(r"[a-z]+:|#", link)]
    return [link for link in links if not (page.parent / unquote(link.partition("#")[0])).exists()]


@pytest.mark.parametrize("pattern", PAGES)
def test_no_link_of_a_committed_page_is_dead(pattern: str) -> None:
    pages = sorted(ROOT.glob(pattern))
    assert pages and {str(page.relative_to(ROOT)): dead for page in pages if (dead := dead_links(page))} == {}


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    (tmp_path / "a b.png").write_bytes(b"")
    page.write_text("[a](a%20b.png#top) ![b](none.png) [c](https://x.org/none) [d](#here) `[e](code.md)` [f](<gone/x>)")
    assert dead_links(page) == ["none.png", "gone/x"]
