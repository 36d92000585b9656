"""The report of a study, opened in a real browser."""

import re
import shutil
from itertools import pairwise

import pytest

from regularity.report import _page

sync = pytest.importorskip("playwright.sync_api", reason="needs playwright, of the dev extra")
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
if BROWSER is None:
    pytest.skip("needs Chromium; on Debian: apt install chromium", allow_module_level=True)

SECTIONS = ["answer", "strengths", "curves", "worth", "trials", "inside", "recipe"]


@pytest.fixture(scope="module")
def file(study, tmp_path_factory):
    return study.report(tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture(scope="module")
def browser():
    with sync.sync_playwright() as playwright:
        options = [
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-background-networking",
            "--disable-sync",
        ]
        browser = playwright.chromium.launch(executable_path=BROWSER, args=options)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, file):
    """Open the page with all charts drawn; gives it, and what it said or asked for besides itself."""
    contexts = []

    def opened(width=1440, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page, heard = context.new_page(), []
        page.on("console", lambda message: heard.append(message.text))
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.on("request", lambda request: heard.append(request.url) if request.url != file.as_uri() else None)
        page.goto(file.as_uri())
        page.evaluate("dispatchEvent(new Event('beforeprint'))")  # draws what is not in sight yet
        page.wait_for_function("!document.querySelector('.chart:not([data-drawn])')")
        return page, [url for url in heard if not url.startswith("data:")]

    yield opened
    for context in contexts:
        context.close()


def test_one_file_that_is_light_and_holds_all_it_needs(opened, file):
    page, _ = opened()
    assert file.stat().st_size < 3e6
    assert page.evaluate("[...document.querySelectorAll('[src], link')].map(e => e.src ?? e.href)") == ["data:,"]


def test_name_of_a_study_is_shown_as_it_is(opened, study):
    page, _ = opened()
    assert page.title() == f"{study.name}: {study.verdict}"
    assert page.locator("h1").text_content() == study.name


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 768, 1440])
def test_every_section_is_drawn_within_its_bounds(opened, width, scheme):
    page, heard = opened(width, scheme)
    assert heard == []
    assert [page.locator(f"#{name}").is_visible() for name in SECTIONS] == [True] * len(SECTIONS)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    charts = page.locator(".chart")
    assert charts.count() >= 3 + 3 + 2  # an answer, curves, worth, trials; one a technique; one a kernel
    for number in range(charts.count()):
        shapes = charts.nth(number).locator("svg path, svg line").count()
        assert shapes > 3, charts.nth(number).get_attribute("data-chart")
    # what stands in the page one after the other does not overlap
    boxes = page.evaluate(
        "[...document.querySelectorAll('main > section > *, .grid > figure')].map(e => e.getBoundingClientRect())"
        ".map(r => [r.left, r.top, r.right, r.bottom])"
    )
    sections = page.evaluate(
        "[...document.querySelectorAll('main > section')].map(e => e.getBoundingClientRect().toJSON())"
    )
    assert all(before["bottom"] <= after["top"] + 0.5 for before, after in pairwise(sections))
    assert all(left >= 0 and right <= width + 0.5 for left, _, right, _ in boxes)
    drawn = page.evaluate(
        "[...document.querySelectorAll('.chart')].map(c => [c.getBoundingClientRect().right, c.querySelector('svg').getBoundingClientRect().right])"
    )
    assert all(picture <= place + 1 for place, picture in drawn)
    ground, ink = page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    light = [sum(map(int, re.findall(r"\d+", color)[:3])) for color in (ground, ink)]
    assert (light[0] > light[1]) == (scheme == "light")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1440])
