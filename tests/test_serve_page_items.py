"""The page over a store whose items have several pictures: one card an item, the others on click."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

pytest.importorskip("playwright", reason="playwright is not installed")
pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from playwright.sync_api import expect

from browsing import MARKS, Open, Server, tiles
from fake_model import COLOURS, INFO, FakeModel, paint
from unicross.store import open_store
from unicross.store.index import index

pytestmark = MARKS

PICTURES = 5
"""Of each item but the last, which has one."""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """30 items in eight colours, their first pictures in plain colours, the others in other ones."""
    home = tmp_path_factory.mktemp("shop")
    names = list(COLOURS)
    lines = []
    for number in range(30):
        pictures = []
        for view in range(PICTURES if number < 29 else 1):
            colour = COLOURS[names[(number + view) % len(names)]]
            shade = tuple(min(255, value + number) for value in colour)
            pictures.append(paint(home / f"{number}-{view}.png", shade).name)
        words = f"a {names[number % len(names)]} thing {number}"
        lines.append(json.dumps({"item_id": f"thing{number}", "image": pictures, "caption": words}))
    (home / "items.jsonl").write_text("\n".join(lines))
    store = open_store(str(home / "store"), INFO)
    index(FakeModel(), home / "items.jsonl", store)
    with Server(store) as server:
        yield server


def test_there_is_one_card_an_item(visit: Open, shop: Server) -> None:
    page = visit("/?q=red", url=shop.url)
    expect(tiles(page)).to_have_count(24)
    expect(page.locator("#status")).to_contain_text("Best 24 pictures")
    page.mouse.wheel(0, 20_000)
    expect(tiles(page)).to_have_count(30)  # not fewer because their pictures are near to each other
    more = page.locator(".more")
    expect(more).to_have_count(29)
    expect(more.first).to_have_text(f"+{PICTURES - 1} Pictures of this item: ")


def test_the_other_pictures_are_shown_on_click(visit: Open, shop: Server) -> None:
    page = visit("/?q=red", url=shop.url)
    tiles(page).first.click()
    expect(page.locator("#viewer-group")).to_have_text("Pictures of this item")
    strip = page.locator("#viewer-duplicates button")
    expect(strip).to_have_count(PICTURES)
    expect(strip.first).to_have_attribute("aria-current", "true")
    first = page.locator("#viewer-facts").inner_text()
    strip.nth(2).click()
    expect(strip.nth(2)).to_have_attribute("aria-current", "true")
    assert page.locator("#viewer-facts").inner_text() != first
    page.keyboard.press("ArrowRight")  # to the next item, not to the next picture
    expect(strip.first).to_have_attribute("aria-current", "true")
    page.keyboard.press("Escape")
    expect(tiles(page).nth(1)).to_be_focused()


def test_all_pictures_are_a_choice(visit: Open, shop: Server) -> None:
    page = visit(url=shop.url)
    expect(tiles(page).first.locator(".more")).to_have_text(re.compile(rf"\+{PICTURES - 1} "))
    page.locator("#filters-toggle").click()
    page.get_by_label("One picture of each item").uncheck()
    expect(page).to_have_url(re.compile("apart=1"))
    expect(page.locator(".more")).to_have_count(0)
    page.reload()
    expect(page.get_by_label("One picture of each item")).not_to_be_checked()
    page.locator("#clear").click()
    expect(tiles(page).first.locator(".more")).to_be_visible()


def test_a_store_without_items_has_no_such_choice(visit: Open) -> None:
    page = visit("/?q=red")
    page.locator("#filters-toggle").click()
    expect(page.locator("#items-field")).to_be_hidden()
