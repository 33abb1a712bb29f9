from __future__ import annotations

import base64
import io
import json
import math
import re
import tomllib
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from bench.report import columns, distance, figures, html, layout, markdown, overall, published, sections, svg, table
from bench.report.answer import answer
from bench.report.blocks import Column, Figure, Grid, Section, Text
from bench.report.source import Source
from tests.prose import Prose, numbers
from tests.report.made_up import GAINS, frame, run
from tests.report.test_published import DATA, cifar, crd

ROOT = Path(__file__).parents[2]
VOID = {"meta", "link", "img", "br", "hr", "input", "wbr"}
SUITE: dict[str, Any] = {"name": "made", "about": "Made up", "protocol": {"epochs": 3, "lr_of": {}, "milestones": [2]}}
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
NASTY = "<b onmouseover=alert(1)>&\"'kd</b> `x` *y*"


class Page(HTMLParser):
    """Tags as they open and close, and the text of the cells of every table."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.words.append(data)
        if "td" in self.open or "th" in self.open:
            self.tables[-1][-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str, name: str) -> list[str]:
        return [str(attrs[name]) for found, attrs in self.tags if found == tag and name in attrs]


def made(runs: pd.DataFrame, suite: Mapping[str, Any] = SUITE, **more: Any) -> str:
    rows = more.pop("rows", None)
    rows = table.build(runs) if rows is None else rows
    pictures = more.pop("figures", {"difference": (PNG, "The main figure.")})
    recorded = {key: more.pop(key) for key in ("missing", "methods", "links") if key in more}
    source, views = Source(suite, DATA, runs, **recorded), more.pop("views", None)
    captions = {name: caption for name, (_, caption) in pictures.items() if name != "tuning"}
    page = sections.report(source, rows, answer(runs, str(rows["baseline"].iloc[0])), captions, **more)
    return html.page(page, {name: png for name, (png, _) in pictures.items()}, views)


def test_first_comes_the_answer_then_the_figure_then_the_table() -> None:
    runs = frame()
    text = made(runs)
    places = [text.index(part) for part in (answer(runs, "vanilla"), "<img", "The main figure.", "<table", "<h2")]
    assert places == sorted(places)
    page = Page(text)
    assert "5 seeds per row" in page.text and "commit 0123456789ab" in page.text and "big → small" in page.text


def test_a_sentence_opens_with_a_capital_and_a_name_stays_as_it_is() -> None:
    equal = frame({"vanilla": 0.0, "kd": 0.0}, seeds=2)
    assert answer(equal, "vanilla").startswith("the ") and '<p class="answer">The ' in made(equal)
    assert '<p class="answer">block_kd beats' in made(frame())


def test_the_table_is_the_frame() -> None:
    rows = table.build(frame())
    head, *lines = Page(made(frame())).tables[0]
    cells = columns.columns(rows)
    assert [" ".join(text.split()) for text in head] == [column.heading for column in cells.values()]
    shown = [[" ".join(text.split()) for text in line] for line in lines]
    assert shown[:-1] == [[cell.text for cell in row] for row in columns.grid(rows).rows]
    assert shown[-1] == ["teacher", "–", "93.4", *["–"] * (len(head) - 3)]
    bold = re.findall(r'<th scope="row"[^>]*><a [^>]*><strong>([^<]+)</strong>', made(frame()))
    assert bold == rows.loc[rows["best"], "label"].tolist()
    tied = re.findall(r'<th scope="row"[^>]* class="tied"><a [^>]*>([^<]+)<', made(frame()))
    assert tied == rows.loc[rows["with_best"] & ~rows["best"], "label"].tolist() != []


def test_cells_carry_what_they_are_sorted_by() -> None:
    rows = table.build(frame())
    text = made(frame())
    body = text[text.index("<tbody>") : text.index("</tbody>")]
    values = [re.findall(r'data-v="([^"]*)"', line) for line in body.split("<tr>")[1:]]
    *values, teacher = values
    assert [float(value) for value in teacher if value] == [93.4]
    place = list(columns.columns(rows)).index("difference")
    want = rows["difference"].where(rows["label"] != "vanilla", 0.0)
    assert [float(line[place]) for line in values] == want.tolist()
    assert [line[0] for line in values] == rows["label"].tolist()
    kd = rows["label"].tolist().index("kd")
    assert values[kd][place + 1] == ""  # no difference to itself: not known, sorted last


@pytest.mark.parametrize("case", ["plain", "full"])
def test_nothing_is_fetched(case: str) -> None:
    text = made(frame()) if case == "plain" else full()
    page = Page(text)
    for tag, attrs in page.tags:
        for name in ("src", "href", "srcset", "data", "poster", "action", "background"):
            if name in attrs and tag != "a":
                assert str(attrs[name]).startswith("data:"), (tag, attrs)
    assert {tag for tag, _ in page.tags}.isdisjoint({"iframe", "object", "embed", "base", "form"})
    style = "".join(re.findall(r"<style>(.*?)</style>", text, re.S))
    assert "url(" not in style and "@import" not in style and len(style) > 1000
    script = "".join(re.findall(r"<script>(.*?)</script>", text, re.S))
    assert not re.search(r"https?:|fetch|XMLHttp|import\b|Worker", script)
    assert any("default-src 'none'" in content for content in page.all("meta", "content"))
    assert "@media print" in style and "prefers-color-scheme: dark" in style
    assert 'name="viewport"' in text and '<html lang="en">' in text


def test_the_figure_is_inside_with_its_size() -> None:
    found = next(attrs for tag, attrs in Page(made(frame())).tags if tag == "img")
    assert base64.b64decode(str(found["src"]).removeprefix("data:image/png;base64,")) == PNG
    assert (
        found["alt"] == "Difference to vanilla. The main figure." and found["width"] == found["height"] == "0"
    )  # 1 px of 1/300 inch


def test_what_is_no_png_is_refused() -> None:
    with pytest.raises(ValueError, match="figure 'difference' is no PNG"):
        made(frame(), figures={"difference": (b"GIF89a" + b"0" * 40, "")})


def test_links_inside_the_page_lead_somewhere_and_ids_are_unique() -> None:
    page = Page(full())
    ids = [str(attrs["id"]) for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    inner = [link[1:] for link in page.all("a", "href") if link.startswith("#")]
    assert inner and set(inner) <= set(ids)
    labelled = {str(attrs["aria-labelledby"]) for _, attrs in page.tags if "aria-labelledby" in attrs}
    assert labelled <= set(ids)


def test_every_run_has_its_command_and_its_link() -> None:
    runs = frame(seeds=2)
    page = Page(made(runs, links={name: f"http://host/#/{name}" for name in runs["fingerprint"][1:]}))
    listed = page.tables[-1]
    assert listed[0] == ["method", "seed", "top-1 (%)", "status", "command", "MLflow"] and len(listed) == 13
    assert {line[4] for line in listed[1:]} == {f"kdbench rerun {name}" for name in runs["fingerprint"]}
    assert [line[-1] for line in listed[1:]].count("–") == 1
    assert {f"http://host/#/{name}" for name in runs["fingerprint"][1:]} <= set(page.all("a", "href"))
    assert "MLflow" not in Page(made(runs)).tables[-1][0] and "kdbench run made" in page.text


def test_of_many_rows_the_table_comes_first_in_both_kinds_of_page() -> None:
    for gains, first in ((GAINS, "image"), ({f"m{i}": float(i) for i in range(13)}, "table")):
        runs = frame({"vanilla": 0.0} | gains, seeds=2)
        page = sections.report(Source(SUITE, DATA, runs), table.build(runs), "Open.", {"difference": "Seen."})
        shown, text = html.page(page, {"difference": PNG}), markdown.page(page)
        assert (
            (shown.index("<figure") < shown.index("<table"))
            == (text.index("![") < text.index("\n| "))
            == (first == "image")
        )


def test_a_switch_shows_further_columns_and_p_values() -> None:
    shown = made(frame())
    hidden = set(re.findall(r'<th scope="col" class="[^"]*more">(.+?)(?: <small>|</th>)', shown))
    assert {"NLL", "ECE"} <= hidden and not {"method", "top-1", "step time"} & hidden
    cells = {key: Column(key, ["1"]) for key in ("row", "p_holm")}
    assert html.behind(Grid(cells)) == ["p_holm"] and html.behind(Grid({"row": cells["row"]})) == []


def test_long_lists_of_runs_are_folded() -> None:
    folded = "<summary>Every run</summary>"
    assert folded in made(frame(seeds=3)) and folded not in made(frame(seeds=2))


@pytest.mark.parametrize("where", ["label", "suite", "reason", "method", "caption", "section", "views"])
def test_no_text_can_add_a_tag(where: str) -> None:
    runs, more = frame(seeds=2), dict[str, Any]()
    if where == "label":
        runs = runs.replace({"label": {"dkd": NASTY}})
    elif where == "suite":
        more["suite"] = {**SUITE, "name": NASTY, "about": NASTY, "protocol": {NASTY: NASTY}}
    elif where == "reason":
        lost = pd.DataFrame([run("sld", 0, math.nan, status="failed", reason=NASTY)])
        runs = pd.concat([runs, lost], ignore_index=True)
    elif where == "method":
        about = dict.fromkeys(("title", "authors", "venue", "code"), NASTY)
        more["methods"] = {"kd": {**about, "deviations": [NASTY]}}
    elif where == "caption":
        more["figures"] = {NASTY: (PNG, NASTY)}
    elif where == "section":
        texts = [
            Text(f"{NASTY} [x](javascript:alert(1))", style, links)
            for style in ("", "strong")
            for links in (False, True)
        ]
        cells = {"a": Column(NASTY, [NASTY], links=[f'"{NASTY}']), "b": Column(NASTY, [NASTY], is_text=True)}
        more["tuning"] = [Section(NASTY, [*texts, Grid(cells, NASTY, folded=NASTY, style=NASTY)], NASTY, NASTY)]
    else:
        more["views"] = {NASTY: f'"{NASTY}'}
    text = made(runs, **more)
    page = Page(text)
    assert not [tag for tag, _ in page.tags if tag == "b" and "onmouseover" in str(_)]
    assert "<b onmouseover" not in text and 'href="javascript' not in text
    if where not in ("section", "views"):
        assert NASTY.replace("`", "") in page.text.replace("`", "")  # shown as it is, stars too


def test_methods_have_their_paper_settings_and_deviations() -> None:
    runs = frame({"vanilla": 0.0, "dkd": 1.0}, seeds=2)
    runs.loc[runs["method"] == "dkd", "hp"] = json.dumps({"alpha": 1.0, "warmup": 0.08333333333333333, "mode": "code"})
    about = {
        "title": "Decoupled KD",
        "authors": "Zhao",
        "venue": "CVPR",
        "year": 2022,
        "url": "https://arxiv.org/abs/1",
    }
    known = {
        "dkd": {**about, "code": "(none public)", "deviations": ("One `thing`.", "Another.")},
        "vanilla": {"year": 0},
    }
    page = Page(made(runs, methods=known))
    assert "Decoupled KD . Zhao, CVPR, 2022." in page.text and "https://arxiv.org/abs/1" in page.all("a", "href")
    assert "alpha = 1, warmup = 0.0833333, mode = code" in page.text and "One thing . Another." in page.text
    assert "Reference code" not in page.text and "built-in" not in page.text


def test_budgets_say_who_was_tuned(prose: Prose) -> None:
    runs = frame({"vanilla": 0.0, "kd": 1.0}, seeds=2).assign(epochs=40)
    more = frame({"kd(tuned)": 2.0}, seeds=2).assign(epochs=40, tuned=True, tuned_trials=24.0)
    more["cost/epochs_before"] = 5.0
    both = pd.concat([runs, more], ignore_index=True)
    for rows, shown in ((runs, [40]), (both, [40, 5, 24])):
        told = "\n".join(sections.budgets(rows, table.build(rows)))
        assert numbers(told) == shown and all(line in Page(made(rows)).text for line in told.split("\n"))
        prose(told)


def test_sections_are_rendered_with_their_figures_inside_them() -> None:
    more = Text("**Equal** `budgets` in [tuning.md](tuning.md).", links=True)
    cells = Grid({"method": Column("method", ["kd*x"]), "trials": Column("trials", ["24"])})
    shown = [Figure("tuning", "Best of k"), Figure("gone", "Gone")]
    drawn = {name: (PNG, f"Caption of {name}.") for name in ("difference", "cost", "tuning")}
    page = Page(made(frame(), tuning=[Section("Tuning", [more, cells, *shown], "tuning", "Tuning")], figures=drawn))
    said = [
        "Difference to vanilla. Caption of difference.",
        "Best of k",
        "Accuracy and cost of training. Caption of cost.",
    ]
    assert page.all("img", "alt") == said
    assert all(source.startswith("data:") for source in page.all("img", "src"))
    assert ["kd*x", "24"] in [line for rows in page.tables for line in rows] and "**Equal** budgets" in page.text
    assert {"tuning.md", "#tuning"} <= set(page.all("a", "href")) and "tuning" in page.all("section", "id")


def test_several_pairs_have_a_table_over_all_of_them() -> None:
    runs = pd.concat([frame(pair="a->b", seeds=2), frame(pair="c->d", seeds=2)], ignore_index=True)
    rows = table.build(runs)
    page = Page(made(runs, rows=rows, across_pairs=overall.build(runs, rows)))
    assert len(page.tables) == 4 and page.tables[0][0][-2:] == ["a → b", "c → d"]
    assert page.text.count(columns.BOLD) == 1
    anchors = [link for link in page.all("a", "href") if link.startswith("#row-")]
    assert anchors == [f"#row-{i}" for i in range(len(rows))]
    assert page.tables[-1][0][1] == "pair" and "->" not in re.sub("rerun [^ ]+", "", page.text)


def test_published_numbers_stand_with_source_choice_and_distance() -> None:
    found = distance.beside(cifar(), published.read(), crd(), DATA)
    rows = table.build(cifar(), published=found)
    page = Page(made(cifar(), {**SUITE, "protocol": crd()}, rows=rows, published=found))
    line = next(line for line in page.tables[1] if line[0] == "dkd")
    assert line[1:3] == ["76.32", "best epoch on test"] and line[4].startswith("+") and "mdistiller" in line[-1]
    assert "5,000 of ours" in page.text and "† best epoch" in page.text
    other = Page(made(cifar(), rows=rows, published=distance.beside(cifar(), published.read(), {}, DATA)))
    assert "No distances" in other.text and other.tables[1][1][4] == "–"


def test_markdown_and_html_have_the_same_sections_and_tables() -> None:
    both = pd.concat([frame(pair="a->b", seeds=2), frame(pair="c->d", seeds=2)], ignore_index=True)
    rows = table.build(both)
    page = sections.report(Source(SUITE, DATA, both), rows, "Open.", {}, across_pairs=overall.build(both, rows))
    text, shown = markdown.page(page), Page(html.page(page, {}))
    titles = re.findall(r"^## (.+)$", text, re.M)
    assert titles == [section.title for section in page.sections[1:]] and "Runs" in titles
    assert shown.all("section", "aria-label") == ["Table", *titles[:-3], *GAINS, *titles[-3:]]
    tables = [block for block in text.split("\n\n") if block.startswith("| ")]
    cells = [
        [line.strip("| ").replace("*", "").replace(" ≈", "").split(" | ") for line in each.split("\n")]
        for each in tables
    ]
    in_html = [[[" ".join(cell.split()) for cell in row] for row in each] for each in shown.tables[: len(tables)]]
    assert [[each[0], *each[2:]] for each in cells] == in_html and len(tables) == 3


@pytest.mark.parametrize("gains", [{"vanilla": 0.0}, {"crd": 1.0}])
def test_one_method_and_no_figure(gains: dict[str, float]) -> None:
    page = Page(made(frame(gains), figures={}))
    assert "no differences" in page.text and not page.all("img", "src")


def test_unfinished_runs_are_listed_and_a_row_without_a_finished_one_stays() -> None:
    lost = pd.DataFrame([run("sld", seed, math.nan, status="diverged", reason="loss is nan") for seed in range(2)])
    page = Page(made(pd.concat([frame(seeds=2), lost], ignore_index=True), missing=3))
    assert "sld on big → small, seed 0: diverged (loss is nan)" in page.text
    assert "not started: 3 runs" in page.text
    assert ["sld", "0", "–", "diverged"] in [line[:4] for line in page.tables[-1]]


def test_a_pictures_caption_is_text_below_it() -> None:
    drawn = figures.difference_figure(figures.difference_data(frame(), "vanilla"), "vanilla", "Commit abc.")
    png = layout.rendered(drawn)
    page = Page(made(frame(), figures={"difference": (png, str(drawn.get_label()))}))
    assert "n = 5 seeds per row, each paired" in page.text and "Commit abc." in page.text
    assert page.all("img", "style") == [f"aspect-ratio: {page.all('img', 'width')[0]} / {page.all('img', 'height')[0]}"]
    assert int(page.all("img", "height")[0]) == round(Image.open(io.BytesIO(png)).height * 96 / 300)


def test_templates_come_with_the_package() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["bench"]
    kept = {path for pattern in patterns for path in (ROOT / "bench").glob(pattern)}
    needed = {ROOT / "bench/report" / name for name in ("report.html.j2", "report.css", "report.js")}
    assert needed <= kept and all(path.exists() for path in needed)


def full() -> str:
    """A page with all that there may be."""
    runs = pd.concat([frame(pair="a->b", seeds=3), frame(pair="c->d", seeds=3)], ignore_index=True)
    runs["cost/memory_mb"] = 12.0
    rows = table.build(runs)
    drawn = {name: (PNG, f"Caption of {name}.") for name in ("difference", "cost", "tuning")}
    views = {"MLflow": "http://127.0.0.1:5000/#/experiments/1"}
    links = {name: f"http://127.0.0.1:5000/#/runs/{name}" for name in runs["fingerprint"]}
    known = published.read().head(0)
    return made(
        runs,
        rows=rows,
        across_pairs=overall.build(runs, rows),
        figures=drawn,
        tuning=[Section("Tuning", [Grid({"a": Column("a", ["b"])}), Figure("tuning", "x")], "tuning", link="Tuning")],
        published=distance.beside(runs, known, {}, DATA),
        methods={"kd": {"title": "KD", "url": "https://arxiv.org/abs/1503.02531", "deviations": ["None `here`."]}},
        links=links,
        views=views,
        missing=2,
    )


def test_an_svg_is_inside_with_ids_of_its_own_and_its_texts_add_no_tag() -> None:
    evil = "<script>alert(1)</script>"
    drawn = figures.difference_figure(figures.difference_data(frame({"vanilla": 0.0, evil: 1.0}), "vanilla"), "vanilla")
    picture = layout.rendered(drawn, "svg")
    assert picture == layout.rendered(drawn, "svg") and b"date" not in picture.lower().replace(b"update", b"")
    found = [svg.inlined(picture, prefix, 'said "so"') for prefix in ("a", "b")]
    assert "<script" not in found[0] and "&lt;script&gt;" in found[0] and 'aria-label="said &quot;so&quot;"' in found[0]
    ids = [set(re.findall(r'id="([^"]+)"', text)) for text in found]
    assert ids[0] and not ids[0] & ids[1] and all(name.startswith("a-") for name in ids[0])
    assert set(re.findall(r'(?:href="|url\()#([\w-]+)', found[0])) <= ids[0]
    assert "currentColor" in found[0] and "var(--paper)" in found[0] and "<style" not in found[0]
