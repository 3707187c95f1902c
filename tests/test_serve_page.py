"""The web page, in headless Chromium."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fake_model import FakeModel, paint

pytest.importorskip("playwright", reason="playwright is not installed")
pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from playwright.sync_api import expect

from browsing import MARKS, Open, Server, tiles
from serving import make_store
from unicross.serve.service import Settings
from unicross.store import Store, StoreInfo, open_store
from unicross.store.index import index

pytestmark = MARKS


def test_words_find_pictures_and_the_address_can_be_shared(visit: Open) -> None:
    page = visit()
    expect(page.locator("h1")).to_have_text("96 pictures. Say what you are looking for.")
    page.keyboard.type("red")  # the field has the focus
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_contain_text("for “red”")
    expect(tiles(page).first).to_contain_text("a red wall in the sun")
    expect(page).to_have_url(re.compile(r"/\?q=red$"))
    shared = visit("/?q=red")
    expect(tiles(shared).first).to_contain_text("a red wall in the sun")
    expect(shared.locator("#words")).to_have_value("red")
    page.go_back()
    expect(page.locator("h1")).to_be_visible()


def test_an_example_is_a_search(visit: Open) -> None:
    page = visit()
    page.locator(".examples button").first.click()
    expect(page.locator("#status")).to_contain_text("pictures for “")


def test_captions_are_text_and_never_markup(visit: Open) -> None:
    page = visit("/?q=white")
    expect(tiles(page).first).to_contain_text('<b>white</b> "snow" & ice')
    assert page.locator("#results b").count() == 0


def test_every_picture_has_an_alternative_text(visit: Open) -> None:
    page = visit("/?q=red")
    expect(tiles(page)).to_have_count(24)
    assert [
        alt for alt in page.locator("#results img").evaluate_all("all => all.map(i => i.alt)") if not alt
    ] == []


def test_results_go_on_as_one_scrolls(visit: Open) -> None:
    page = visit("/?q=green")
    expect(tiles(page)).to_have_count(24)
    for count in (48, 72, 96):
        page.mouse.wheel(0, 20_000)
        expect(tiles(page)).to_have_count(count)
    expect(page.locator("#status")).to_contain_text("All 96 pictures")
    links = tiles(page).evaluate_all("all => all.map(a => a.href)")
    assert len(set(links)) == 96


def test_the_keyboard_is_enough(visit: Open) -> None:
    page = visit("/?q=blue")
    expect(tiles(page)).to_have_count(24)
    page.keyboard.press("/")
    expect(page.locator("#words")).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(tiles(page).nth(0)).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(tiles(page).nth(1)).to_be_focused()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    viewer = page.locator("#viewer")
    expect(viewer).to_be_visible()
    expect(page.locator("#viewer-title")).to_have_text("the blue sea")
    expect(page.locator("#viewer-captions li").first).to_contain_text("the blue sea")
    expect(page).to_have_url(re.compile("item="))
    page.keyboard.press("ArrowRight")
    expect(page.locator("#viewer-title")).not_to_have_text("the blue sea")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Escape")
    expect(viewer).to_be_hidden()
    expect(tiles(page).nth(0)).to_be_focused()
    expect(page).to_have_url(re.compile(r"/\?q=blue$"))
    page.keyboard.press("m")
    expect(page.locator("#status")).to_contain_text("like the chosen one")
    expect(page.locator("#chip")).to_be_visible()
    expect(page).to_have_url(re.compile("like="))


def test_a_shared_picture_opens_large(visit: Open, store: Store) -> None:
    red = next(row.id for row in store.scan() if row.path.endswith("/red.png") and row.kind == "image")
    page = visit(f"/?item={red}")
    expect(page.locator("#viewer-title")).to_have_text("a red wall in the sun")
    expect(page.locator("#viewer-facts")).to_contain_text("red.png")
    expect(page.locator("#viewer-facts")).to_contain_text("Authorann")
    page.locator("#viewer-like").click()
    expect(page.locator("#viewer")).to_be_hidden()
    expect(page).to_have_url(re.compile(f"like={red}$"))


def test_a_picture_can_be_uploaded_pasted_and_dropped(visit: Open, tmp_path: Path) -> None:
    query = paint(tmp_path / "query.png", "blue", (2000, 1500))
    page = visit()
    with page.expect_request(lambda request: request.method == "POST") as sent:
        page.locator("#file").set_input_files(query)
    expect(page.locator("#status")).to_contain_text("like your picture")
    expect(tiles(page).first).to_contain_text("the blue sea")
    assert len(sent.value.post_data_buffer or b"") < 20_000  # made small before it travels
    page.locator("#words").fill("yellow")
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_contain_text("for “yellow” and your picture")
    page.locator("#chip-remove").click()
    expect(page.locator("#status")).to_contain_text("pictures for “yellow” ·")
    drop = """async (kind) => {
        const canvas = new OffscreenCanvas(40, 40), pen = canvas.getContext("2d");
        pen.fillStyle = "rgb(220, 30, 30)"; pen.fillRect(0, 0, 40, 40);
        const files = new DataTransfer();
        files.items.add(new File([await canvas.convertToBlob()], "x.png", { type: "image/png" }));
        const common = { bubbles: true, cancelable: true };
        const event = kind === "drop" ? new DragEvent("drop", { dataTransfer: files, ...common })
            : new ClipboardEvent("paste", { clipboardData: files, ...common });
        document.body.dispatchEvent(event);
    }"""
    for kind in ("drop", "paste"):
        page.goto(page.url.split("?")[0])
        expect(page.locator("h1")).to_be_visible()
        page.evaluate(drop, kind)
        expect(page.locator("#status")).to_contain_text("like your picture")
        expect(tiles(page).first).to_contain_text("a red wall in the sun")


def test_filters_narrow_and_are_in_the_address(visit: Open) -> None:
    page = visit("/?q=red")
    page.locator("#filters-toggle").click()
    page.get_by_label("Author").select_option("bob")
    expect(tiles(page)).to_have_count(1)
    expect(tiles(page).first).to_contain_text("the blue sea")
    expect(page).to_have_url(re.compile("where=author%3Dbob"))
    page.locator("#clear").click()
    expect(tiles(page)).to_have_count(24)
    page.get_by_text("Texts").click()
    expect(tiles(page)).to_have_count(3)
    expect(tiles(page).first).to_have_class(re.compile("text"))
    page.locator("#after").fill("2099-01-01")
    page.locator("#after").press("Tab")
    expect(page.locator("#message")).to_contain_text("Nothing found")
    page.get_by_role("button", name="Clear the filters").click()
    expect(tiles(page)).to_have_count(24)
    page.locator("#minus").fill("yellow, green")
    page.locator("#minus").press("Enter")
    expect(page.locator("#filters-count")).to_have_text("1")


def test_colours_can_be_chosen_and_stay(visit: Open) -> None:
    page = visit(color_scheme="light")
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.locator("#theme").click()
    dark = page.evaluate(background)
    assert dark != light
    page.reload()
    assert page.evaluate(background) == dark
    assert visit(color_scheme="dark").evaluate(background) == dark


def test_a_phone_needs_no_sideways_scrolling(visit: Open) -> None:
    page = visit("/?q=red", is_mobile=True, has_touch=True)
    page.set_viewport_size({"width": 360, "height": 700})
    expect(tiles(page)).to_have_count(24)
    width = "document.documentElement.scrollWidth"
    assert page.evaluate(width) <= 360
    page.locator("#filters-toggle").tap()
    assert page.evaluate(width) <= 360
    tiles(page).first.tap()
    expect(page.locator("#viewer")).to_be_visible()
    assert page.evaluate(width) <= 360


def test_errors_are_said_and_can_be_tried_again(visit: Open) -> None:
    page = visit("/?like=nobody")
    expect(page.locator("#message")).to_contain_text("no such id in the store")
    page.route("**/search?*", lambda route: route.abort())
    page.locator("#words").fill("red")
    page.keyboard.press("Enter")
    expect(page.locator("#message")).to_contain_text("The server does not answer")
    page.unroute("**/search?*")
    page.get_by_role("button", name="Try again").click()
    expect(tiles(page).first).to_contain_text("a red wall in the sun")


def test_what_was_not_found_is_said_and_what_cannot_be_asked_for_can_be_cleared(visit: Open) -> None:
    page = visit("/?q=zeppelin&mode=text")
    expect(page.locator("#message")).to_contain_text("No caption, file name or column has these words.")
    page = visit("/?q=red&where=album%3Dnothing")
    expect(page.locator("#message")).to_contain_text("Nothing meets all the filters.")
    page = visit("/?q=red&where=colour%3Dred")
    expect(page.locator("#message")).to_contain_text("no column 'colour' in this store")
    page.locator("#message").get_by_role("button", name="Clear the filters").click()
    expect(tiles(page).first).to_contain_text("a red wall in the sun")


def test_a_picture_whose_file_is_gone_says_so(visit: Open, tmp_path: Path) -> None:
    kept = make_store(tmp_path)
    index(FakeModel(), tmp_path / "photos", kept, thumbnails=64)
    red = next(row for row in kept.scan() if row.path.endswith("/red.png") and row.kind == "image")
    with Server(kept) as running:
        page = visit(f"/?item={red.id}", running.url)
        expect(page.locator("#viewer-original")).to_be_visible()
        expect(page.locator("#viewer-gone")).to_be_hidden()
        Path(red.path).unlink()
        page.reload()
        expect(page.locator("#viewer-gone")).to_contain_text("The store keeps this small picture of it.")
        expect(page.locator("#viewer-original")).to_be_hidden()


def test_the_key_is_asked_for(visit: Open, store: Store) -> None:
    with Server(store, Settings(api_key="schlüssel; 7")) as guarded:
        page = visit("/?q=red", url=guarded.url)
        expect(page.locator("#key-dialog")).to_be_visible()
        page.locator("#key").fill("schlüssel; 7")
        page.keyboard.press("Enter")
        expect(tiles(page).first).to_contain_text("a red wall in the sun")
        expect(tiles(page).first.locator("img")).to_have_js_property("naturalWidth", 24)


def test_an_empty_store_says_how_to_fill_it(visit: Open, tmp_path: Path) -> None:
    info = StoreInfo(fingerprint=FakeModel().fingerprint(), checkpoint="m", dim=16)
    with Server(open_store(str(tmp_path / "empty"), info)) as empty:
        page = visit(url=empty.url)
        expect(page.locator("#message")).to_contain_text("Nothing is indexed yet")
