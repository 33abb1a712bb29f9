"""The README shows what the committed results say."""

from __future__ import annotations

import io
import re

import pandas as pd
import pytest

from bench.report import stats
from bench.report import text as t
from bench.report.layout import caption_of
from bench.report.readme import BEGIN, END, REFERENCE, RESULTS, ROOT, block, index, pictures, replaced


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


def test_the_pictures_of_tuned_suites_are_current() -> None:
    drawn = pictures(ROOT / REFERENCE)
    assert {path.parent.parent.name for path in drawn} == {"cifar100-mini-tuned", "digits-tuned"}
    for path, content in drawn.items():
        assert caption_of(path) == caption_of(io.BytesIO(content)), f"{path} is stale: make readme"


def test_the_words_below_the_first_picture_say_what_its_runs_say() -> None:
    runs = pd.read_csv(ROOT / REFERENCE / "cifar100-mini-tuned/runs.csv")
    top1, readme = runs.pivot(index="seed", columns="label", values=stats.TOP1), (ROOT / "README.md").read_text()
    for one, other in (("dkd", "kd"), ("dkd(tuned)", "kd(tuned)")):
        mean, _, half = list(stats.moments((top1[one] - top1[other]).to_numpy(float)).values())[1:]
        said = re.escape(f"{t.signed(mean, 1)} {t.interval(mean - half, mean + half, 1)}")
        assert re.search(said.replace("\\ \\[", r"\s+(points\s+)?\["), readme), said
