from __future__ import annotations

from typing import TYPE_CHECKING, Any

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


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
def test_a_report_fits_its_screen_and_its_figures_its_scheme(
    browser: Any, reported: str, width: int, scheme: str
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.goto(reported)
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"report-{width}-{scheme}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing is wider than the screen"
    assert page.locator("figure svg").count() >= 3 and page.locator("figure img").count() == 0
    colour = "text => getComputedStyle(text).fill.match(/[0-9.]+/g).slice(0, 3).reduce((sum, c) => sum + Number(c), 0)"
    axis = page.locator("figure.main svg text").last.evaluate(colour)
    assert axis > 400 if scheme == "dark" else axis < 300, "text is light on dark, dark on light"
    table, figure = page.locator("table").first.bounding_box(), page.locator("figure.main").bounding_box()
    assert (table["y"] < figure["y"] + figure["height"]) == (width == 1400), "beside each other where there is room"
    shown = page.locator("table").first.locator("thead th:visible")
    before = shown.count()
    page.get_by_label("all columns").first.check()
    assert shown.count() > before
    context.close()
