"""What the tests of the server and its page share: a small store of the fake model, pictures, refusals."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any

from PIL import Image

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


def png(colour: str, size: tuple[int, int] = (30, 20), kind: str = "PNG") -> bytes:
    """A picture of one colour, as a file of a kind."""
    buffer = io.BytesIO()
    Image.new("RGB", size, COLOURS[colour]).save(buffer, kind)
    return buffer.getvalue()


def refusal(answer: Any) -> tuple[int, str]:
    """Status and message of an answer that is an error."""
    error = answer.json()["error"]
    assert error["status"] == answer.status_code
    return answer.status_code, error["message"]


class Slow(FakeModel):
    """Waits in its first forward until told to go on; fails on the word `bang`."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.go_on = threading.Event(), threading.Event()
        self.batches: list[int] = []

    def encode_texts(self, texts: Any) -> Any:
        self.batches.append(len(texts))
        if len(self.batches) == 1:
            self.entered.set()
            assert self.go_on.wait(10)
        if "bang" in texts:
            raise RuntimeError("bang")
        return super().encode_texts(texts)