def test_no_barrier_is_found(opened, width, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe, of the dev extra")
    page, _ = opened(width, scheme)
    found = axe.Axe().run(page).response["violations"]
    assert [(each["id"], each["nodes"][0]["html"]) for each in found] == []


def trials(page):
    return [int(text) for text in page.locator("#table tbody tr:visible .pick").all_text_contents()]


def test_table_sorts_by_each_column(opened, study):
    page, _ = opened()
    shown = trials(page)
    assert shown[0] == study._found.choice.answer
    assert sorted(shown) == list(study.table.index)
    head = page.get_by_role("button", name="accuracy", exact=True)
    head.click()
    expected = study.table["score"].sort_values(ascending=False, kind="stable")
    assert study.table["score"].loc[trials(page)].tolist() == expected.tolist()
    assert page.locator("th[aria-sort]").get_attribute("aria-sort") == "descending"
    head.click()
    assert study.table["score"].loc[trials(page)].tolist() == expected.tolist()[::-1]
    page.get_by_role("button", name="trial", exact=True).press("Enter")
    assert trials(page) == sorted(shown, reverse=True)


def test_filter_leaves_what_it_names_in_table_and_charts(opened, study):
    page, _ = opened()
    everything, lines = trials(page), page.locator("[data-chart=trials] .mark-line path")
    assert lines.count() == len(everything)
    page.get_by_label("With").select_option("max_norm")
    left = trials(page)
    assert set(left) == set(study.table.index[study.table["max_norm"].notna()])
    assert 0 < len(left) < len(everything)
    page.wait_for_function(f"document.querySelectorAll('[data-chart=trials] .mark-line path').length === {len(left)}")
    assert page.locator("#count").text_content() == f"{len(left)} of {len(everything)} trials"
    page.get_by_label("Find").fill("l2")
    assert set(trials(page)) == set(left) & set(study.table.index[study.table["l2"].notna()])
    page.get_by_role("button", name="Clear").click()
    assert sorted(trials(page)) == sorted(everything)


def opacities(page):
    return page.evaluate(
        "[...document.querySelectorAll('[data-chart=trials] .mark-line path')].map(p => Number(p.getAttribute('opacity') ?? 1))"
    )


def test_picking_in_one_highlights_in_the_others(opened):
    page, _ = opened()
    row = page.locator("#table tbody tr").nth(3)
    pick = row.locator(".pick")
    pick.focus()
    page.keyboard.press("Space")
    assert pick.get_attribute("aria-pressed") == "true"
    page.wait_for_function(
        "[...document.querySelectorAll('[data-chart=trials] .mark-line path')].filter(p => Number(p.getAttribute('opacity') ?? 1) === 1).length === 1"
    )
    assert sorted(set(opacities(page))) == [0.06, 1]
    page.get_by_role("button", name="Clear").click()
    assert page.locator(".picked").count() == 0
    # and from a chart to the table
    point = page.locator("[data-chart=trials] .mark-symbol path").first
    point.dispatch_event("click")
    assert page.locator("#table tr.picked").count() == 1


def test_theme_is_the_readers_choice(opened):
    page, _ = opened(scheme="dark")
    page.get_by_role("button", name="Light").click()
    assert page.locator("html").get_attribute("data-theme") == "light"
    assert page.get_by_role("button", name="Dark").is_visible()


@pytest.mark.parametrize("which", ["Recipe", "Keras"])
def test_copied_is_what_stands_there(opened, study, which):
    page, _ = opened()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator(f"[data-of=text-{which}]").click()
    page.get_by_role("button", name="Copied").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == page.locator(f"#text-{which}").text_content()
    if which == "Keras":
        assert copied.strip() == study.code().strip()


def test_numbers_are_those_of_the_study(opened, study):
    page, _ = opened()
    assert page.locator(".lead").text_content() == str(study)
    cells = page.locator("#answer tbody tr").first.locator("td").all_text_contents()
    assert float(cells[0]) == pytest.approx(study.comparison["score"]["chosen"], rel=1e-3)
    assert str(study.table["members"].sum()) in page.locator("dl").text_content()


def test_a_place_that_cannot_be_written_is_said_first(study, tmp_path, monkeypatch):
    monkeypatch.setattr(_page, "page", lambda study: pytest.fail("the work was done before"))
    with pytest.raises(ValueError, match=r"ends in \.html.*report\.pdf"):
        study.report(tmp_path / "report.pdf")
    with pytest.raises(ValueError, match="folder that exists"):
        study.report(tmp_path / "nowhere" / "report.html")
