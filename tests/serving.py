"""A small store of the fake model, for the tests of the server and its page."""

from __future__ import annotations

from pathlib import Path

from fake_model import COLOURS, INFO, FakeModel, gallery, paint
from unicross.store import Store, open_store
from unicross.store.index import index


def make_store(home: Path, *, more: int = 0) -> Store:
    """The gallery with captions and a user column; `more` further pictures in shades, for long results."""
    photos = gallery(home / "photos")
    names = list(COLOURS)
    for number in range(more):
        base = COLOURS[names[number % len(names)]]
        shade = tuple(min(255, max(0, value + (number * 37) % 90 - 45)) for value in base)
        size = (40 + number % 3 * 20, 40 + number % 5 * 10)
        paint(photos / "shades" / f"shade{number:03}.png", shade, size)
    table = home / "captions.csv"
    table.write_text(
        "image,caption,author,year\n"
        "red.png,a red wall in the sun,ann,2020\n"
        "a/blue.png,the blue sea,bob,2021\n"
        'b/white.png,"<b>white</b> ""snow"" & ice",ann,2022\n'
    )
    store = open_store(str(home / "store"), INFO)
    index(FakeModel(), photos, store, captions=table)
    return store
