"""Hits as one HTML file with the pictures inside, to look at or to send."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence

from unicross.data.images import decode, thumbnail
from unicross.errors import DataError
from unicross.reading import LARGEST_PICTURE, read_bytes
from unicross.store import Hit

SIDE = 320
"""Pixels on the longer side of a picture."""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark"><title>{title}</title>
<style>
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 24px clamp(12px, 4vw, 48px); }}
main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(200px, 1fr)); gap: 18px; }}
figure {{ margin: 0; }}
img, .none {{ width: 100%; aspect-ratio: 1; object-fit: contain; background: #8881; border-radius: 10px; }}
.none {{ display: grid; place-items: center; color: #888; }}
figcaption {{ overflow-wrap: anywhere; }} small {{ color: #888; }}
</style></head><body><h1>{title}</h1><main>
{figures}
</main></body></html>
"""


def render(title: str, hits: Sequence[Hit]) -> str:
    """The page; a picture that cannot be read is replaced by its reason."""
    return _PAGE.format(title=html.escape(title), figures="\n".join(map(_figure, hits)))


def _figure(hit: Hit) -> str:
    row = hit.row
    words = html.escape(row.caption)
    name = html.escape(row.path)
    return (
        f"<figure>{_picture(row.path, words) if row.path else ''}"
        f"<figcaption>{words} <small>{hit.score:.3f} {name}</small></figcaption></figure>"
    )


def _picture(path: str, alt: str) -> str:
    try:
        image = decode(read_bytes(path, LARGEST_PICTURE), path, at_least=SIDE)
    except (OSError, DataError):
        return '<div class="none">cannot be read any more</div>'
    data = base64.b64encode(thumbnail(image, (SIDE, SIDE))).decode()
    return f'<img alt="{alt}" src="data:image/jpeg;base64,{data}">'
