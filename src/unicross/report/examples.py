"""Queries and pictures worth looking at: found by one and missed by the other, confused, in one cluster."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from unicross.data.decoding import decode
from unicross.data.images import thumbnail
from unicross.data.items import Items
from unicross.errors import DataError
from unicross.report.contents import Variant
from unicross.result import Result
from unicross.training.rounds import Clusters

FOUND, MISSED = 5, 10
"""A query is found with a rank up to the one, missed with a rank beyond the other."""
THUMBNAIL = 112
"""Height of a thumbnail in pixels."""


@dataclass(frozen=True)
class Shown:
    """A picture or a text with what is said of it; `kind` is `query`, `right` or `wrong`."""

    kind: str
    note: str
    image: str | None = None
    """A data URI."""
    text: str | None = None


Example = tuple[Shown, ...]


class Album:
    """Thumbnails and captions by item id."""

    def __init__(self, items: Items) -> None:
        self._items = items

    def caption(self, id: str, number: int = 0) -> str | None:
        item = self._items.find(id)
        return item.captions[number] if item and number < len(item.captions) else None

    def thumbnail(self, id: str, number: int = 0) -> str | None:
        """A JPEG as a data URI; None where the picture is gone."""
        item = self._items.find(id)
        if item is None or number >= len(item.images):
            return None
        source = item.images[number]
        try:
            image = decode(source.read(), source.name, at_least=2 * THUMBNAIL)
        except (OSError, DataError):
            return None
        jpeg = thumbnail(image, (2 * THUMBNAIL, THUMBNAIL))
        return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


@dataclass(frozen=True)
class Contest:
    """How two variants do on the same captions (text to image, the median rank over seeds)."""

    both: int
    only_a: int
    only_b: int
    neither: int
    """Captions whose picture comes first with both, with one, with none of the two."""
    b_wins: list[Example]
    a_wins: list[Example]


def contest(a: Variant, b: Variant, album: Album, n: int = 6) -> Contest:
    """Compare two variants caption by caption, with up to `n` of the clearest examples a side."""
    rank_a, rank_b = _median_ranks(a.results), _median_ranks(b.results)  # [M]
    first_a, first_b = rank_a <= 1, rank_b <= 1
    return Contest(
        both=int((first_a & first_b).sum()),
        only_a=int((first_a & ~first_b).sum()),
        only_b=int((first_b & ~first_a).sum()),
        neither=int((~first_a & ~first_b).sum()),
        b_wins=_wins(b, rank_b, a, rank_a, album, n),
        a_wins=_wins(a, rank_a, b, rank_b, album, n),
    )


def confused_captions(variant: Variant, album: Album, n: int = 6) -> list[Example]:
    """Captions that a wrong picture fits far better than their own, by the first seed's rival."""
    results = variant.results
    first = results[0]
    margin = np.mean([result.t2i.margins for result in results], axis=0)  # [M]
    ranks = _median_ranks(results)

    def show(query: int) -> Example | None:
        own, rival = first.text_item[query], first.t2i.rivals[query]
        return _complete(
            Shown("query", "caption", text=_caption(first, query, album)),
            Shown("right", f"its picture, rank {ranks[query]:.0f}", album.thumbnail(first.item_ids[own])),
            Shown("wrong", "taken for it", _image(first, rival, album)),
        )

    order = [q for q in np.argsort(margin) if margin[q] < 0 and first.t2i.rivals[q] >= 0]
    return _distinct(
        order, lambda q: frozenset((first.text_item[q], first.image_item[first.t2i.rivals[q]])), show, n
    )


def confused_pictures(variant: Variant, album: Album, n: int = 6) -> list[Example]:
    """Pictures that a wrong caption fits far better than any of their own, by the first seed's rival."""
    results = variant.results
    first = results[0]
    margin = np.mean([result.i2t.margins for result in results], axis=0)  # [N]
    ranks = np.median([result.i2t.ranks for result in results], axis=0)

    def show(query: int) -> Example | None:
        return _complete(
            Shown("query", "picture", _image(first, query, album)),
            Shown(
                "right",
                f"a caption of it; the best ranks {ranks[query]:.0f}",
                text=album.caption(first.item_ids[first.image_item[query]]),
            ),
            Shown("wrong", "taken for it", text=_caption(first, int(first.i2t.rivals[query]), album)),
        )

    order = [q for q in np.argsort(margin) if margin[q] < 0 and first.i2t.rivals[q] >= 0]
    return _distinct(order, lambda q: int(first.text_item[first.i2t.rivals[q]]), show, n)


