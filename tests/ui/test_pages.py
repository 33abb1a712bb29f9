from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.ui.conftest import METHODS, PAIRS, SEEDS, SHOTS

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.ui

BARS = ".js-plotly-plot .barlayer"


def shoot(page: Page, name: str) -> None:
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png")


def on_screen(page: Page, text: str) -> bool:
    """Whether a person sees the text without scrolling."""
    size = page.viewport_size
    assert size is not None
    boxes = [place.bounding_box() for place in page.get_by_text(text, exact=True).all() if place.is_visible()]
    return any(box is not None and box["y"] >= 0 and box["y"] + box["height"] <= size["height"] for box in boxes)


@pytest.mark.parametrize("name", ["tiny", *(f"pairs, {pair}" for pair in PAIRS)])
def test_charts_show_every_method(page: Page, links: dict[str, str], name: str) -> None:
    page.goto(links[f"{name} charts"])
    page.wait_for_function(f"document.querySelectorAll('{BARS}').length >= 4")
    page.wait_for_timeout(2000)
    shoot(page, name.replace(", ", "-").replace(">", ""))
    assert page.get_by_text(f"{len(METHODS) * SEEDS} matching runs").is_visible()
    for method in METHODS:
        assert on_screen(page, f"Group: {method}"), method
    bars = page.locator(BARS).first
    assert bars.locator(".point").count() == len(METHODS)
    legend = page.locator(".js-plotly-plot").first.locator("xpath=ancestor::*[contains(., 'vanilla')][1]").inner_text()
    assert set(METHODS) <= set(legend.split("\n"))
    means = {f"{60 + i + (SEEDS - 1) / 2:.2f}" for i in range(len(METHODS))}
    assert set(bars.locator("text").all_text_contents()) == means, "bars are means over seeds"


@pytest.mark.parametrize("name", ["tiny", f"pairs, {PAIRS[1]}"])
def test_compare_page_has_one_seed_of_every_method(page: Page, links: dict[str, str], name: str) -> None:
    page.goto(links[f"{name} one"])
    page.get_by_text(f"Comparing {len(METHODS)} Runs from 1 Experiment").wait_for()
    page.locator(".parcoords").first.wait_for()
    page.wait_for_timeout(1000)
    shoot(page, "compare-" + name.replace(", ", "-").replace(">", ""))
    text = page.inner_text("body")
    shown = {seed for seed in range(SEEDS) if any(f"{method}/s{seed}" in text for method in METHODS)}
    assert len(shown) == 1 and all(f"{method}/s{seed}" in text for seed in shown for method in METHODS)
    assert "Show diff only" in text


def test_report_is_an_artifact_of_its_run(page: Page, links: dict[str, str]) -> None:
    page.goto(links["tiny report"])
    page.get_by_text("kd beats vanilla.").first.wait_for()
    shoot(page, "report")
    assert page.get_by_text("runs.csv").first.is_visible()
