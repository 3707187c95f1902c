"""Pictures with words as one HTML file, to look at or to send: hits of a search, findings of a check."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from pathlib import Path

from unicross.data.decoding import decode
from unicross.data.image_source import ImageFile, ImageSource
from unicross.data.images import thumbnail
from unicross.data.lookup import picture_in, shard_of
from unicross.errors import DataError
from unicross.store import Hit, Store
from unicross.store.thumbnails import kept_picture

SIDE = 320
"""Pixels on the longer side of a picture."""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark"><title>{title}</title>
<style>
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 24px clamp(12px, 4vw, 48px); }}
main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(200px, 1fr)); gap: 18px; }}
figure {{ margin: 0; }} .pictures {{ display: flex; gap: 4px; }} .pictures > * {{ min-width: 0; flex: 1; }}
img, .none {{ width: 100%; aspect-ratio: 1; object-fit: contain; background: #8881; border-radius: 10px; }}
.none {{ display: grid; place-items: center; color: #888; }}
figcaption {{ overflow-wrap: anywhere; }} small {{ color: #888; }} h2 {{ margin-top: 36px; }}
</style></head><body><h1>{title}</h1>
{body}
</body></html>
"""


def render(title: str, hits: Sequence[Hit], store: Store | None = None) -> str:
    """The page of some hits; in place of a picture that is gone stands the thumbnail that the store
    keeps, and of one that cannot be read the reason."""
    return page(title, section(_hit(hit, store) for hit in hits))


def page(title: str, *parts: str) -> str:
    """A page of parts that are HTML."""
    return _PAGE.format(title=html.escape(title), body="\n".join(parts))


def section(figures: Iterable[str], heading: str = "", note: str = "") -> str:
    """Figures under a heading and a sentence, each of which may be empty."""
    above = f"<h2>{html.escape(heading)}</h2>" if heading else ""
    above += f"<p>{html.escape(note)}</p>" if note else ""
    return f"{above}<main>\n{chr(10).join(figures)}\n</main>"


def figure(pictures: Iterable[ImageSource], words: str, small: str) -> str:
    """Pictures side by side with words below them, and more words in small grey letters."""
    shown = "".join(_picture(picture, words) for picture in pictures)
    shown = f'<div class="pictures">{shown}</div>' if shown else ""
    caption = f"{html.escape(words)} <small>{html.escape(small)}</small>"
    return f"<figure>{shown}<figcaption>{caption}</figcaption></figure>"


def _hit(hit: Hit, store: Store | None) -> str:
    row = hit.row
    picture = _original(row.path) if row.path else None
    if store is not None and (picture is None or _is_gone(picture)):
        picture = kept_picture(store, row) or picture
    pictures = [picture] if picture is not None else []
    return figure(pictures, row.caption, f"{hit.score:.3f} {row.path}")


def _original(path: str) -> ImageSource | None:
    shard = shard_of(path)
    return ImageFile(Path(path)) if shard is None else picture_in(shard, path)


def _is_gone(picture: ImageSource) -> bool:
    try:
        picture.stamp()
    except OSError:
        return True
    return False


def _picture(picture: ImageSource, alt: str) -> str:
    try:
        image = decode(picture.read(), picture.name, at_least=SIDE)
    except (OSError, DataError):
        return '<div class="none">cannot be read any more</div>'
    data = base64.b64encode(thumbnail(image, (SIDE, SIDE))).decode()
    return f'<img alt="{html.escape(alt)}" src="data:image/jpeg;base64,{data}">'
