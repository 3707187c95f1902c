"""What the page does beyond searching: parts, lists, languages, thresholds, paths; and accessibility."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="playwright is not installed")
pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from playwright.sync_api import expect

from browsing import MARKS, Open, Server, tiles
from unicross.calibration import Calibration
from unicross.serve.service import Settings
from unicross.store import Store

pytestmark = MARKS


def test_a_list_is_ticked_and_downloaded(visit: Open) -> None:
    page = visit("/?q=red")
    tiles(page).nth(0).focus()
    page.keyboard.press("x")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("x")
    expect(page.locator("#selection-count")).to_have_text("2 selected")
    page.locator("#words").fill("white")
    page.keyboard.press("Enter")
    expect(tiles(page).first).to_contain_text("snow")
    page.locator(".pick").first.check()
    expect(page.locator("#selection-count")).to_have_text("3 selected")  # of both searches
    with page.expect_download() as download:
        page.locator("#selection-csv").click()
    lines = Path(download.value.path()).read_text(encoding="utf-8-sig").splitlines()
    assert lines[0] == "id,kind,path,album,caption,score,likelihood,author,year"
    assert len(lines) == 4
    assert ",image,red.png,photos,a red wall in the sun,1,,ann,2020" in lines[1]
    assert '"<b>white</b> ""snow"" & ice"' in lines[3]
    page.locator("#selection-clear").click()
    expect(page.locator("#selection")).to_be_hidden()
    expect(page.locator(".pick:checked")).to_have_count(0)


def test_what_a_spreadsheet_would_run_is_made_text(visit: Open) -> None:
    page = visit()
    csv = page.evaluate(
        """async () => {
        const { asCsv } = await import("/static/selection.js");
        const common = { id: "1", kind: "image", path: "p", album: "", score: -0.5, likelihood: null };
        return asCsv([{ ...common, caption: "=cmd|' /C calc'!A0", columns: { "note": "@x" } }]);
    }"""
    )
    assert csv.splitlines()[1] == "1,image,p,,'=cmd|' /C calc'!A0,-0.5,,'@x"


def test_a_result_is_dragged_back_as_a_query(visit: Open) -> None:
    page = visit("/?q=blue")
    expect(tiles(page).first).to_contain_text("the blue sea")
    expect(tiles(page).first.locator("img")).not_to_have_js_property("naturalWidth", 0)
    tiles(page).first.locator("img").drag_to(page.locator("#words"), steps=4)
    expect(page.locator("#status")).to_contain_text("like the chosen one")


def test_a_part_of_a_picture_is_searched_with(visit: Open) -> None:
    page = visit("/?q=blue")
    tiles(page).first.click()
    page.locator("#viewer-part").click()
    box = page.locator("#crop-box")
    expect(page.locator("#crop")).to_be_focused()
    expect(page.locator("#viewer-image")).not_to_have_js_property("naturalWidth", 0)
    before = box.bounding_box()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowDown")
    after = box.bounding_box()
    assert before is not None
    assert after is not None
    assert after["x"] > before["x"]
    assert after["height"] > before["height"]
    page.keyboard.press("Escape")  # ends the box, not the view
    expect(page.locator("#crop")).to_be_hidden()
    expect(page.locator("#viewer")).to_be_visible()
    page.locator("#viewer-part").click()
    area = page.locator("#crop").bounding_box()
    assert area is not None
    page.mouse.move(area["x"] + area["width"] * 0.45, area["y"] + area["height"] * 0.45)
    page.mouse.down()
    page.mouse.move(area["x"] + area["width"] * 0.6, area["y"] + area["height"] * 0.6)
    with page.expect_request(lambda request: request.method == "POST"):
        page.mouse.up()
    expect(page.locator("#viewer")).to_be_hidden()
    expect(page.locator("#status")).to_contain_text("like your picture")
    expect(tiles(page).first).to_contain_text("the blue sea")


def test_searches_are_saved_applied_and_deleted(visit: Open) -> None:
    page = visit()
    page.locator("#saved-toggle").click()
    expect(page.locator("#saved-none")).to_be_visible()
    expect(page.locator("#save")).to_be_disabled()  # nothing is asked for
    for words in ("red", "blue"):
        page.goto(f"{page.url.split('?')[0]}?q={words}&where=author%3Dann")
        page.locator("#saved-toggle").click()
        page.locator("#save").click()
        page.locator("#save").click()  # the same again is one
    saved = page.locator("#saved-list a")
    expect(saved).to_have_text(["blue · author: ann", "red · author: ann"])
    page.reload()
    page.locator("#saved-toggle").click()
    saved.nth(1).press("Enter")
    expect(page).to_have_url(re.compile(r"\?q=red&where=author%3Dann$"))
    expect(tiles(page).first).to_contain_text("a red wall in the sun")
    page.get_by_role("button", name="Delete blue · author: ann").click()
    expect(saved).to_have_text(["red · author: ann"])
    expect(page.get_by_role("button", name="Delete red")).to_be_focused()
    page.evaluate("localStorage.setItem(`searches ${location.pathname}`, '{not a list')")
    page.reload()
    page.locator("#saved-toggle").click()
    expect(page.locator("#saved-none")).to_be_visible()


@pytest.mark.parametrize(
    ("tag", "placeholder"),
    [("de-AT", "Beschreiben Sie ein Bild"), ("ja", "画像を説明"), ("it", "Describe a picture")],
)
def test_the_page_speaks_the_language_of_the_browser(visit: Open, tag: str, placeholder: str) -> None:
    page = visit(locale=tag)
    expect(page.locator("#words")).to_have_attribute("placeholder", re.compile(placeholder))
    page.locator("#language").select_option("fr")
    expect(page.locator("h1")).to_contain_text("Dites ce que vous cherchez")
    expect(page.locator("html")).to_have_attribute("lang", "fr")
    page.reload()
    expect(page.locator("#words")).to_have_attribute("placeholder", re.compile("Décrivez une image"))


def test_every_text_is_there_in_every_language(visit: Open) -> None:
    page = visit()
    holes = page.evaluate(
        """async () => {
        const { TEXTS: table } = await import("/static/texts.js");
        const filled = (text) => [...text.matchAll(/\\{(\\w+)\\}/g)].map((m) => m[1]).sort().join();
        const asked = [...document.querySelectorAll("*")].flatMap((node) => Object.entries(node.dataset))
            .filter(([name]) => ["text", "placeholder", "title", "label"].includes(name))
            .map(([, value]) => value);
        const uneven = Object.entries(table).filter(([, texts]) =>
            texts.length !== 6 || texts.some((text) => !text || filled(text) !== filled(texts[0])));
        return [...uneven.map(([name]) => name), ...asked.filter((name) => !table[name])];
    }"""
    )
    assert holes == []


def test_unlikely_pictures_are_not_shown(visit: Open, store: Store) -> None:
    store.remember(calibration=Calibration(slope=20, intercept=-19.5, queries=60))
    with Server(store) as server:
        page = visit("/?q=red", url=server.url)
        expect(tiles(page).first.locator(".score")).to_have_text("62%")
        expect(tiles(page)).to_have_count(24)
        page.goto(f"{server.url}/?q=red&likely=0.5")
        expect(page.locator("#likely-said")).to_have_text("50%")
        expect(page.locator("#status")).to_contain_text("All")
        page.goto(f"{server.url}/?q=red&likely=0.95")
        expect(page.locator("#message")).to_contain_text("Nothing here looks like that")
        page.get_by_role("button", name="Show the nearest").click()
        expect(tiles(page)).to_have_count(24)
        page.goto(f"{server.url}/?q=red&mode=text&likely=0.95")
        expect(tiles(page).first).to_be_visible()
        expect(page.locator("#likely-field")).to_be_hidden()


def test_near_duplicates_are_a_click_away(visit: Open) -> None:
    page = visit("/?q=red&fold=1")
    expect(page.locator("#filters-count")).to_have_text("1")
    more = tiles(page).first.locator(".more")
    expect(more).to_contain_text("+")
    count = int((more.text_content() or "").split()[0])
    tiles(page).first.click()
    strip = page.locator("#viewer-duplicates button")
    expect(strip).to_have_count(1 + count)
    strip.nth(1).click()
    expect(page.locator("#viewer-title")).not_to_have_text("a red wall in the sun")
    expect(strip.nth(1)).to_be_focused()
    strip.first.click()  # and back
    expect(page.locator("#viewer-title")).to_have_text("a red wall in the sun")


def test_words_are_matched_with_texts(visit: Open) -> None:
    page = visit("/?q=sea&mode=text")
    expect(tiles(page)).to_have_count(1)
    expect(tiles(page).first).to_contain_text("the blue sea")


def test_the_page_works_below_a_path(visit: Open, store: Store) -> None:
    with Server(store, Settings(root_path="/photos")) as server:
        page = visit("/photos/?q=red", url=server.url)
        expect(tiles(page).first).to_contain_text("a red wall in the sun")
        expect(tiles(page).first.locator("img")).to_have_js_property("naturalWidth", 24)
        tiles(page).first.click()
        expect(page.locator("#viewer-title")).to_have_text("a red wall in the sun")
        page.goto(f"{server.url}/photos")
        expect(page).to_have_url(f"{server.url}/photos/")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_use_it(visit: Open, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    page = visit("/?q=red", color_scheme=scheme, reduced_motion="reduce")
    expect(tiles(page)).to_have_count(24)
    page.locator("#filters-toggle").click()
    page.locator("#saved-toggle").click()
    page.locator("#save").click()

    def problems() -> list[str]:
        rules = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}
        found = axe.Axe().run(page, options=rules).response["violations"]
        return [f"{rule['id']}: {node['html'][:200]}" for rule in found for node in rule["nodes"]]

    assert problems() == []
    page.locator(".pick").first.check()
    tiles(page).nth(1).click()
    expect(page.locator("#viewer")).to_be_visible()
    assert problems() == []
