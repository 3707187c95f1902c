"""Findings as one HTML file with the pictures inside: by kind, what goes first, twins side by side."""

from __future__ import annotations

from typing import get_args

from unicross.contact_sheet import figure, page, section
from unicross.data.items import Items
from unicross.hygiene.check import Checked, Finding, Kind
from unicross.suspects import ItemSuspects

SHOWN = 60
"""Findings of a kind that are shown; the others are counted."""

NOTES: dict[Kind, str] = {
    "leak": "The same picture, or nearly so, is held out for measuring. The one to train on goes.",
    "exact duplicate": "The file's bytes are the same. The first one stays.",
    "near duplicate": "The pictures look the same. The first one stays.",
    "suspect pair": "The model finds that many random pictures fit the caption better. Most doubtful first.",
    "unreadable picture": "Their headers are fine, their pixels are not.",
    "small picture": "They stay. A model enlarges them.",
    "one-word caption": "They stay. They say little, and often the same.",
    "repeated caption": "They stay. Training and evaluation know equal captions.",
    "other language": "They stay. A text tower of one language learns nothing from others.",
}


def render(checked: Checked, title: str) -> str:
    """The page of a check."""
    parts = []
    for kind in get_args(Kind):
        findings = checked.of_kind(kind)
        if findings:
            more = f" The first {SHOWN} are shown." if len(findings) > SHOWN else ""
            figures = [_figure(checked, finding) for finding in findings[:SHOWN]]
            parts.append(section(figures, f"{kind}: {len(findings):,}", NOTES[kind] + more))
    return page(title, *(parts or ["<p>Nothing odd was found.</p>"]))


def render_suspects(items: Items, suspects: ItemSuspects, shown: int, title: str) -> str:
    """The page of the pairs that a model doubts most, the most doubtful first."""
    found = suspects.found
    figures = []
    for k in found.order[: max(shown, found.count)][: 10 * SHOWN]:
        item = int(suspects.item[k])
        words = items.texts[int(suspects.caption[k])].as_py()
        small = f"fits better than {found.fit[k]:.1%} of random pairs · {items.ids[item].as_py()}"
        figures.append(figure(items[item].images, words, small))
    note = (
        f"Of {len(found.fit):,} captions, about {found.wrong:,} are expected to be wrong; "
        f"{found.count:,} are listed, at least half of which are expected to be."
    )
    return page(title, section(figures, "", note))


def _figure(checked: Checked, finding: Finding) -> str:
    items = checked.items
    pictures = [*items[finding.item].images] if finding.image is None else [items.image(finding.image)]
    if finding.twin is not None and finding.twin != finding.item:
        pictures += items[finding.twin].images[:1]
    if finding.caption is not None:
        words = items.texts[finding.caption].as_py()
    else:
        captions = items[finding.item].captions
        words = captions[0] if captions else ""
    return figure(pictures, words, f"{checked.name(finding.item)}: {finding.what}")