def spread_clusters(clusters: Clusters, n: int = 8) -> list[int]:
    """Clusters far from each other: each next one is the farthest from those already chosen."""
    joint = np.add(clusters.image, clusters.text, dtype=np.float32)
    names = np.unique(clusters.cluster[clusters.cluster >= 0])
    centres = np.stack([joint[clusters.cluster == name].mean(axis=0) for name in names])  # [C, D]
    centres /= np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-12)
    chosen = [0]
    while len(chosen) < min(n, len(names)):
        nearest = (centres @ centres[chosen].T).max(axis=1)  # [C, D] @ [D, chosen] -> [C]
        nearest[chosen] = np.inf
        chosen.append(int(nearest.argmin()))
    return [int(names[i]) for i in chosen]


def cluster_members(clusters: Clusters, cluster: int, items: Items, album: Album, n: int = 6) -> Example:
    """The items nearest to a cluster's middle: each other's hard negatives."""
    members = np.flatnonzero(clusters.cluster == cluster)
    joint = np.add(clusters.image[members], clusters.text[members], dtype=np.float32)
    near = members[np.argsort(-(joint @ joint.mean(axis=0)))[:n]]
    return tuple(
        Shown("member", items[i].captions[0], album.thumbnail(items[i].id)) for i in near if items[i].captions
    )


def _wins(
    winner: Variant,
    winner_ranks: npt.NDArray[np.float64],
    loser: Variant,
    loser_ranks: npt.NDArray[np.float64],
    album: Album,
    n: int,
) -> list[Example]:
    theirs = loser.results[0]

    def show(query: int) -> Example | None:
        own, rival = theirs.text_item[query], theirs.t2i.rivals[query]
        right = f"rank {winner_ranks[query]:.0f} by {winner.label}, {loser_ranks[query]:.0f} by {loser.label}"
        return _complete(
            Shown("query", "caption", text=_caption(theirs, query, album)),
            Shown("right", right, album.thumbnail(theirs.item_ids[own])),
            Shown("wrong", f"preferred by {loser.label}", _image(theirs, rival, album)),
        )

    clear = (winner_ranks <= FOUND) & (loser_ranks > MISSED) & (theirs.t2i.ranks > 1)
    gain = np.where(clear, np.log(loser_ranks) - np.log(winner_ranks), 0.0)
    order = [int(q) for q in np.argsort(-gain, kind="stable") if gain[q] > 0]
    return _distinct(order, lambda q: int(theirs.text_item[q]), show, n)


def _median_ranks(results: Sequence[Result]) -> npt.NDArray[np.float64]:
    ranks: npt.NDArray[np.float64] = np.median([result.t2i.ranks for result in results], axis=0)
    return ranks


def _caption(result: Result, query: int, album: Album) -> str | None:
    item = int(result.text_item[query])
    return album.caption(result.item_ids[item], query - int(np.searchsorted(result.text_item, item)))


def _image(result: Result, image: int, album: Album) -> str | None:
    item = int(result.image_item[image])
    return album.thumbnail(result.item_ids[item], image - int(np.searchsorted(result.image_item, item)))


def _complete(*shown: Shown) -> Example | None:
    """The example, or None where a picture or caption is no longer there."""
    return shown if all(part.image or part.text for part in shown) else None


def _distinct(
    order: Iterable[int], same: Callable[[int], object], show: Callable[[int], Example | None], n: int
) -> list[Example]:
    """The first `n` examples that can be shown, one for each value of `same`."""
    seen: set[object] = set()
    examples: list[Example] = []
    for query in order:
        if len(examples) == n:
            break
        if same(query) in seen:
            continue
        seen.add(same(query))
        example = show(query)
        if example is not None:
            examples.append(example)
    return examples
